//! Paths: split first, decode only the name, once.

use super::{Discovery, Refusal, ResourceRequest};

/// Longest name in bytes: the server's own bound for nearly every kind.
const MAX_NAME: usize = 253;

pub(super) enum Path {
    Discovery(Discovery),
    Resource(Parts),
}

pub(super) struct Parts {
    pub(super) group: String,
    pub(super) version: String,
    pub(super) namespace: Option<String>,
    pub(super) plural: String,
    pub(super) name: Option<String>,
    pub(super) subresource: Option<String>,
}

pub(super) fn parse(path: &str) -> Result<Path, Refusal> {
    let Some(relative) = path.strip_prefix('/') else {
        return Err(Refusal::bad_request("a path begins with `/`"));
    };
    let segments: Vec<&str> = relative.split('/').collect();
    // Trailing slashes count: `DELETE .../configmaps/` deletes the whole collection upstream.
    if segments.iter().any(|segment| segment.is_empty()) {
        return Err(Refusal::bad_request("the path has an empty segment: no doubled slash and no slash at the end"));
    }
    match segments.as_slice() {
        ["version"] => Ok(Path::Discovery(Discovery::Version)),
        ["openapi", "v3"] => Ok(Path::Discovery(Discovery::OpenApi)),
        ["api"] => Ok(Path::Discovery(Discovery::Core)),
        ["api", "v1"] => Ok(Path::Discovery(Discovery::CoreVersion)),
        ["api", "v1", rest @ ..] => resource("", "v1", rest),
        ["apis"] => Ok(Path::Discovery(Discovery::Groups)),
        ["apis", group] => Ok(Path::Discovery(Discovery::Group(checked_group(group)?))),
        ["apis", group, version] => {
            Ok(Path::Discovery(Discovery::GroupVersion(checked_group(group)?, label("version", version)?)))
        }
        ["apis", group, version, rest @ ..] => resource(&checked_group(group)?, &label("version", version)?, rest),
        _ => Err(Refusal::not_found("guests reach `/api/v1/...`, `/apis/<group>/<version>/...` and discovery only")),
    }
}

fn resource(group: &str, version: &str, segments: &[&str]) -> Result<Path, Refusal> {
    // The old prefixes are still served: `/api/v1/watch/...` is a watch and `/api/v1/proxy/...` was a connect verb.
    if let [first @ ("watch" | "proxy"), ..] = segments {
        return Err(Refusal::bad_request(format!(
            "the path prefix `{first}/` is not allowed; use the query `watch=true` for a watch"
        )));
    }
    let (namespace, plural, rest) = match segments {
        // As the server: these two are subresources of a Namespace, all else lies in the namespace.
        ["namespaces", name, subresource @ ("status" | "finalize")] => (None, "namespaces", vec![*name, *subresource]),
        ["namespaces", namespace, plural, rest @ ..] => (Some(label("namespace", namespace)?), *plural, rest.to_vec()),
        [plural, rest @ ..] => (None, *plural, rest.to_vec()),
        [] => return Err(Refusal::not_found("the path names no resource")),
    };
    let (name, subresource) = match rest.as_slice() {
        [] => (None, None),
        [name] => (Some(*name), None),
        [name, subresource] => (Some(*name), Some(*subresource)),
        _ => return Err(Refusal::bad_request("the path goes on after a subresource")),
    };
    let plural = label("resource", plural)?;
    let name = match name {
        // Authorised in the namespace of that name, so it must be one.
        Some(name) if plural == "namespaces" => Some(label("namespace", name)?),
        Some(name) => Some(decode_name(name)?),
        None => None,
    };
    Ok(Path::Resource(Parts {
        group: group.to_owned(),
        version: version.to_owned(),
        namespace,
        plural,
        name,
        subresource: subresource.map(|s| label("subresource", s)).transpose()?,
    }))
}

/// A DNS label: at most 63 of `a-z`, `0-9` and inner `-`.
pub(crate) fn is_label(text: &str) -> bool {
    let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let bytes = text.as_bytes();
    bytes.len() <= 63
        && edge(bytes.first())
        && edge(bytes.last())
        && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
}

/// A DNS subdomain: labels with dots between them, at most 253 bytes.
pub(crate) fn is_subdomain(text: &str) -> bool {
    text.len() <= MAX_NAME && text.split('.').all(is_label)
}

/// A name that can stand in a path: what the parser below accepts, decoded.
pub(crate) fn is_path_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= MAX_NAME
        && text != "."
        && text != ".."
        && text.bytes().all(|b| (b.is_ascii_graphic() || b == b' ') && !matches!(b, b'/' | b'\\' | b'%' | b'?' | b'#'))
}

fn label(what: &str, text: &str) -> Result<String, Refusal> {
    if is_label(text) {
        Ok(text.to_owned())
    } else {
        Err(Refusal::bad_request(format!("the path's {what} is not a DNS label: lower-case letters, digits and `-`")))
    }
}

fn checked_group(text: &str) -> Result<String, Refusal> {
    if is_subdomain(text) {
        Ok(text.to_owned())
    } else {
        Err(Refusal::bad_request("the path's API group is not a lower-case DNS name"))
    }
}

fn decode_name(segment: &str) -> Result<String, Refusal> {
    let name = percent_decode(segment.as_bytes(), false)
        .ok_or_else(|| Refusal::bad_request("the name in the path has a broken percent escape"))?;
    if is_path_name(&name) {
        Ok(name)
    } else {
        Err(Refusal::bad_request(
            "the name in the path is longer than 253 bytes, is `.` or `..`, or holds one of `/ \\ % ? #`, a control or a non-ASCII character",
        ))
    }
}

/// Decodes once. None for a broken escape or a result that is not UTF-8.
pub(super) fn percent_decode(bytes: &[u8], plus_is_space: bool) -> Option<String> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes.iter();
    while let Some(&byte) = rest.next() {
        out.push(match byte {
            b'%' => {
                let mut digit = || rest.next().and_then(|b| char::from(*b).to_digit(16));
                let (high, low) = (digit()?, digit()?);
                u8::try_from(high * 16 + low).ok()?
            }
            b'+' if plus_is_space => b' ',
            other => other,
        });
    }
    String::from_utf8(out).ok()
}

/// Appends `text` with everything escaped that is not unreserved.
pub(super) fn percent_encode(text: &str, out: &mut String) {
    const HEX: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F'];
    let hex = |nibble: u8| HEX.get(usize::from(nibble)).copied().unwrap_or('0');
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ => out.extend(['%', hex(byte >> 4), hex(byte & 15)]),
        }
    }
}

pub(super) fn build(request: &ResourceRequest) -> String {
    let mut out = String::with_capacity(128);
    if request.group.is_empty() {
        out.push_str("/api/");
    } else {
        out.push_str("/apis/");
        out.push_str(&request.group);
        out.push('/');
    }
    out.push_str(&request.version);
    if let Some(namespace) = &request.namespace {
        out.push_str("/namespaces/");
        out.push_str(namespace);
    }
    out.push('/');
    out.push_str(&request.plural);
    if let Some(name) = &request.name {
        out.push('/');
        percent_encode(name, &mut out);
    }
    if let Some(subresource) = &request.subresource {
        out.push('/');
        out.push_str(subresource);
    }
    out
}
