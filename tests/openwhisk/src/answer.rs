//! Answers in OpenWhisk's shapes.

use serde_json::{Value, json};

/// What is sent, unless the script says otherwise.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    /// None: no content.
    pub(crate) body: Option<Value>,
}

impl Answer {
    pub(crate) fn json(status: u16, body: Value) -> Self {
        Self { status, headers: Vec::new(), body: Some(body) }
    }

    pub(crate) fn no_content() -> Self {
        Self { status: 204, headers: Vec::new(), body: None }
    }

    /// OpenWhisk's form of an error. `code` there is the id of the transaction.
    pub(crate) fn error(status: u16, message: &str) -> Self {
        Self::json(status, json!({ "code": "8TYUIOPjhgfdsaQWERTY", "error": message }))
    }

    /// The error that OpenWhisk or what stands before it sends with a status.
    pub(crate) fn of_status(status: u16) -> Self {
        Self::error(
            status,
            match status {
                400 => "The request content was malformed.",
                401 => "The supplied authentication is invalid",
                403 => "The supplied authentication is not authorized to access this resource.",
                404 => "The requested resource does not exist.",
                408 => "The server was not able to produce a timely response to your request.",
                413 => "The request's size is larger than the maximum allowed.",
                429 => "Too many requests in the last minute (count: 61, allowed: 60).",
                502 => "The server, while acting as a gateway, received an invalid response from the upstream server.",
                503 => "The server is currently unavailable (because it is overloaded or down for maintenance).",
                _ => "There was an internal server error.",
            },
        )
    }

    pub(crate) fn accepted(activation: &str) -> Self {
        Self {
            status: 202,
            headers: vec![("x-openwhisk-activation-id", activation.to_owned())],
            body: Some(json!({ "activationId": activation })),
        }
    }
}
