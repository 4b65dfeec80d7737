//! Other hosts that a guest may reach.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserialize, Deserializer};
use serde::ser::{Serialize, Serializer};

/// Where `host` without a port points.
const DEFAULT_PORT: u16 = 443;
/// The API server's name in the cluster, which the gateway answers; allowing it as another host would mean nothing.
const API_SERVER: &str = "kubernetes.default.svc";

/// A host and a port, as written by the administrator. Nothing else matches it: no other port, no subdomain.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AllowedHost {
    /// A DNS name in lower case or an IP address; an IPv6 address without brackets. An address that the host would
    /// otherwise refuse (loopback, cluster-internal, ...) is allowed by being listed here as such.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl AllowedHost {
    fn parse(text: &str) -> Result<Self, &'static str> {
        if text.contains("://") {
            return Err("without a scheme");
        }
        if text.contains(['/', '@', '?', '#']) {
            return Err("without a path or user name");
        }
        if text.contains('*') {
            return Err("each by its full name; there are no wildcards");
        }
        if let Ok(address) = text.parse::<Ipv6Addr>() {
            return Ok(Self { host: address.to_string(), port: DEFAULT_PORT });
        }
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, after) = rest.split_once(']').ok_or("with `]` after an IPv6 address")?;
                let address: Ipv6Addr = host.parse().map_err(|_| "with an IPv6 address in the brackets")?;
                (address.to_string(), after.strip_prefix(':').or((!after.is_empty()).then_some("")))
            }
            None => match text.split_once(':') {
                Some((host, port)) => (host.to_ascii_lowercase(), Some(port)),
                None => (text.to_ascii_lowercase(), None),
            },
        };
        let port = match port {
            None => DEFAULT_PORT,
            Some(port) if port.bytes().all(|b| b.is_ascii_digit()) => {
                port.parse().ok().filter(|port| *port > 0).ok_or("with a port from 1 to 65535")?
            }
            Some(_) => return Err("with a port from 1 to 65535"),
        };
        if host.parse::<IpAddr>().is_err() && !is_host_name(&host) {
            return Err("with a DNS name or an IP address");
        }
        if host == API_SERVER || host.strip_suffix(".cluster.local") == Some(API_SERVER) {
            return Err("other than the API server, which `permissions` are for");
        }
        Ok(Self { host, port })
    }
}

/// As the resolver takes them: underscores occur in names of services. A last label of digits only would be read as an
/// address in one of its old forms.
fn is_host_name(text: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
    };
    let last = text.rsplit('.').next().unwrap_or_default();
    text.len() <= 253 && text.split('.').all(label) && last.bytes().any(|b| b.is_ascii_lowercase()) && !last.starts_with("0x")
}

impl fmt::Display for AllowedHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl Serialize for AllowedHost {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for AllowedHost {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(|how| {
            de::Error::custom(format!("`{text}` is not an allowed host: write `host` or `host:port`, {how}"))
        })
    }
}

impl JsonSchema for AllowedHost {
    fn schema_name() -> Cow<'static, str> {
        "AllowedHost".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "description": "`host` (port 443) or `host:port`; no wildcards.", "minLength": 1 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_one_port() {
        for (text, expected) in [
            ("api.example.com", "api.example.com:443"),
            ("API.example.com:8443", "api.example.com:8443"),
            ("prometheus:9090", "prometheus:9090"),
            ("10.1.2.3:80", "10.1.2.3:80"),
            ("[::1]:8080", "[::1]:8080"),
            ("::1", "[::1]:443"),
            ("[2001:DB8::0:1]", "[2001:db8::1]:443"),
            ("_srv.example.com", "_srv.example.com:443"),
        ] {
            assert_eq!(AllowedHost::parse(text).unwrap().to_string(), expected, "{text}");
        }
    }

    #[test]
    fn whatever_could_mean_more_than_one_host_is_refused() {
        for bad in [
            "", "*", "*.example.com", "https://example.com", "example.com/", "user@example.com", "example.com:", "example.com:0",
            "example.com:65536", "example.com:+1", "exa mple.com", "example.com.", ".example.com", "[::1", "[::1]x", "[::1]:", "1.2.3",
            "0x7f000001", "127.1", "2130706433", "example.com:80:80", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local:443",
            "exämple.com",
        ] {
            assert!(AllowedHost::parse(bad).is_err(), "{bad}");
        }
    }
}
