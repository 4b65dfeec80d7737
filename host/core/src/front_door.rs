//! What the front door decides from the words of a request: which guest it is for, what right it takes, and which headers
//! pass. All guests share one origin with each other and trust nobody who calls.

use crate::headers::OF_CONNECTION;
use crate::request::Verb;

/// The API group of [`GUESTS`].
pub const GROUP: &str = "wasm-operator.dev";
/// The resource whose subresource [`SUBRESOURCE`] a caller must be granted, with the guest's name as the object's name.
pub const GUESTS: &str = "guests";
/// As in `services/proxy` of the API server.
pub const SUBRESOURCE: &str = "proxy";
/// The audience of the tokens that callers bring unless configured: tokens for the API server itself are no good here.
pub const AUDIENCE: &str = "wasm-operator.dev";

/// The beginning of headers that only the host sets.
pub const OWN_PREFIX: &str = "x-wasm-operator-";
/// Longest name of a guest.
const MAX_NAME: usize = 57;

/// Where a request goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route<'a> {
    /// The guest's name, as it stands in the path.
    pub guest: &'a str,
    /// The rest of the path, from its `/` on.
    pub path: &'a str,
}

/// A path that leads nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoRoute {
    /// Not below `/guests/<name>/`.
    #[error("nothing is served here; guests are below `/guests/<name>/`")]
    NotFound,
    /// A segment that someone on the way may take for another path.
    #[error("the path has a segment `.` or `..`; send it resolved")]
    DotSegment,
}

/// Splits the raw path of a URI. The name is its second segment, byte for byte: nothing is decoded or normalised, so what
/// was authorised is what is called.
///
/// # Errors
/// For a path that leads to no guest.
pub fn route(path: &str) -> Result<Route<'_>, NoRoute> {
    let rest = path.strip_prefix("/guests/").ok_or(NoRoute::NotFound)?;
    let (guest, path) = match rest.find('/') {
        Some(slash) => rest.split_at(slash),
        None => (rest, "/"),
    };
    if !is_name(guest) {
        return Err(NoRoute::NotFound);
    }
    check_path(path)?;
    Ok(Route { guest, path })
}

/// Refuses what a guest, or a server behind it, might resolve differently than whoever allowed the request.
///
/// # Errors
/// For a path with dot segments, written out or escaped.
pub fn check_path(path: &str) -> Result<(), NoRoute> {
    let is_dots = |segment: &str| {
        let plain = segment.to_ascii_lowercase().replace("%2e", ".");
        plain == "." || plain == ".."
    };
    // A separator may be escaped as well.
    let lower = path.to_ascii_lowercase().replace("%2f", "/").replace("%5c", "/").replace('\\', "/");
    if lower.split('/').any(is_dots) { Err(NoRoute::DotSegment) } else { Ok(()) }
}

fn is_name(name: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    !name.is_empty()
        && name.len() <= MAX_NAME
        && name.bytes().all(inner)
        && !name.starts_with('-')
        && !name.ends_with('-')
}

/// The verb on `guests/proxy` that a method takes, as the API server's own proxy has it. None for methods that it does not
/// pass on either.
#[must_use]
pub fn verb(method: &str) -> Option<Verb> {
    match method {
        "GET" | "HEAD" => Some(Verb::Get),
        "POST" => Some(Verb::Create),
        "PUT" => Some(Verb::Update),
        "PATCH" => Some(Verb::Patch),
        "DELETE" => Some(Verb::Delete),
        _ => None,
    }
}

/// Headers that say, or seem to say, who is calling and how: the host has judged the request without them.
const CALLER: [&str; 12] = [
    "authorization",
    "cookie",
    "cookie2",
    "forwarded",
    "true-client-ip",
    "via",
    "x-client-ip",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-original-url",
    "x-rewrite-url",
];
const CALLER_PREFIXES: [&str; 5] = [OWN_PREFIX, "impersonate-", "x-forwarded-", "x-real-", "x-remote-"];

/// Whether a header of a request, in lower case, is kept from the guest. An underscore counts as a hyphen, as for
/// programs that cannot tell them apart.
#[must_use]
pub fn is_dropped_from_request(name: &str) -> bool {
    let name = name.replace('_', "-");
    OF_CONNECTION.contains(&&*name)
        || CALLER.contains(&&*name)
        || CALLER_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// Headers by which one guest could reach beyond its own answers: to other paths of the origin, to later requests, or to
/// what a browser keeps of its user.
const ORIGIN: [&str; 15] = [
    "accept-ch",
    "alt-svc",
    "clear-site-data",
    "expect-ct",
    "nel",
    "origin-agent-cluster",
    "public-key-pins",
    "report-to",
    "reporting-endpoints",
    "service-worker-allowed",
    "set-cookie",
    "set-cookie2",
    "sourcemap",
    "strict-transport-security",
    "www-authenticate",
];

/// Whether a header of a guest's answer, in lower case, is kept from the caller.
#[must_use]
pub fn is_dropped_from_response(name: &str) -> bool {
    OF_CONNECTION.contains(&name) || ORIGIN.contains(&name) || name.starts_with(OWN_PREFIX)
}

/// Headers that every answer of a guest has, whatever the guest says: a page of a guest is no page of the origin.
pub const RESPONSE_HEADERS: [(&str, &str); 2] = [
    ("content-security-policy", "sandbox; default-src 'none'; frame-ancestors 'none'"),
    ("x-content-type-options", "nosniff"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_raw_second_segment_is_the_guest_and_the_rest_its_path() {
        for (path, guest, rest) in [
            ("/guests/hello/a/b", "hello", "/a/b"),
            ("/guests/hello/", "hello", "/"),
            ("/guests/hello", "hello", "/"),
            ("/guests/hello//x", "hello", "//x"),
            ("/guests/hello/a%2fb/%C3%A4", "hello", "/a%2fb/%C3%A4"),
            ("/guests/hello/guests/other", "hello", "/guests/other"),
            ("/guests/hello/..a/b..", "hello", "/..a/b.."),
        ] {
            assert_eq!(route(path), Ok(Route { guest, path: rest }), "{path}");
        }
    }

    #[test]
    fn a_name_that_is_not_written_exactly_is_no_name() {
        let long = format!("/guests/{}/", "a".repeat(58));
        for path in [
            "",
            "/",
            "/guests",
            "/guests/",
            "/guests//hello/",
            "//guests/hello/",
            "/Guests/hello/",
            "/guests/Hello/",
            "/guests/hel%6Co/",
            "/guests/hello%2Fother/",
            "/guests/./hello/",
            "/guests/../guests/hello/",
            "/guests/hello%00/",
            "/guests/hello;x/",
            "/guests/-hello/",
            "/guests/*/",
            "/x/guests/hello/",
            &long,
        ] {
            assert_eq!(route(path), Err(NoRoute::NotFound), "{path}");
        }
    }

    #[test]
    fn dot_segments_are_refused_however_they_are_written() {
        for rest in
            ["/..", "/../other/", "/a/./b", "/%2e%2E/x", "/.%2e", "/a%2F..%2fb", "/a%5c..%5Cb", "/a\\..\\b", "/a/.."]
        {
            assert_eq!(route(&format!("/guests/hello{rest}")), Err(NoRoute::DotSegment), "{rest}");
        }
    }

    #[test]
    fn methods_take_the_verbs_of_the_api_servers_proxy() {
        let verbs = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"].map(|method| verb(method).unwrap().as_str());
        assert_eq!(verbs, ["get", "get", "create", "update", "patch", "delete"]);
        for other in ["OPTIONS", "TRACE", "CONNECT", "get", "PROPFIND", ""] {
            assert_eq!(verb(other), None, "{other}");
        }
    }

    #[test]
    fn neither_credentials_nor_claims_of_identity_reach_a_guest() {
        for name in [
            "authorization",
            "cookie",
            "proxy-authorization",
            "x-wasm-operator-user",
            "x_wasm_operator_user",
            "x-wasm_operator-group",
            "x-wasm-operator-",
            "x-forwarded-for",
            "x-forwarded-user",
            "x-remote-user",
            "x_remote_group",
            "impersonate-user",
            "impersonate-extra-scopes",
            "x-http-method-override",
            "connection",
            "te",
        ] {
            assert!(is_dropped_from_request(name), "{name}");
        }
        for name in ["accept", "content-type", "content-length", "x-request-id", "if-match", "x-wasm", "user-agent"] {
            assert!(!is_dropped_from_request(name), "{name}");
        }
    }

    // Rule 41
    #[test]
    fn an_answer_cannot_reach_beyond_itself() {
        for name in [
            "set-cookie",
            "service-worker-allowed",
            "alt-svc",
            "strict-transport-security",
            "clear-site-data",
            "www-authenticate",
            "x-wasm-operator-request-id",
            "transfer-encoding",
            "upgrade",
        ] {
            assert!(is_dropped_from_response(name), "{name}");
        }
        for name in ["content-type", "content-length", "location", "etag", "retry-after", "x-custom"] {
            assert!(!is_dropped_from_response(name), "{name}");
        }
    }
}
