//! The strict parser of requests to the Kubernetes API.
//!
//! The API server decodes a path once and *then* splits it, trims trailing slashes, and reads queries leniently; a
//! decision made on another reading of the same bytes would be a hole. So only one spelling of each request is
//! accepted, what is unusual is refused, and what goes upstream is rebuilt from the parsed parts
//! ([`ApiRequest::to_path_and_query`]), never the guest's own bytes.

mod accept;
mod content;
mod delete;
pub(crate) mod path;
mod query;
mod refusal;
mod watch;

use std::fmt;

pub use accept::{Accept, Shape};
pub use content::ContentType;
pub use delete::DeleteOptions;
pub use query::{LogOption, Query};
pub use refusal::Refusal;
pub use watch::{WatchFrom, WatchOptions};

/// Longest path and query in bytes. Default 16 KiB: label selectors are the only long part; the API server itself stops at about 1 MiB of headers.
pub const MAX_PATH_AND_QUERY: usize = 16 << 10;

/// The methods that the API knows. `HEAD` and all others are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Method {
    /// `GET`
    Get,
    /// `POST`
    Post,
    /// `PUT`
    Put,
    /// `PATCH`
    Patch,
    /// `DELETE`
    Delete,
}

impl Method {
    /// The method of this exact name.
    pub fn parse(name: &str) -> Result<Self, Refusal> {
        Ok(match name {
            "GET" => Self::Get,
            "POST" => Self::Post,
            "PUT" => Self::Put,
            "PATCH" => Self::Patch,
            "DELETE" => Self::Delete,
            _ => {
                return Err(Refusal::method_not_allowed("only `GET`, `POST`, `PUT`, `PATCH` and `DELETE` are allowed"));
            }
        })
    }

    /// As it is written in HTTP.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }
}

/// What a request does, in RBAC's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verb {
    /// Read one object.
    Get,
    /// Read many objects.
    List,
    /// Follow the changes of objects.
    Watch,
    /// Create an object.
    Create,
    /// Replace an object.
    Update,
    /// Change parts of an object.
    Patch,
    /// Delete one object.
    Delete,
    /// Delete many objects.
    DeleteCollection,
}

impl Verb {
    /// Every verb that a rule may grant.
    pub const ALL: [Self; 8] = [
        Self::Get,
        Self::List,
        Self::Watch,
        Self::Create,
        Self::Update,
        Self::Patch,
        Self::Delete,
        Self::DeleteCollection,
    ];

    /// RBAC's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Watch => "watch",
            Self::Create => "create",
            Self::Update => "update",
            Self::Patch => "patch",
            Self::Delete => "delete",
            Self::DeleteCollection => "deletecollection",
        }
    }

    /// The verb of this word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|verb| verb.as_str() == word)
    }

    /// Changes nothing.
    pub fn is_read(self) -> bool {
        matches!(self, Self::Get | Self::List | Self::Watch)
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A request that has one meaning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ApiRequest {
    /// For objects of a resource.
    Resource(Box<ResourceRequest>),
    /// `GET` of a path that says what the server offers.
    Discovery(Discovery),
}

/// The non-resource paths that clients need to find their way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Discovery {
    /// `/version`
    Version,
    /// `/api`
    Core,
    /// `/api/v1`
    CoreVersion,
    /// `/apis`
    Groups,
    /// `/apis/<group>`
    Group(String),
    /// `/apis/<group>/<version>`
    GroupVersion(String, String),
    /// `/openapi/v3`
    OpenApi,
}

/// A request for objects of a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResourceRequest {
    /// The HTTP method.
    pub method: Method,
    /// What it does.
    pub verb: Verb,
    /// API group, empty for the core group.
    pub group: String,
    /// API version.
    pub version: String,
    /// The namespace in the path.
    pub namespace: Option<String>,
    /// Lower-case plural.
    pub plural: String,
    /// The decoded name in the path.
    pub name: Option<String>,
    /// Such as `status`.
    pub subresource: Option<String>,
    /// The options.
    pub query: Query,
}

impl ApiRequest {
    /// Reads a request line. `path_and_query` is what stands between method and HTTP version, beginning with `/`.
    pub fn parse(method: &str, path_and_query: &str) -> Result<Self, Refusal> {
        let method = Method::parse(method)?;
        if path_and_query.len() > MAX_PATH_AND_QUERY {
            return Err(Refusal {
                code: 414,
                reason: "BadRequest",
                message: format!("path and query are longer than {MAX_PATH_AND_QUERY} bytes"),
            });
        }
        if path_and_query.contains('#') {
            return Err(Refusal::bad_request("a path does not hold `#`"));
        }
        let (path, query) = path_and_query.split_once('?').unwrap_or((path_and_query, ""));
        match path::parse(path)? {
            path::Path::Discovery(discovery) => {
                if method != Method::Get {
                    return Err(Refusal::method_not_allowed("this path answers `GET` only"));
                }
                Query::parse_discovery(query)?;
                Ok(Self::Discovery(discovery))
            }
            path::Path::Resource(parts) => {
                let (verb, query) = verb_and_query(method, &parts, query)?;
                Ok(Self::Resource(Box::new(ResourceRequest {
                    method,
                    verb,
                    group: parts.group,
                    version: parts.version,
                    namespace: parts.namespace,
                    plural: parts.plural,
                    name: parts.name,
                    subresource: parts.subresource,
                    query,
                })))
            }
        }
    }

    /// The HTTP method.
    pub fn method(&self) -> Method {
        match self {
            Self::Resource(request) => request.method,
            Self::Discovery(_) => Method::Get,
        }
    }

    /// Path and query, rebuilt from the parts.
    pub fn to_path_and_query(&self) -> String {
        match self {
            Self::Resource(request) => request.to_path_and_query(),
            Self::Discovery(discovery) => discovery.to_path(),
        }
    }
}

impl Discovery {
    fn to_path(&self) -> String {
        match self {
            Self::Version => "/version".to_owned(),
            Self::Core => "/api".to_owned(),
            Self::CoreVersion => "/api/v1".to_owned(),
            Self::Groups => "/apis".to_owned(),
            Self::Group(group) => format!("/apis/{group}"),
            Self::GroupVersion(group, version) => format!("/apis/{group}/{version}"),
            Self::OpenApi => "/openapi/v3".to_owned(),
        }
    }
}

impl ResourceRequest {
    /// Path and query, rebuilt from the parts.
    pub fn to_path_and_query(&self) -> String {
        let mut out = path::build(self);
        self.query.append_to(&mut out);
        out
    }

    /// `plural` or `plural/subresource`, as rules name it.
    pub fn resource(&self) -> String {
        match &self.subresource {
            Some(subresource) => format!("{}/{subresource}", self.plural),
            None => self.plural.clone(),
        }
    }

    /// The namespace in which the server authorises the request: a Namespace object belongs to itself.
    pub fn authorised_namespace(&self) -> Option<&str> {
        match &self.namespace {
            Some(namespace) => Some(namespace),
            None if self.plural == "namespaces" => self.name.as_deref(),
            None => None,
        }
    }

    /// The name for which the server authorises the request: that of the path, or for list and watch the one that
    /// `fieldSelector=metadata.name=...` asks for.
    pub fn authorised_name(&self) -> Option<&str> {
        match (&self.name, self.verb) {
            (Some(name), _) => Some(name),
            (None, Verb::List | Verb::Watch) => self.query.selected_name(),
            (None, _) => None,
        }
    }
}

impl ResourceRequest {
    /// The verbs that the request needs: its own, and `create` where it may create as well. Apply creates a missing
    /// object, and so does PUT for some kinds.
    pub fn needed_verbs(&self, content: ContentType) -> impl Iterator<Item = Verb> + use<> {
        let creates = self.subresource.is_none()
            && match self.verb {
                Verb::Patch => content == ContentType::Apply,
                Verb::Update => is_created_on_update(&self.group, &self.plural),
                _ => false,
            };
        [Some(self.verb), creates.then_some(Verb::Create)].into_iter().flatten()
    }
}

/// The built-in kinds that a PUT creates when they are missing (`AllowCreateOnUpdate` in Kubernetes 1.36's sources).
fn is_created_on_update(group: &str, plural: &str) -> bool {
    matches!(
        (group, plural),
        ("", "endpoints" | "events" | "limitranges" | "services")
            | ("coordination.k8s.io", "leases" | "leasecandidates")
            | ("events.k8s.io", "events")
            | ("node.k8s.io", "runtimeclasses")
            | ("rbac.authorization.k8s.io", "roles" | "rolebindings" | "clusterroles" | "clusterrolebindings")
    )
}

fn verb_and_query(method: Method, parts: &path::Parts, query: &str) -> Result<(Verb, Query), Refusal> {
    let collection = parts.name.is_none();
    let verb = match (method, collection) {
        (Method::Get, false) => Verb::Get,
        (Method::Get, true) => Verb::List,
        (Method::Post, true) => Verb::Create,
        // A subresource such as `eviction` is created on an object that exists.
        (Method::Post, false) if parts.subresource.is_some() => Verb::Create,
        (Method::Post, false) => {
            return Err(Refusal::method_not_allowed(
                "`POST` goes to the collection, without a name; `PUT` and `PATCH` change an object",
            ));
        }
        (Method::Put, false) => Verb::Update,
        (Method::Patch, false) => Verb::Patch,
        (Method::Put | Method::Patch, true) => {
            return Err(Refusal::method_not_allowed("`PUT` and `PATCH` need the name of an object"));
        }
        (Method::Delete, false) => Verb::Delete,
        (Method::Delete, true) => Verb::DeleteCollection,
    };
    let log = parts.plural == "pods" && parts.subresource.as_deref() == Some("log");
    let query = Query::parse(query, verb, log)?;
    let verb = if verb == Verb::List && query.watch { Verb::Watch } else { verb };
    Ok((verb, query))
}

#[cfg(test)]
mod tests;
