//! Headers that are not passed on, in whichever direction.

/// Those of one connection (RFC 9110, section 7.6.1), and those by which a connection becomes another.
pub const OF_CONNECTION: [&str; 12] = [
    "connection",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];
