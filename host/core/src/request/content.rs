//! Formats of request bodies.

use super::{Method, Refusal};

/// The format of a request's body. Only these pass: what the host cannot tell apart it cannot judge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContentType {
    /// An object or options.
    Json,
    /// RFC 6902.
    JsonPatch,
    /// RFC 7386.
    MergePatch,
    /// Kubernetes' own, for built-in kinds.
    StrategicMergePatch,
    /// Server-side apply.
    Apply,
}

impl ContentType {
    /// Reads the header of a request with this method. None of the header: JSON, as the server takes it.
    pub fn parse(method: Method, header: Option<&str>) -> Result<Self, Refusal> {
        let mut parts = header.unwrap_or("").split(';').map(str::trim);
        let media = parts.next().unwrap_or("").to_ascii_lowercase();
        let plain = parts.all(|part| {
            let part = part.to_ascii_lowercase();
            part.is_empty() || part == "charset=utf-8" || part == "charset=\"utf-8\""
        });
        let found = match media.as_str() {
            "" | "application/json" => Some(Self::Json),
            "application/json-patch+json" => Some(Self::JsonPatch),
            "application/merge-patch+json" => Some(Self::MergePatch),
            "application/strategic-merge-patch+json" => Some(Self::StrategicMergePatch),
            "application/apply-patch+yaml" => Some(Self::Apply),
            _ => None,
        };
        match found {
            Some(found) if plain && (method == Method::Patch) == (found != Self::Json) => Ok(found),
            _ if method == Method::Patch => Err(Refusal::unsupported_media_type(
                "a `PATCH` needs the content type `application/json-patch+json`, `application/merge-patch+json`, \
                 `application/strategic-merge-patch+json` or `application/apply-patch+yaml`",
            )),
            _ => Err(Refusal::unsupported_media_type("the body must be `application/json`")),
        }
    }

    /// The header to send upstream.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::JsonPatch => "application/json-patch+json",
            Self::MergePatch => "application/merge-patch+json",
            Self::StrategicMergePatch => "application/strategic-merge-patch+json",
            Self::Apply => "application/apply-patch+yaml",
        }
    }
}
