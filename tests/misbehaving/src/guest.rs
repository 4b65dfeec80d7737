//! What the programs share: a watch on the ConfigMaps with their label, and requests.

use serde_json::{Value, json};
use wasm_operator_sdk::bindings::wasm_operator::controller::types::{
    Cause, Controller, Description, Failure, Mapping, Outcome, Parts, PermissionRule, Representation, Resource, Retry,
    Watch,
};
use wasm_operator_sdk::http::{Error, Request, Response};

pub use serde_json;
pub use wasm_operator_sdk::bindings::wasm_operator::controller::types;
pub use wasm_operator_sdk::{bindings, http};

use crate::LABEL;

/// The result of a reconcile.
pub type Answer = Result<Outcome, Failure>;

/// Makes a function `fn(Object) -> Answer` the reconcile of this program.
///
/// An object whose `data.behave` is `well` is left alone, so that a test can show that the guest still works.
#[macro_export]
macro_rules! program {
    ($reconcile:path) => {
        struct Program;

        impl $crate::guest::bindings::Guest for Program {
            fn describe() -> Result<$crate::guest::types::Description, String> {
                Ok($crate::guest::description(env!("CARGO_CRATE_NAME")))
            }

            fn reconcile(request: $crate::guest::types::Request) -> $crate::guest::Answer {
                let object = $crate::guest::Object::from(request);
                if object.data("behave") == Some("well") {
                    println!("{} behaves well", env!("CARGO_CRATE_NAME"));
                    return $crate::guest::done();
                }
                $reconcile(object)
            }
        }

        $crate::guest::bindings::export!(Program with_types_in $crate::guest::bindings);
    };
}

/// A controller of the ConfigMaps with the program's label, in the namespaces of `NAMESPACES` (separated by commas) or
/// all of them. It asks for everything on ConfigMaps in these namespaces.
#[must_use]
pub fn description(program: &str) -> Description {
    let namespaces: Vec<String> = std::env::var("NAMESPACES")
        .unwrap_or_default()
        .split(',')
        .filter(|namespace| !namespace.is_empty())
        .map(str::to_owned)
        .collect();
    Description {
        controllers: vec![Controller {
            name: program.replace('_', "-"),
            primary: Watch {
                of: Resource {
                    group: String::new(),
                    version: "v1".to_owned(),
                    kind: "ConfigMap".to_owned(),
                    plural: "configmaps".to_owned(),
                },
                namespaces: namespaces.clone(),
                label_selector: format!("{LABEL}={program}"),
                field_selector: String::new(),
                representation: Representation::Full,
                mapping: Mapping::Object,
                changed: Parts::empty(),
                having: Vec::new(),
            },
            watches: Vec::new(),
        }],
        permissions: vec![PermissionRule {
            api_groups: vec![String::new()],
            resources: vec!["configmaps".to_owned()],
            verbs: ["get", "list", "watch", "create", "update", "patch", "delete"].map(str::to_owned).to_vec(),
            resource_names: Vec::new(),
            namespaces,
        }],
    }
}

/// The ConfigMap that is reconciled, and why.
pub struct Object {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The ConfigMap; null when it does not exist.
    pub content: Value,
    /// UIDs of those that were deleted before.
    pub deleted: Vec<String>,
    /// Failures in a row.
    pub attempt: u32,
    /// Why it is reconciled: `initial`, `change`, `timer`, `retry` or `resync`.
    pub cause: &'static str,
    /// The id of the reconcile.
    pub id: String,
}

impl From<types::Request> for Object {
    fn from(request: types::Request) -> Self {
        Self {
            namespace: request.object.namespace.unwrap_or_default(),
            name: request.object.name,
            content: request.content.and_then(|content| serde_json::from_slice(&content).ok()).unwrap_or_default(),
            deleted: request.deleted.into_iter().map(|tombstone| tombstone.uid).collect(),
            attempt: request.attempt,
            cause: match request.cause {
                Cause::Initial => "initial",
                Cause::Change => "change",
                Cause::Timer => "timer",
                Cause::Retry => "retry",
                Cause::Resync => "resync",
            },
            id: request.id,
        }
    }
}

impl Object {
    /// An entry of its `data`.
    #[must_use]
    pub fn data(&self, key: &str) -> Option<&str> {
        self.content.get("data")?.get(key)?.as_str()
    }

    /// An entry of its `data` that is a number.
    #[must_use]
    pub fn number(&self, key: &str) -> Option<u64> {
        self.data(key)?.parse().ok()
    }

    /// A field of its `metadata`.
    #[must_use]
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.content.get("metadata")?.get(key)?.as_str()
    }

    /// The path of the ConfigMaps of its namespace.
    #[must_use]
    pub fn collection(&self) -> String {
        format!("/api/v1/namespaces/{}/configmaps", self.namespace)
    }

    /// A request that reads what `data.url` names (scheme, authority and path), or the ConfigMaps of its namespace.
    #[must_use]
    pub fn target(&self, default_query: &str) -> Request {
        let mut request = Request::new("GET", &format!("{}{default_query}", self.collection()));
        if let Some((scheme, (authority, path))) = self
            .data("url")
            .and_then(|url| url.split_once("://"))
            .map(|(scheme, rest)| (scheme, rest.find('/').map_or((rest, "/"), |slash| rest.split_at(slash))))
        {
            scheme.clone_into(&mut request.scheme);
            authority.clone_into(&mut request.authority);
            path.clone_into(&mut request.path);
        }
        request
    }

    /// Writes the ConfigMap `<name>-<suffix>`, which carries no label and so wakes nobody.
    ///
    /// # Errors
    /// A retryable failure when it cannot be written.
    pub fn write(&self, suffix: &str, data: &Value) -> Result<(), Failure> {
        let name = format!("{}-{suffix}", self.name);
        let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data});
        let answer = Request::apply(&format!("{}/{name}", self.collection()), body.to_string())
            .send()
            .and_then(|response| Ok((response.status, response.bytes()?)));
        match answer {
            Ok((200 | 201, _)) => Ok(()),
            Ok((status, body)) => Err(retryable(format!("{name}: {status} {}", String::from_utf8_lossy(&body)), None)),
            Err(error) => Err(retryable(format!("{name}: {error}"), None)),
        }
    }
}

/// A failure that is to be tried again, after so many milliseconds or the host's backoff.
#[must_use]
pub fn retryable(message: impl Into<String>, after: Option<u64>) -> Failure {
    Failure::Retryable(Retry { message: message.into(), after })
}

/// Wait for the next change.
///
/// # Errors
/// Never.
pub const fn done() -> Answer {
    Ok(Outcome::Done)
}

/// A failure whose message tells a test what the program saw. It is terminal: the host must not try again.
///
/// # Errors
/// Always.
pub fn report(message: impl Into<String>) -> Answer {
    Err(Failure::Terminal(message.into()))
}

/// Reads a body to its end without keeping it. Returns its length, and what broke it off.
pub fn drain(mut response: Response) -> (u64, Option<Error>) {
    let mut length = 0;
    loop {
        match response.read() {
            Ok(Some(part)) => length += part.len() as u64,
            Ok(None) => return (length, None),
            Err(error) => return (length, Some(error)),
        }
    }
}
