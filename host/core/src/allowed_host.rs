//! Entries of `allowedHosts`: the hosts beside the API server that a guest may send requests to.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserialize, Deserializer};
use serde::ser::{Serialize, Serializer};

use crate::network::Network;

/// The API server's name in the cluster, which the gateway answers; allowing it as another host would mean nothing.
const API_SERVER: &str = "kubernetes.default.svc";

/// One entry: `host`, `host:port`, `http://host:port`, `https://host`, an address in place of the host, or a network such
/// as `10.96.0.0/12`. A network opens no host by itself: it says that listed names may lead there. With a scheme or a port,
/// such as `http://10.244.0.0/16:8081`, it stands for each address in it: pods have no names.
///
/// An address that guests do not reach otherwise (loopback, cluster-internal, ...) is allowed by being listed as such.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AllowedHost(Entry);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Entry {
    Host { scheme: Scheme, host: String, port: u16 },
    Addresses { scheme: Scheme, network: Network, port: u16 },
    Network(Network),
}

/// An entry that is none. The administrator has to change the configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a host: write `host`, `host:port`, `http://host:port` for plain HTTP, a network such as `10.96.0.0/12`, or `http://10.244.0.0/16:8081` for all of its addresses"
)]
pub struct InvalidAllowedHost(String);

/// How a host is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// In the clear: only where the entry says so.
    Http,
    /// Over TLS, the default.
    Https,
}

impl Scheme {
    /// As in a URI.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// Where a host without a port is reached.
    #[must_use]
    pub fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

impl FromStr for AllowedHost {
    type Err = InvalidAllowedHost;

    fn from_str(text: &str) -> Result<Self, InvalidAllowedHost> {
        let invalid = || InvalidAllowedHost(text.chars().take(128).collect());
        if text.contains('/')
            && let Ok(network) = text.parse()
        {
            return Ok(Self(Entry::Network(network)));
        }
        let (scheme, rest) = match text.split_once("://") {
            Some(("http", rest)) => (Scheme::Http, rest),
            Some(("https", rest)) => (Scheme::Https, rest),
            Some(_) => return Err(invalid()),
            None => (Scheme::Https, text),
        };
        let (host, port) = match rest.rsplit_once(':') {
            // Not a colon inside of an IPv6 address.
            Some((host, port)) if !port.ends_with(']') => (host, Some(port.parse::<u16>().map_err(|_| invalid())?)),
            _ => (rest, None),
        };
        if port == Some(0) {
            return Err(invalid());
        }
        let port = port.unwrap_or(scheme.default_port());
        let host = host.to_ascii_lowercase();
        if host.contains('/') {
            let network = bare(&host).parse().map_err(|_| invalid())?;
            return Ok(Self(Entry::Addresses { scheme, network, port }));
        }
        let is_api_server = host == API_SERVER || host.strip_suffix(".cluster.local") == Some(API_SERVER);
        if !is_host(&host) || is_api_server { Err(invalid()) } else { Ok(Self(Entry::Host { scheme, host, port })) }
    }
}

/// An IPv6 address without the brackets that it has before a port.
fn bare(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

fn is_host(host: &str) -> bool {
    match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(ip) => ip.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            let label = |label: &str| {
                !label.is_empty()
                    && label.len() <= 63
                    && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_'))
            };
            // A last label of digits would be read as an address in one of its old forms.
            let last = host.rsplit('.').next().unwrap_or_default();
            let is_name = last.bytes().any(|b| b.is_ascii_lowercase()) && !last.starts_with("0x");
            host.len() <= 253 && host.split('.').all(label) && (is_name || host.parse::<Ipv4Addr>().is_ok())
        }
    }
}

impl AllowedHost {
    /// May a request with this scheme, host (lower case) and port be sent?
    #[must_use]
    pub fn admits(&self, scheme: Scheme, host: &str, port: u16) -> bool {
        match &self.0 {
            Entry::Host { scheme: s, host: h, port: p } => (*s, h.as_str(), *p) == (scheme, host, port),
            Entry::Addresses { scheme: s, network, port: p } => {
                (*s, *p) == (scheme, port) && bare(host).parse().is_ok_and(|ip| network.contains(unmapped(ip)))
            }
            Entry::Network(_) => false,
        }
    }

    /// Does the entry name this address literally, so that it may be reached although it is not on the internet? `ip` is
    /// what [`unmapped`] gives.
    #[must_use]
    pub fn lists_address(&self, ip: IpAddr, port: u16) -> bool {
        match &self.0 {
            Entry::Host { host, port: p, .. } => {
                *p == port && bare(host).parse::<IpAddr>().is_ok_and(|listed| unmapped(listed) == ip)
            }
            Entry::Addresses { network, port: p, .. } => *p == port && network.contains(ip),
            Entry::Network(network) => network.contains(ip),
        }
    }
}

/// The address that is meant: IPv4 inside of IPv6 (mapped, compatible, NAT64, 6to4) is judged as what it leads to.
#[must_use]
pub fn unmapped(ip: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = ip else { return ip };
    let [a, b, c, d, e, f, g, h] = v6.segments();
    let v4 = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        IpAddr::V4(Ipv4Addr::new(a, b, c, d))
    };
    match (a, b, c, d, e, f) {
        (0, 0, 0, 0, 0, 0xffff) => v4(g, h),
        // `::` and `::1` are addresses of their own.
        (0, 0, 0, 0, 0, 0) if g != 0 => v4(g, h),
        (0x64, 0xff9b, 0, 0, 0, 0) => v4(g, h),
        (0x64, 0xff9b, 1, ..) => v4(g, h),
        (0x2002, high, low, ..) => v4(high, low),
        _ => ip,
    }
}

impl fmt::Display for AllowedHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Entry::Host { scheme, host, port } => write!(f, "{}://{host}:{port}", scheme.as_str()),
            Entry::Addresses { scheme, network, port } if network.to_string().contains(':') => {
                write!(f, "{}://[{network}]:{port}", scheme.as_str())
            }
            Entry::Addresses { scheme, network, port } => write!(f, "{}://{network}:{port}", scheme.as_str()),
            Entry::Network(network) => network.fmt(f),
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
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for AllowedHost {
    fn schema_name() -> Cow<'static, str> {
        "AllowedHost".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "`host` (HTTPS, port 443), `host:port`, `http://host:port` for plain HTTP, a network such as `10.96.0.0/12` that listed names may lead to, or `http://10.244.0.0/16:8081` for all of its addresses; no wildcards.",
            "minLength": 1,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(text: &str) -> AllowedHost {
        text.parse().unwrap()
    }

    #[test]
    fn https_is_the_default_and_http_must_be_written() {
        assert!(allowed("example.com").admits(Scheme::Https, "example.com", 443));
        assert!(!allowed("example.com").admits(Scheme::Http, "example.com", 80));
        assert!(!allowed("example.com").admits(Scheme::Https, "example.com", 8443));
        assert!(!allowed("example.com").admits(Scheme::Https, "www.example.com", 443));
        assert!(allowed("Example.com:8443").admits(Scheme::Https, "example.com", 8443));
        assert!(allowed("http://example.com").admits(Scheme::Http, "example.com", 80));
        assert!(!allowed("http://example.com").admits(Scheme::Https, "example.com", 80));
        assert!(allowed("[::1]:80").admits(Scheme::Https, "[::1]", 80));
        assert!(!allowed("10.0.0.0/8").admits(Scheme::Https, "10.0.0.1", 443));
    }

    #[test]
    fn addresses_are_listed_literally_or_by_network() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert!(allowed("http://127.0.0.1:8080").lists_address(ip("127.0.0.1"), 8080));
        assert!(!allowed("http://127.0.0.1:8080").lists_address(ip("127.0.0.1"), 8081));
        assert!(!allowed("http://127.0.0.1:8080").lists_address(ip("127.0.0.2"), 8080));
        assert!(!allowed("localhost").lists_address(ip("127.0.0.1"), 443));
        assert!(allowed("10.96.0.0/12").lists_address(ip("10.111.1.1"), 1));
        assert!(!allowed("10.96.0.0/12").lists_address(ip("10.112.0.1"), 1));
        assert!(allowed("0.0.0.0/0").lists_address(ip("10.112.0.1"), 1));
        assert!(allowed("fd00::/8").lists_address(ip("fd12::1"), 1));
        assert!(!allowed("fd00::/8").lists_address(ip("10.0.0.1"), 1));
    }

    #[test]
    fn a_network_with_a_scheme_or_a_port_is_each_of_its_addresses() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let pods = allowed("http://10.244.0.0/16:8081");
        assert!(pods.admits(Scheme::Http, "10.244.1.7", 8081) && pods.lists_address(ip("10.244.1.7"), 8081));
        assert!(!pods.admits(Scheme::Http, "10.245.1.7", 8081) && !pods.lists_address(ip("10.245.1.7"), 8081));
        assert!(!pods.admits(Scheme::Http, "10.244.1.7", 80) && !pods.lists_address(ip("10.244.1.7"), 80));
        assert!(!pods.admits(Scheme::Https, "10.244.1.7", 8081));
        assert!(!pods.admits(Scheme::Http, "example.com", 8081));
        assert!(allowed("10.244.0.0/16:8081").admits(Scheme::Https, "10.244.1.7", 8081));
        assert!(allowed("http://[fd00::/8]:80").admits(Scheme::Http, "[fd12::1]", 80));
        for text in ["http://10.244.0.0/16:8081", "https://[fd00::/8]:443"] {
            assert_eq!(allowed(text).to_string(), text);
        }
    }

    #[test]
    fn what_is_not_a_host_is_refused() {
        for bad in [
            "",
            "*",
            "*.example.com",
            "ftp://x",
            "http://",
            "a/b",
            "a:b",
            "a:0",
            "a:99999",
            "user@a",
            "a b",
            "a..b",
            "10.0.0.0/33",
            "http://10.0.0.0/33:80",
            "http://10.0.0.0/8:0",
            "http://10.0.0.0/8/path",
            "https://a/path",
            "::1",
            "1.2.3",
            "0x7f000001",
            "127.1",
            "2130706433",
            "kubernetes.default.svc",
            "https://kubernetes.default.svc.cluster.local:443",
            "exämple.com",
        ] {
            assert!(bad.parse::<AllowedHost>().is_err(), "{bad}");
        }
    }
}
