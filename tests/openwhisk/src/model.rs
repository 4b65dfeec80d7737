//! What OpenWhisk knows, and what it would answer. No I/O.

use std::collections::BTreeMap;

use base64::Engine as _;
use http::Method;
use serde_json::Value;

use crate::action::Action;
use crate::answer::Answer;

/// OpenWhisk's default for the body of an activation.
const MOST_BODY_BYTES: usize = 1 << 20;

#[derive(Debug, Default)]
pub(crate) struct Model {
    namespaces: BTreeMap<String, Namespace>,
    activations: u64,
}

#[derive(Debug, Default)]
struct Namespace {
    /// The value of an `Authorization` header.
    authorization: String,
    /// By `[package/]name`.
    actions: BTreeMap<String, Action>,
    /// Whether a rule is active, by name.
    triggers: BTreeMap<String, bool>,
}

/// A request, as far as the model needs it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub(crate) method: &'a Method,
    pub(crate) path: &'a str,
    pub(crate) query: &'a str,
    pub(crate) authorization: Option<&'a str>,
    pub(crate) body: &'a [u8],
}

impl Model {
    /// `credentials` as clients have them: `user:password`.
    pub(crate) fn namespace(&mut self, name: &str, credentials: &str) {
        let encoded = base64::engine::general_purpose::STANDARD.encode(credentials);
        self.namespaces.entry(name.to_owned()).or_default().authorization = format!("Basic {encoded}");
    }

    /// `name` is `/namespace/[package/]name`. False when there is no such namespace.
    pub(crate) fn action(&mut self, name: &str, action: Option<Action>) -> bool {
        let Some((namespace, rest)) = self.resolve(name) else { return false };
        match action {
            Some(action) => drop(namespace.actions.insert(rest, action)),
            None => drop(namespace.actions.remove(&rest)),
        }
        true
    }

    /// `name` is `/namespace/name`. False when there is no such namespace.
    pub(crate) fn trigger(&mut self, name: &str, has_rule: bool) -> bool {
        let Some((namespace, rest)) = self.resolve(name) else { return false };
        namespace.triggers.insert(rest, has_rule);
        true
    }

    fn resolve(&mut self, name: &str) -> Option<(&mut Namespace, String)> {
        let (namespace, rest) = name.trim_start_matches('/').split_once('/')?;
        Some((self.namespaces.get_mut(namespace)?, rest.to_owned()))
    }

    pub(crate) fn answer(&mut self, asked: Asked<'_>) -> Answer {
        let Some(authorization) = asked.authorization else {
            return Answer::error(401, "The resource requires authentication, which was not supplied with the request");
        };
        let subject = self.namespaces.iter().find(|(_, namespace)| namespace.authorization == authorization);
        let Some(subject) = subject.map(|(name, _)| name.clone()) else { return Answer::of_status(401) };
        let mut segments = asked.path.trim_start_matches('/').split('/');
        if [segments.next(), segments.next(), segments.next()] != [Some("api"), Some("v1"), Some("namespaces")] {
            return Answer::of_status(404);
        }
        let (namespace, collection) = match (segments.next(), segments.next()) {
            (Some(namespace), Some(collection)) => (namespace, collection),
            // The namespaces that the credentials are good for.
            (None, _) if asked.method == Method::GET => return Answer::json(200, [subject].as_slice().into()),
            _ => return Answer::of_status(404),
        };
        let rest = segments.collect::<Vec<_>>().join("/");
        let namespace = if namespace == "_" { subject.clone() } else { namespace.to_owned() };
        if namespace != subject {
            // OpenWhisk does not say whether the namespace exists.
            let message = format!("The supplied authentication is not authorized to access '{namespace}'.");
            return Answer::error(403, &message);
        }
        match (asked.method, collection) {
            (&Method::GET, "actions") => self.look_up(&namespace, &rest, asked.query),
            (&Method::POST, "actions") => {
                let exists = self.namespaces.get(&namespace).is_some_and(|all| all.actions.contains_key(&rest));
                if exists { self.activate(asked.body, true) } else { Answer::of_status(404) }
            }
            (&Method::POST, "triggers") => {
                let found = self.namespaces.get(&namespace).and_then(|all| all.triggers.get(&rest)).copied();
                found.map_or_else(|| Answer::of_status(404), |has_rule| self.activate(asked.body, has_rule))
            }
            (_, "actions" | "triggers") => Answer::error(405, "HTTP method not allowed, supported methods: GET, POST"),
            _ => Answer::of_status(404),
        }
    }

    fn look_up(&self, namespace: &str, rest: &str, query: &str) -> Answer {
        let with_code = !form_urlencoded::parse(query.as_bytes()).any(|(key, value)| key == "code" && value == "false");
        let found = self.namespaces.get(namespace).and_then(|all| all.actions.get(rest));
        let Some(action) = found else { return Answer::of_status(404) };
        let (path, name) = match rest.split_once('/') {
            Some((package, name)) => (format!("{namespace}/{package}"), name),
            None => (namespace.to_owned(), rest),
        };
        Answer::json(200, action.to_json(&path, name, with_code))
    }

    /// A trigger without an active rule takes the request and makes no activation.
    fn activate(&mut self, body: &[u8], has_rule: bool) -> Answer {
        if body.len() > MOST_BODY_BYTES {
            return Answer::of_status(413);
        }
        if !body.is_empty() && !serde_json::from_slice::<Value>(body).is_ok_and(|body| body.is_object()) {
            return Answer::of_status(400);
        }
        if !has_rule {
            return Answer::no_content();
        }
        self.activations += 1;
        Answer::accepted(&format!("{:032x}", self.activations))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model() -> Model {
        let mut model = Model::default();
        model.namespace("guest", "user:key");
        model.namespace("other", "someone:else");
        assert!(model.action("/guest/5g-media/ping", Some(Action::blackbox("i:1").annotation("placement", "x"))));
        assert!(model.action("/guest/plain", Some(Action::code("nodejs:6", "function main() {}").main("start"))));
        assert!(model.trigger("/guest/done", true) && model.trigger("/guest/lonely", false));
        assert!(!model.trigger("/nobody/done", true));
        model
    }

    fn ask(model: &mut Model, method: Method, uri: &str, credentials: Option<&str>, body: &str) -> Answer {
        let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
        let encoded = credentials
            .map(|credentials| format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(credentials)));
        let asked = Asked { method: &method, path, query, authorization: encoded.as_deref(), body: body.as_bytes() };
        model.answer(asked)
    }

    #[test]
    fn actions_have_the_documented_shape() {
        let model = &mut model();
        let user = Some("user:key");
        let answer = ask(model, Method::GET, "/api/v1/namespaces/_/actions/5g-media/ping", user, "");
        let body = answer.body.unwrap();
        assert_eq!((answer.status, &body["namespace"], &body["name"]), (200, &"guest/5g-media".into(), &"ping".into()));
        assert_eq!((&body["exec"]["kind"], &body["exec"]["image"]), (&"blackbox".into(), &"i:1".into()));
        assert_eq!(body["annotations"][0], serde_json::json!({ "key": "exec", "value": "blackbox" }));
        assert_eq!(body["annotations"][1]["key"], "placement");

        let plain = "/api/v1/namespaces/guest/actions/plain";
        let body = ask(model, Method::GET, plain, user, "").body.unwrap();
        assert_eq!((&body["exec"]["main"], body["exec"]["code"].is_string()), (&"start".into(), true));
        let body = ask(model, Method::GET, &format!("{plain}?code=false"), user, "").body.unwrap();
        assert!(body["exec"].get("code").is_none());
    }

    #[test]
    fn who_may_not_is_told_so() {
        let model = &mut model();
        let path = "/api/v1/namespaces/guest/actions/plain";
        for (credentials, status) in [(None, 401), (Some("user:wrong"), 401), (Some("someone:else"), 403)] {
            let answer = ask(model, Method::GET, path, credentials, "");
            assert_eq!(answer.status, status, "{credentials:?}");
            assert!(answer.body.unwrap()["error"].is_string());
        }
    }

    #[test]
    fn the_namespaces_of_the_credentials_are_listed() {
        let answer = ask(&mut model(), Method::GET, "/api/v1/namespaces", Some("someone:else"), "");
        assert_eq!((answer.status, answer.body), (200, Some(serde_json::json!(["other"]))));
    }

    #[test]
    fn activations_are_numbered_and_only_made_for_what_exists() {
        let model = &mut model();
        let user = Some("user:key");
        let base = "/api/v1/namespaces/guest";
        let first = ask(model, Method::POST, &format!("{base}/triggers/done"), user, "{}");
        let second = ask(model, Method::POST, &format!("{base}/actions/plain"), user, r#"{"a": 1}"#);
        assert_eq!((first.status, second.status), (202, 202));
        assert_ne!(first.body, second.body);
        let id = second.body.unwrap()["activationId"].as_str().unwrap().to_owned();
        assert_eq!((id.len(), second.headers[0].1.as_str()), (32, id.as_str()));
        for (path, body, status) in [
            ("triggers/lonely", "{}", 204),
            ("triggers/unknown", "{}", 404),
            ("actions/5g-media", "{}", 404),
            ("triggers/done", "[1]", 400),
            ("triggers/done", "{", 400),
        ] {
            assert_eq!(ask(model, Method::POST, &format!("{base}/{path}"), user, body).status, status, "{path} {body}");
        }
        let large = format!(r#"{{"a": "{}"}}"#, "x".repeat(MOST_BODY_BYTES));
        assert_eq!(ask(model, Method::POST, &format!("{base}/triggers/done"), user, &large).status, 413);
    }
}
