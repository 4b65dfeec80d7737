//! What a guest's HTTP layer is told when there is no answer, or only a part of one.

use std::time::Duration;

/// A request that got no answer. What the Kubernetes API or the host's own rules have to say comes as an answer with a
/// `Status` instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The guest's configuration does not list the host. The administrator can.
    #[error(
        "`{authority}` is not among the guest's `allowedHosts`; guests reach `https://kubernetes.default.svc` and what is listed there"
    )]
    Denied {
        /// Scheme, host and port as the guest wrote them, cut to a printable length.
        authority: String,
    },
    /// The name leads to an address that guests do not reach, such as the host itself or the cluster's network.
    #[error("`{host}` resolves to {address}, an address that guests do not reach unless `allowedHosts` lists it")]
    DeniedAddress {
        /// The name.
        host: String,
        /// Where it leads.
        address: std::net::IpAddr,
    },
    /// The guest sent what is not a request: no authority, an unknown scheme.
    #[error("not a valid request: {0}")]
    Malformed(&'static str),
    /// The request's body is too large.
    #[error("the request's body is larger than `requestBytes` ({limit} bytes)")]
    RequestTooLarge {
        /// The limit.
        limit: u64,
    },
    /// The guest has too many requests in flight.
    #[error("more than `requestsInFlight` ({limit}) requests at once")]
    TooManyInFlight {
        /// The limit.
        limit: u32,
    },
    /// The name could not be resolved. May be retried.
    #[error("`{0}` could not be resolved")]
    Dns(String),
    /// No connection. May be retried: nothing was sent.
    #[error("no connection to `{host}`: {cause}")]
    Connect {
        /// Host and port.
        host: String,
        /// The cause as text.
        cause: String,
    },
    /// The other side's certificate does not hold.
    #[error("no secure connection to `{host}`: {cause}")]
    Tls {
        /// Host and port.
        host: String,
        /// The cause as text.
        cause: String,
    },
    /// The connection broke before an answer came; it is not known whether the request was carried out.
    #[error("the connection to `{host}` broke: {cause}")]
    Broken {
        /// Host and port.
        host: String,
        /// The cause as text.
        cause: String,
    },
    /// No answer in time; it is not known whether the request was carried out.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// The host is shutting down.
    #[error("the host is shutting down")]
    Closed,
}

/// An answer's body that ends early.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// Larger than the guest's limit.
    #[error(
        "the answer is larger than `responseBytes` ({limit} bytes); ask for less with `limit`, selectors or metadata only"
    )]
    TooLarge {
        /// The limit.
        limit: u64,
    },
    /// The request's time is over.
    #[error("the answer did not end in time")]
    Timeout,
    /// The connection broke.
    #[error("the connection broke in the middle of the answer: {0}")]
    Broken(String),
}
