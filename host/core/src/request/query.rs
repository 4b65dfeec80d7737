//! Query parameters: known keys only, each once, decoded once.

use super::path::{percent_decode, percent_encode};
use super::{Refusal, Verb};

/// The options of a request. What is not set is not sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query {
    /// `watch`, as the server reads it: every value but `0` and `false` is true.
    pub watch: bool,
    /// `labelSelector`
    pub label_selector: Option<String>,
    /// `fieldSelector`
    pub field_selector: Option<String>,
    /// `limit`
    pub limit: Option<u64>,
    /// `continue`
    pub continue_token: Option<String>,
    /// `resourceVersion`
    pub resource_version: Option<String>,
    /// `resourceVersionMatch`
    pub resource_version_match: Option<String>,
    /// `timeoutSeconds`
    pub timeout_seconds: Option<u64>,
    /// `allowWatchBookmarks`
    pub allow_watch_bookmarks: Option<bool>,
    /// `sendInitialEvents`
    pub send_initial_events: Option<bool>,
    /// `dryRun=All`
    pub dry_run: bool,
    /// `fieldManager`
    pub field_manager: Option<String>,
    /// `fieldValidation`
    pub field_validation: Option<String>,
    /// `force`, of a server-side apply.
    pub force: Option<bool>,
    /// `gracePeriodSeconds`
    pub grace_period_seconds: Option<u64>,
    /// `orphanDependents`
    pub orphan_dependents: Option<bool>,
    /// `propagationPolicy`
    pub propagation_policy: Option<String>,
    /// The options of `pods/log`, in this order when they are set.
    pub log: Vec<(LogOption, String)>,
}

/// Options of `pods/log`. The one that skips the verification of the kubelet's certificate is not among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogOption {
    /// `container`
    Container,
    /// `follow`
    Follow,
    /// `limitBytes`
    LimitBytes,
    /// `previous`
    Previous,
    /// `sinceSeconds`
    SinceSeconds,
    /// `sinceTime`
    SinceTime,
    /// `stream`
    Stream,
    /// `tailLines`
    TailLines,
    /// `timestamps`
    Timestamps,
}

impl LogOption {
    const ALL: [(Self, &'static str); 9] = [
        (Self::Container, "container"),
        (Self::Follow, "follow"),
        (Self::LimitBytes, "limitBytes"),
        (Self::Previous, "previous"),
        (Self::SinceSeconds, "sinceSeconds"),
        (Self::SinceTime, "sinceTime"),
        (Self::Stream, "stream"),
        (Self::TailLines, "tailLines"),
        (Self::Timestamps, "timestamps"),
    ];

    fn parse(key: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, name)| *name == key).map(|(option, _)| *option)
    }

    fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(option, _)| *option == self).map_or("", |(_, name)| name)
    }
}

const LIST: u8 = 1;
const WRITE: u8 = 2;
const PATCH: u8 = 4;
const DELETE: u8 = 8;
const GET: u8 = 16;
const LOG: u8 = 32;

/// Which keys a verb takes. Others are refused rather than dropped: a parameter without effect is a mistake.
fn keys_of(verb: Verb, log: bool) -> u8 {
    match verb {
        Verb::Get if log => LOG,
        Verb::Get => GET,
        Verb::List | Verb::Watch => LIST,
        Verb::Create | Verb::Update => WRITE,
        Verb::Patch => WRITE | PATCH,
        Verb::Delete => DELETE,
        Verb::DeleteCollection => DELETE | LIST,
    }
}

impl Query {
    pub(super) fn parse(text: &str, verb: Verb, log: bool) -> Result<Self, Refusal> {
        let keys = keys_of(verb, log);
        let takes = |set: u8| keys & set != 0;
        let mut query = Self::default();
        for (key, value) in pairs(text)? {
            match key.as_str() {
                "watch" if takes(LIST) => query.watch = boolean(&value),
                "labelSelector" if takes(LIST) => query.label_selector = Some(value),
                "fieldSelector" if takes(LIST) => query.field_selector = Some(value),
                "limit" if takes(LIST) => query.limit = Some(number(&key, &value)?),
                "continue" if takes(LIST) => query.continue_token = Some(value),
                "resourceVersion" if takes(LIST | GET) => query.resource_version = Some(word(&key, value)?),
                "resourceVersionMatch" if takes(LIST) => query.resource_version_match = Some(word(&key, value)?),
                "timeoutSeconds" if takes(LIST) => query.timeout_seconds = Some(number(&key, &value)?),
                "allowWatchBookmarks" if takes(LIST) => query.allow_watch_bookmarks = Some(boolean(&value)),
                "sendInitialEvents" if takes(LIST) => query.send_initial_events = Some(boolean(&value)),
                "dryRun" if takes(WRITE | DELETE) => {
                    if value != "All" {
                        return Err(Refusal::bad_request("`dryRun` takes the value `All` only"));
                    }
                    query.dry_run = true;
                }
                "fieldManager" if takes(WRITE) => query.field_manager = Some(value),
                "fieldValidation" if takes(WRITE) => query.field_validation = Some(word(&key, value)?),
                "force" if takes(PATCH) => query.force = Some(boolean(&value)),
                "gracePeriodSeconds" if takes(DELETE) => query.grace_period_seconds = Some(number(&key, &value)?),
                "orphanDependents" if takes(DELETE) => query.orphan_dependents = Some(boolean(&value)),
                "propagationPolicy" if takes(DELETE) => query.propagation_policy = Some(word(&key, value)?),
                // Only changes the white space of the answer.
                "pretty" => {}
                _ => match LogOption::parse(&key) {
                    Some(option) if takes(LOG) => query.log.push((option, value)),
                    _ => return Err(unknown(&key, verb)),
                },
            }
        }
        query.log.sort_by_key(|(option, _)| option.as_str());
        if query.watch && verb == Verb::DeleteCollection {
            return Err(unknown("watch", verb));
        }
        Ok(query)
    }

    /// Discovery takes no options; client-go's `timeout` is accepted and dropped, the host has its own.
    pub(super) fn parse_discovery(text: &str) -> Result<(), Refusal> {
        for (key, _) in pairs(text)? {
            if key != "timeout" && key != "pretty" {
                return Err(unknown(&key, Verb::Get));
            }
        }
        Ok(())
    }

    /// Is any option set that the server would take from a DELETE's body instead?
    pub fn has_delete_options(&self) -> bool {
        self.dry_run
            || self.grace_period_seconds.is_some()
            || self.orphan_dependents.is_some()
            || self.propagation_policy.is_some()
    }

    /// The name in `fieldSelector=metadata.name=X`, for which the server authorises list and watch.
    pub fn selected_name(&self) -> Option<&str> {
        let selector = self.field_selector.as_deref()?;
        // Names need no escapes. With one, the terms below would be cut differently than the server cuts them.
        if selector.contains('\\') {
            return None;
        }
        selector.split(',').find_map(|term| {
            let value = term.strip_prefix("metadata.name=")?;
            let value = value.strip_prefix('=').unwrap_or(value);
            super::path::is_path_name(value).then_some(value)
        })
    }

    pub(super) fn append_to(&self, out: &mut String) {
        let mut separator = '?';
        let mut pair = |key: &str, value: &str| {
            out.push(separator);
            separator = '&';
            out.push_str(key);
            out.push('=');
            percent_encode(value, out);
        };
        let mut text = |key: &str, value: &Option<String>| {
            if let Some(value) = value {
                pair(key, value);
            }
        };
        text("labelSelector", &self.label_selector);
        text("fieldSelector", &self.field_selector);
        text("continue", &self.continue_token);
        text("resourceVersion", &self.resource_version);
        text("resourceVersionMatch", &self.resource_version_match);
        text("fieldManager", &self.field_manager);
        text("fieldValidation", &self.field_validation);
        text("propagationPolicy", &self.propagation_policy);
        let mut number = |key: &str, value: Option<u64>| {
            if let Some(value) = value {
                pair(key, &value.to_string());
            }
        };
        number("limit", self.limit);
        number("timeoutSeconds", self.timeout_seconds);
        number("gracePeriodSeconds", self.grace_period_seconds);
        let mut boolean = |key: &str, value: Option<bool>| {
            if let Some(value) = value {
                pair(key, if value { "true" } else { "false" });
            }
        };
        boolean("watch", self.watch.then_some(true));
        boolean("allowWatchBookmarks", self.allow_watch_bookmarks);
        boolean("sendInitialEvents", self.send_initial_events);
        boolean("force", self.force);
        boolean("orphanDependents", self.orphan_dependents);
        if self.dry_run {
            pair("dryRun", "All");
        }
        for (option, value) in &self.log {
            pair(option.as_str(), value);
        }
    }
}

fn unknown(key: &str, verb: Verb) -> Refusal {
    // The key is the guest's own text and may be long or unprintable.
    let shown: String = key.chars().filter(|c| !c.is_control()).take(64).collect();
    Refusal::bad_request(format!("the query parameter `{shown}` is not known for the verb `{verb}`"))
}

/// Decoded pairs; empty pairs are dropped, as kube-rs sends `x?` and `x?&labelSelector=...`.
fn pairs(text: &str) -> Result<Vec<(String, String)>, Refusal> {
    // The server drops a pair with `;` or a bad escape silently, so the guest would not get what it asked for.
    if text.contains(';') {
        return Err(Refusal::bad_request("the query holds `;`; escape it as `%3B` in a value"));
    }
    let mut pairs: Vec<(String, String)> = Vec::new();
    for pair in text.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let decode = |part: &str| {
            percent_decode(part.as_bytes(), true)
                .filter(|text| !text.chars().any(char::is_control))
                .ok_or_else(|| Refusal::bad_request("the query has a broken percent escape or a control character"))
        };
        let (key, value) = (decode(key)?, decode(value)?);
        if pairs.iter().any(|(known, _)| *known == key) {
            return Err(Refusal::bad_request("a query parameter is given twice"));
        }
        pairs.push((key, value));
    }
    Ok(pairs)
}

fn boolean(value: &str) -> bool {
    !(value == "0" || value.eq_ignore_ascii_case("false"))
}

fn number(key: &str, value: &str) -> Result<u64, Refusal> {
    let digits = !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit());
    // The server's numbers are signed.
    match value.parse::<u64>() {
        Ok(number) if digits && i64::try_from(number).is_ok() => Ok(number),
        _ => Err(Refusal::bad_request(format!("the query parameter `{key}` is not a number"))),
    }
}

fn word(key: &str, value: String) -> Result<String, Refusal> {
    if value.len() <= 64 && value.bytes().all(|b| b.is_ascii_alphanumeric()) {
        Ok(value)
    } else {
        Err(Refusal::bad_request(format!("the query parameter `{key}` is not a word of letters and digits")))
    }
}
