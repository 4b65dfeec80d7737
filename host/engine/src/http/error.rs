//! Errors of HTTP requests, as the gateway gives them and as `wasi:http` names them.

use wasmtime_wasi_http::Error as WasiError;
use wasmtime_wasi_http::p2::bindings::http::types::{DnsErrorPayload, ErrorCode};

/// Why there is no response, or why its body ends early. The guest sees the matching `error-code`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HttpError {
    /// The guest may not send this. A denial by the Kubernetes gateway is a response with a `Status`, not this.
    #[error("the request is denied")]
    Denied,
    /// The name does not resolve.
    #[error("the name does not resolve: {0}")]
    Dns(String),
    /// The address that the name resolves to is not allowed.
    #[error("the address is not allowed")]
    AddressProhibited,
    /// Nothing answers there.
    #[error("the destination is unavailable")]
    Unavailable,
    /// The connection was refused.
    #[error("connection refused")]
    ConnectionRefused,
    /// The connection was closed before the answer was complete.
    #[error("connection terminated")]
    ConnectionTerminated,
    /// No connection in time.
    #[error("no connection in time")]
    ConnectionTimeout,
    /// Too many requests at once.
    #[error("too many requests at once")]
    TooManyRequests,
    /// TLS failed.
    #[error("TLS failed")]
    Tls,
    /// The peer's certificate is not trusted.
    #[error("the certificate is not trusted")]
    TlsCertificate,
    /// The request's body is larger than so many bytes.
    #[error("the request's body is larger than {0} bytes")]
    RequestBodySize(u64),
    /// The method is not known.
    #[error("the method is not known")]
    MethodInvalid,
    /// The URI is not acceptable.
    #[error("the URI is not acceptable")]
    UriInvalid,
    /// The response's headers are larger than so many bytes.
    #[error("the response's headers are larger than {0} bytes")]
    ResponseHeaderSize(u32),
    /// The response's body is larger than so many bytes.
    #[error("the response's body is larger than {0} bytes")]
    ResponseBodySize(u64),
    /// The response's body ended early.
    #[error("the response's body ended early")]
    ResponseIncomplete,
    /// The response, or its next part, did not come in time.
    #[error("no response in time")]
    ResponseTimeout,
    /// Somebody does not speak HTTP.
    #[error("protocol error")]
    Protocol,
    /// Anything else. The text is shown to the guest.
    #[error("{0}")]
    Internal(String),
}

impl From<HttpError> for WasiError {
    fn from(error: HttpError) -> Self {
        match error {
            HttpError::Denied => Self::HttpRequestDenied,
            HttpError::Dns(text) => Self::DnsError { rcode: Some(text), info_code: None },
            HttpError::AddressProhibited => Self::DestinationIpProhibited,
            HttpError::Unavailable => Self::DestinationUnavailable,
            HttpError::ConnectionRefused => Self::ConnectionRefused,
            HttpError::ConnectionTerminated => Self::ConnectionTerminated,
            HttpError::ConnectionTimeout => Self::ConnectionTimeout,
            HttpError::TooManyRequests => Self::ConnectionLimitReached,
            HttpError::Tls => Self::TlsProtocolError,
            HttpError::TlsCertificate => Self::TlsCertificateError,
            HttpError::RequestBodySize(bytes) => Self::HttpRequestBodySize(Some(bytes)),
            HttpError::MethodInvalid => Self::HttpRequestMethodInvalid,
            HttpError::UriInvalid => Self::HttpRequestUriInvalid,
            HttpError::ResponseHeaderSize(bytes) => Self::HttpResponseHeaderSectionSize(Some(bytes)),
            HttpError::ResponseBodySize(bytes) => Self::HttpResponseBodySize(Some(bytes)),
            HttpError::ResponseIncomplete => Self::HttpResponseIncomplete,
            HttpError::ResponseTimeout => Self::HttpResponseTimeout,
            HttpError::Protocol => Self::HttpProtocolError,
            HttpError::Internal(text) => Self::InternalError(Some(text)),
        }
    }
}

/// The `error-code` of an error that a body ended with. wasmtime-wasi-http does the same for the head of a response and
/// forgets it for the body; only what [`HttpError`] can become is named.
pub(crate) fn error_code(error: &WasiError) -> ErrorCode {
    match error {
        WasiError::HttpRequestDenied => ErrorCode::HttpRequestDenied,
        WasiError::DnsError { rcode, info_code } => {
            ErrorCode::DnsError(DnsErrorPayload { rcode: rcode.clone(), info_code: *info_code })
        }
        WasiError::DestinationIpProhibited => ErrorCode::DestinationIpProhibited,
        WasiError::DestinationUnavailable => ErrorCode::DestinationUnavailable,
        WasiError::ConnectionRefused => ErrorCode::ConnectionRefused,
        WasiError::ConnectionTerminated => ErrorCode::ConnectionTerminated,
        WasiError::ConnectionTimeout => ErrorCode::ConnectionTimeout,
        WasiError::ConnectionLimitReached => ErrorCode::ConnectionLimitReached,
        WasiError::TlsProtocolError => ErrorCode::TlsProtocolError,
        WasiError::TlsCertificateError => ErrorCode::TlsCertificateError,
        WasiError::HttpRequestBodySize(bytes) => ErrorCode::HttpRequestBodySize(*bytes),
        WasiError::HttpRequestMethodInvalid => ErrorCode::HttpRequestMethodInvalid,
        WasiError::HttpRequestUriInvalid => ErrorCode::HttpRequestUriInvalid,
        WasiError::HttpResponseHeaderSectionSize(bytes) => ErrorCode::HttpResponseHeaderSectionSize(*bytes),
        WasiError::HttpResponseBodySize(bytes) => ErrorCode::HttpResponseBodySize(*bytes),
        WasiError::HttpResponseIncomplete => ErrorCode::HttpResponseIncomplete,
        WasiError::HttpResponseTimeout => ErrorCode::HttpResponseTimeout,
        WasiError::HttpProtocolError => ErrorCode::HttpProtocolError,
        other => ErrorCode::InternalError(Some(other.to_string())),
    }
}
