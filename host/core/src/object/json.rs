//! Objects as raw JSON: read one level at a time, so that no tree of values is built and unknown fields survive.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{Labels, Metadata, ObjectError, ResourceVersion};
use crate::watch::Resource;

/// The members of a JSON object, in order.
struct Members<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::with_capacity(map.size_hint().unwrap_or(8));
                while let Some((Key(key), value)) = map.next_entry::<Key<'de>, &'de RawValue>()? {
                    members.push((key, value));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Read)
    }
}

/// A key that borrows where it can.
#[derive(Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

/// Reads the metadata, leaves out the managed fields, and adds `apiVersion` and `kind` where they are missing.
pub(super) fn normalise(json: &[u8], resource: &Resource) -> Result<(Metadata, Vec<u8>), ObjectError> {
    let members: Members<'_> = serde_json::from_slice(json)?;
    let mut metadata = None;
    let mut out = Vec::with_capacity(json.len());
    out.push(b'{');
    let has = |name: &str| members.0.iter().any(|(key, _)| key == name);
    if !has("apiVersion") {
        push(&mut out, "apiVersion", &quoted(&resource.api_version())?)?;
    }
    if !has("kind") {
        push(&mut out, "kind", &quoted(&resource.kind)?)?;
    }
    for (key, value) in &members.0 {
        if key == "metadata" {
            metadata = Some(serde_json::from_str(value.get())?);
            push(&mut out, key, &without_managed_fields(value)?)?;
        } else {
            push(&mut out, key, value.get())?;
        }
    }
    out.push(b'}');
    Ok((metadata.ok_or(ObjectError::Missing("name"))?, out))
}

/// The object with another version. Where it has none it is given none.
pub(super) fn with_version(json: &[u8], version: &ResourceVersion) -> Result<Vec<u8>, ObjectError> {
    replaced(json, "metadata", |metadata| {
        let text = quoted(version.as_str())?;
        Ok(String::from_utf8_lossy(&replaced(metadata.as_bytes(), "resourceVersion", |_| Ok(text.clone()))?)
            .into_owned())
    })
}

/// The object with another value of one member.
fn replaced(
    json: &[u8],
    name: &str,
    value: impl Fn(&str) -> Result<String, ObjectError>,
) -> Result<Vec<u8>, ObjectError> {
    let members: Members<'_> = serde_json::from_slice(json)?;
    let mut out = Vec::with_capacity(json.len() + 8);
    out.push(b'{');
    for (key, old) in &members.0 {
        if key == name {
            push(&mut out, key, &value(old.get())?)?;
        } else {
            push(&mut out, key, old.get())?;
        }
    }
    out.push(b'}');
    Ok(out)
}

fn without_managed_fields(metadata: &RawValue) -> Result<String, ObjectError> {
    let members: Members<'_> = serde_json::from_str(metadata.get())?;
    let mut out = Vec::with_capacity(metadata.get().len());
    out.push(b'{');
    for (key, value) in members.0.iter().filter(|(key, _)| key != "managedFields") {
        push(&mut out, key, value.get())?;
    }
    out.push(b'}');
    Ok(String::from_utf8_lossy(&out).into_owned())
}

fn push(out: &mut Vec<u8>, key: &str, value: &str) -> Result<(), ObjectError> {
    if out.len() > 1 {
        out.push(b',');
    }
    key.serialize(&mut serde_json::Serializer::new(&mut *out))?;
    out.push(b':');
    out.extend_from_slice(value.as_bytes());
    Ok(())
}

fn quoted(text: &str) -> Result<String, ObjectError> {
    Ok(serde_json::to_string(text)?)
}

/// A member of the object.
pub(super) fn member<'a>(json: &'a [u8], name: &str) -> Option<&'a str> {
    let members: Members<'a> = serde_json::from_slice(json).ok()?;
    members.0.into_iter().find(|(key, _)| key == name).map(|(_, value)| value.get())
}

/// The scalar at a path such as `.spec.type`.
pub(super) fn field(json: &[u8], path: &str) -> Option<String> {
    let mut value: &str = std::str::from_utf8(json).ok()?;
    for name in path.strip_prefix('.')?.split('.') {
        value = member(value.as_bytes(), name)?;
    }
    match value.as_bytes().first()? {
        b'"' => serde_json::from_str(value).ok(),
        b'{' | b'[' | b'n' => None,
        _ => Some(value.to_owned()),
    }
}

pub(super) fn resource_version<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ResourceVersion, D::Error> {
    let text: Option<Cow<'_, str>> = Option::deserialize(deserializer)?;
    Ok(text.map(|text| ResourceVersion::new(&text)).unwrap_or_default())
}

/// Reads them in any order, which a sorted vector would take quadratic time for.
pub(crate) fn labels<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Labels, D::Error> {
    let map: BTreeMap<_, _> = null_default(deserializer)?;
    let mut pairs = Vec::with_capacity(map.len());
    pairs.extend(map);
    Ok(Labels::from_sorted_store_unchecked(pairs))
}

/// `null` counts as empty, as the API server reads it.
pub(super) fn null_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
