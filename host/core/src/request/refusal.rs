use serde::Serialize;

/// An answer of the host in place of the API server's: the guest's mistake, to be mended in the guest or in its
/// configuration. Sent as a Kubernetes `Status`, so that clients handle it as any other error.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// HTTP status code.
    pub code: u16,
    /// `reason` of the Status, a word that the Kubernetes API uses for this code.
    pub reason: &'static str,
    /// What happened, and what to do.
    pub message: String,
}

impl Refusal {
    /// 400: the request has no clear meaning.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self { code: 400, reason: "BadRequest", message: message.into() }
    }

    /// 403: the guest may not do this.
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self { code: 403, reason: "Forbidden", message: message.into() }
    }

    /// 404: there is no such path.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self { code: 404, reason: "NotFound", message: message.into() }
    }

    /// 405: the path does not take this method.
    pub fn method_not_allowed(message: impl Into<String>) -> Self {
        Self { code: 405, reason: "MethodNotAllowed", message: message.into() }
    }

    /// 406: the host cannot answer in a format that the guest accepts.
    pub fn not_acceptable(message: impl Into<String>) -> Self {
        Self { code: 406, reason: "NotAcceptable", message: message.into() }
    }

    /// 413: the request or its answer is too large.
    pub fn too_large(message: impl Into<String>) -> Self {
        Self { code: 413, reason: "RequestEntityTooLarge", message: message.into() }
    }

    /// 415: the body is in a format that the host does not read.
    pub fn unsupported_media_type(message: impl Into<String>) -> Self {
        Self { code: 415, reason: "UnsupportedMediaType", message: message.into() }
    }

    /// 429: too much at once.
    pub fn too_many_requests(message: impl Into<String>) -> Self {
        Self { code: 429, reason: "TooManyRequests", message: message.into() }
    }

    /// 504: no answer in time, or one that leaves open what happened.
    pub fn timeout(message: impl Into<String>) -> Self {
        Self { code: 504, reason: "Timeout", message: message.into() }
    }

    /// The `Status` object as JSON.
    pub fn to_status(&self) -> Vec<u8> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Status<'a> {
            kind: &'a str,
            api_version: &'a str,
            metadata: Empty,
            status: &'a str,
            message: &'a str,
            reason: &'a str,
            code: u16,
        }
        #[derive(Serialize)]
        struct Empty {}
        // Strings and a number always serialise.
        serde_json::to_vec(&Status {
            kind: "Status",
            api_version: "v1",
            metadata: Empty {},
            status: "Failure",
            message: &self.message,
            reason: self.reason,
            code: self.code,
        })
        .unwrap_or_default()
    }
}
