//! Which answers a guest can read, and of these which the host can read.

use super::Refusal;

/// What an `Accept` header asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accept {
    /// The form of the answer when the cache gives it. None: only the server can make it (a Table, aggregated discovery).
    pub shape: Option<Shape>,
    /// The header to send upstream: the guest's alternatives without those that the host cannot read.
    pub header: String,
}

/// Forms of an answer that the cache can give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Objects as they are.
    Full,
    /// `PartialObjectMetadata`, of one object.
    Metadata,
    /// `PartialObjectMetadataList`, of a list.
    MetadataList,
}

const JSON: &str = "application/json";

impl Accept {
    /// Reads the header; None if the guest sent none. YAML, protobuf and the like are refused with 406 when they are
    /// the only choice: the host could not strip and bound what it cannot read.
    pub fn parse(header: Option<&str>) -> Result<Self, Refusal> {
        let header = header.unwrap_or("").trim();
        if header.is_empty() {
            return Ok(Self { shape: Some(Shape::Full), header: JSON.to_owned() });
        }
        let readable: Vec<String> = header.split(',').filter_map(readable).collect();
        let shape = match readable.first().map(String::as_str) {
            None => {
                return Err(Refusal::not_acceptable(
                    "the gateway answers in `application/json` only; YAML, protobuf and CBOR do not pass",
                ));
            }
            Some(JSON) => Some(Shape::Full),
            Some("application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1") => Some(Shape::Metadata),
            Some("application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1") => Some(Shape::MetadataList),
            Some(_) => None,
        };
        Ok(Self { shape, header: readable.join(",") })
    }
}

/// One alternative in normal form, or None when it is not JSON.
fn readable(range: &str) -> Option<String> {
    let mut parts = range.split(';').map(str::trim);
    let media = parts.next()?.to_ascii_lowercase();
    if !matches!(media.as_str(), JSON | "application/*" | "*/*") {
        return None;
    }
    let (mut kind, mut group, mut version, mut quality) = (None, None, None, None);
    for part in parts.filter(|part| !part.is_empty()) {
        let (key, value) = part.split_once('=')?;
        let (key, value) = (key.trim(), value.trim());
        let slot = match key {
            "as" => &mut kind,
            "g" => &mut group,
            "v" => &mut version,
            "q" => &mut quality,
            "charset" if value.eq_ignore_ascii_case("utf-8") => continue,
            "profile" => continue,
            _ => return None,
        };
        let plain = !value.is_empty() && value.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.' || b == b'-');
        if !plain || slot.replace(value).is_some() {
            return None;
        }
    }
    // `q=0` means "not this one".
    if quality.is_some_and(|q: &str| q.trim_matches(['0', '.']).is_empty()) {
        return None;
    }
    match (kind, group, version) {
        (None, None, None) => Some(JSON.to_owned()),
        (Some(kind), Some(group), Some(version)) => Some(format!("{JSON};as={kind};g={group};v={version}")),
        _ => None,
    }
}
