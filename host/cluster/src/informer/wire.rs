//! The requests of a stream, and the shapes of what comes back.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;
use wasm_operator_core::object::{Object, ObjectError, ResourceVersion};
use wasm_operator_core::watch::{Representation, Resource};

/// Items per page of a list.
pub(crate) const PAGE_SIZE: u32 = 500;

/// The server ends a watch after a time between this and twice this, so that watches spread over its instances.
const WATCH_TIMEOUT: Duration = Duration::from_secs(300);

/// The annotation of the bookmark that ends the initial events of a streaming list.
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

/// What a stream asks for. Two subscriptions with equal sources share one stream.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Source {
    pub(crate) resource: Resource,
    /// None: all namespaces, or a cluster-scoped kind.
    pub(crate) namespace: Option<Arc<str>>,
    pub(crate) label_selector: String,
    pub(crate) field_selector: String,
    pub(crate) representation: Representation,
    /// Set where a stream is not shared between identities, as for Secrets.
    pub(crate) private_to: Option<Arc<str>>,
}

impl Source {
    fn accept(&self, list: bool) -> &'static str {
        match (self.representation, list) {
            (Representation::Full, _) => "application/json",
            (Representation::Metadata, true) => {
                "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json"
            }
            (Representation::Metadata, false) => {
                "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json"
            }
        }
    }

    fn request(&self, list: bool, query: &[(&str, &str)]) -> Result<http::Request<Vec<u8>>, http::Error> {
        let mut encoder = form_urlencoded::Serializer::new(String::new());
        for (key, value) in [("labelSelector", self.label_selector.as_str()), ("fieldSelector", &self.field_selector)] {
            if !value.is_empty() {
                encoder.append_pair(key, value);
            }
        }
        encoder.extend_pairs(query);
        let uri = format!("{}?{}", self.resource.path(self.namespace.as_deref()), encoder.finish());
        http::Request::get(uri).header(http::header::ACCEPT, self.accept(list)).body(Vec::new())
    }

    /// One page of a list.
    pub(crate) fn list(&self, token: Option<&str>) -> Result<http::Request<Vec<u8>>, http::Error> {
        let limit = PAGE_SIZE.to_string();
        let mut query = vec![("limit", limit.as_str())];
        query.extend(token.map(|token| ("continue", token)));
        self.request(true, &query)
    }

    /// A watch from a version on.
    pub(crate) fn watch(&self, from: &ResourceVersion, jitter: f64) -> Result<http::Request<Vec<u8>>, http::Error> {
        let timeout = WATCH_TIMEOUT.mul_f64(1.0 + jitter.clamp(0.0, 1.0)).as_secs().to_string();
        self.request(
            false,
            &[
                ("watch", "1"),
                ("allowWatchBookmarks", "true"),
                ("resourceVersion", from.as_str()),
                ("timeoutSeconds", &timeout),
            ],
        )
    }

    /// A watch that begins with the present objects, at least as new as now (no version is given).
    pub(crate) fn streaming_list(&self, jitter: f64) -> Result<http::Request<Vec<u8>>, http::Error> {
        let timeout = WATCH_TIMEOUT.mul_f64(1.0 + jitter.clamp(0.0, 1.0)).as_secs().to_string();
        self.request(
            false,
            &[
                ("watch", "1"),
                ("allowWatchBookmarks", "true"),
                ("sendInitialEvents", "true"),
                ("resourceVersionMatch", "NotOlderThan"),
                ("timeoutSeconds", &timeout),
            ],
        )
    }
}

/// One page of a list, borrowed from the response.
#[derive(Deserialize)]
struct ListBody<'a> {
    metadata: ListMetadata,
    #[serde(borrow, default)]
    items: Option<Vec<&'a RawValue>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ListMetadata {
    #[serde(default)]
    resource_version: String,
    #[serde(default, rename = "continue")]
    token: Option<String>,
}

/// One page of a list.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) objects: Vec<Arc<Object>>,
    pub(crate) version: ResourceVersion,
    pub(crate) token: Option<String>,
}

/// Reads one page.
pub(crate) fn page(body: &str, resource: &Resource) -> Result<Page, ObjectError> {
    let body: ListBody<'_> = serde_json::from_str(body)?;
    let parse = |item: &RawValue| Object::parse(item.get().as_bytes(), resource).map(Arc::new);
    Ok(Page {
        objects: body.items.unwrap_or_default().into_iter().map(parse).collect::<Result<_, _>>()?,
        version: ResourceVersion::new(&body.metadata.resource_version),
        token: body.metadata.token.filter(|token| !token.is_empty()),
    })
}

/// One line of a watch.
#[derive(Debug)]
pub(crate) enum Event {
    Added(Arc<Object>),
    Modified(Arc<Object>),
    Deleted(Arc<Object>),
    Bookmark {
        version: ResourceVersion,
        initial_end: bool,
    },
    /// The server ends the watch with a status code.
    Error {
        code: u16,
        message: String,
    },
}

#[derive(Deserialize)]
struct RawEvent<'a> {
    #[serde(borrow)]
    r#type: Cow<'a, str>,
    #[serde(borrow)]
    object: &'a RawValue,
}

#[derive(Deserialize)]
struct Bookmark {
    metadata: BookmarkMetadata,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BookmarkMetadata {
    resource_version: String,
    #[serde(default)]
    annotations: std::collections::BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct StatusBody {
    #[serde(default)]
    code: u16,
    #[serde(default)]
    message: String,
}

impl Event {
    /// The version up to which the stream has been received.
    pub(crate) fn position(&self) -> Option<&ResourceVersion> {
        match self {
            Self::Added(object) | Self::Modified(object) | Self::Deleted(object) => {
                Some(&object.metadata.resource_version)
            }
            Self::Bookmark { version, .. } => Some(version),
            Self::Error { .. } => None,
        }
    }

    /// The type as the server writes it.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Added(_) => "ADDED",
            Self::Modified(_) => "MODIFIED",
            Self::Deleted(_) => "DELETED",
            Self::Bookmark { .. } => "BOOKMARK",
            Self::Error { .. } => "ERROR",
        }
    }
}

/// Reads one line; None for a type that this host does not know.
pub(crate) fn event(line: &[u8], resource: &Resource) -> Result<Option<Event>, ObjectError> {
    let RawEvent { r#type, object } = serde_json::from_slice(line)?;
    let json = object.get();
    let object = || Object::parse(json.as_bytes(), resource).map(Arc::new);
    Ok(Some(match &*r#type {
        "ADDED" => Event::Added(object()?),
        "MODIFIED" => Event::Modified(object()?),
        "DELETED" => Event::Deleted(object()?),
        "BOOKMARK" => {
            let Bookmark { metadata } = serde_json::from_str(json)?;
            let initial_end = metadata.annotations.get(INITIAL_EVENTS_END).is_some_and(|value| value == "true");
            Event::Bookmark { version: ResourceVersion::new(&metadata.resource_version), initial_end }
        }
        "ERROR" => {
            let StatusBody { code, message } = serde_json::from_str(json)?;
            Event::Error { code, message }
        }
        _ => return Ok(None),
    }))
}

#[cfg(test)]
mod tests;
