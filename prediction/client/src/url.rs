//! Where the service is.

use http::Uri;
use http::uri::PathAndQuery;

/// The path of the service, when the URL names none.
const PATH: &str = "/prediction";
const PORT: u16 = 80;

/// The configured URL is none of a prediction service. For whoever configured it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{url}` is no URL of a prediction service: {reason}; write such as `http://127.0.0.1:5000/prediction`")]
pub struct BadUrl {
    url: String,
    reason: &'static str,
}

/// Where requests go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    /// Without the brackets of an IPv6 address.
    pub(crate) host: Box<str>,
    pub(crate) port: u16,
    /// The value of the `host` header.
    pub(crate) authority: Box<str>,
    pub(crate) path: Uri,
}

impl Target {
    pub(crate) fn parse(url: &str) -> Result<Self, BadUrl> {
        let bad = |reason| BadUrl { url: url.to_owned(), reason };
        let parsed: Uri = url.parse().map_err(|_| bad("it cannot be read"))?;
        match parsed.scheme_str() {
            Some("http") => {}
            // Times of events are no secret, and a forecast decides nothing but when a guest sleeps.
            Some("https") => return Err(bad("only `http` is supported: run the service beside the host")),
            _ => return Err(bad("it does not start with `http://`")),
        }
        let authority = parsed.authority().ok_or_else(|| bad("it names no host"))?;
        if authority.as_str().contains('@') {
            return Err(bad("it holds user information"));
        }
        let host = authority.host();
        let port = match authority.as_str().strip_prefix(host) {
            Some("") => PORT,
            _ => authority.port_u16().filter(|port| *port != 0).ok_or_else(|| bad("its port is not a number"))?,
        };
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        if host.is_empty() {
            return Err(bad("it names no host"));
        }
        let path = match parsed.path_and_query().map(PathAndQuery::as_str) {
            None | Some("" | "/") => Uri::from_static(PATH),
            Some(path) => path.parse().map_err(|_| bad("its path cannot be read"))?,
        };
        Ok(Self { host: host.into(), port, authority: authority.as_str().into(), path })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_lead_to_host_port_and_path() {
        for (url, host, port, path) in [
            ("http://127.0.0.1:5000/prediction", "127.0.0.1", 5000, "/prediction"),
            ("http://127.0.0.1:5000", "127.0.0.1", 5000, "/prediction"),
            ("http://predict.svc/", "predict.svc", 80, "/prediction"),
            ("http://[::1]:5000/v2?model=a", "::1", 5000, "/v2?model=a"),
        ] {
            let target = Target::parse(url).unwrap();
            assert_eq!((&*target.host, target.port, target.path.to_string().as_str()), (host, port, path));
        }
        assert_eq!(&*Target::parse("http://[::1]:5000").unwrap().authority, "[::1]:5000");
    }

    #[test]
    fn other_urls_are_refused_with_a_reason() {
        for (url, reason) in [
            ("", "it cannot be read"),
            ("http://", "it cannot be read"),
            ("127.0.0.1:5000", "it does not start with `http://`"),
            ("/prediction", "it does not start with `http://`"),
            ("https://predict.svc", "only `http` is supported"),
            ("ftp://predict.svc", "it does not start with `http://`"),
            ("http://user:secret@predict.svc", "it holds user information"),
            ("http://predict.svc:0", "its port is not a number"),
            ("http://predict.svc:", "its port is not a number"),
        ] {
            let error = Target::parse(url).unwrap_err().to_string();
            assert!(error.contains(reason), "{url} gives {error}");
        }
    }
}
