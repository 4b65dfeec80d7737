//! Objects without what differs between two runs of the same protocol.

use std::collections::BTreeMap;

use serde_json::Value;

/// Values that the API server chooses, wherever they are. Some kinds count a generation for every apply that changes
/// nothing, such as a NetworkPolicy with an empty list.
const DROPPED: [&str; 4] = ["creationTimestamp", "generation", "resourceVersion", "selfLink"];
/// Values that somebody allocates. That there is one is kept.
const ALLOCATED: [&str; 11] = [
    "addresses",
    "clusterIP",
    "clusterIPs",
    "containerID",
    "hostIP",
    "hostIPs",
    "ip",
    // The scheduler's choice.
    "nodeName",
    "nodePort",
    "podIP",
    "podIPs",
];
/// Volumes that admission adds to pods have this prefix, and a random end.
const TOKEN_VOLUME: &str = "kube-api-access-";
/// A UUID with its dashes.
const UUID_CHARACTERS: usize = 36;
/// Digits of a UUID, and of a SHA-256.
const RANDOM_DIGITS: [usize; 2] = [32, 64];
/// The random end of a name that the API server has generated.
const GENERATED_CHARACTERS: usize = 5;

/// The objects by kind and name: every uid is replaced by what it identifies, times by `<time>`, other random ids by
/// numbers in the order of their appearance, and generated names by their prefix and a number.
pub fn normalise(objects: Vec<Value>, namespace: &str) -> BTreeMap<String, Value> {
    let mut names: BTreeMap<String, String> = BTreeMap::new();
    let mut objects: Vec<(String, Value)> = objects.into_iter().map(|object| (title(&object), object)).collect();
    // By what does not differ between two runs.
    objects.sort_by_cached_key(|(_, object)| (kind(object), masked(&prefix_or_name(object)), content(object)));
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for (title, object) in &mut objects {
        if let Some(prefix) = generated_prefix(object) {
            let count = counts.entry(format!("{}/{prefix}", kind(object))).or_default();
            *count += 1;
            let chosen = format!("{prefix}<{count}>");
            *title = format!("{}/{chosen}", kind(object));
            names.insert(text(object, "/metadata/name"), chosen);
        }
        let uid = text(object, "/metadata/uid");
        if !uid.is_empty() {
            names.insert(uid, format!("<uid of {title}>"));
        }
    }
    names.insert(namespace.to_owned(), "<namespace>".to_owned());
    let mut ids = Ids { names, random: Some(BTreeMap::new()) };
    objects
        .into_iter()
        .map(|(title, mut object)| {
            visit(&mut object, &mut ids);
            (ids.replace(&title), object)
        })
        .collect()
}

fn text(object: &Value, pointer: &str) -> String {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn kind(object: &Value) -> String {
    text(object, "/kind")
}

fn title(object: &Value) -> String {
    format!("{}/{}", kind(object), text(object, "/metadata/name"))
}

fn generated_prefix(object: &Value) -> Option<String> {
    let prefix = text(object, "/metadata/generateName");
    let name = text(object, "/metadata/name");
    let random = name.strip_prefix(&prefix)?;
    (!prefix.is_empty() && random.len() == GENERATED_CHARACTERS).then_some(prefix)
}

fn prefix_or_name(object: &Value) -> String {
    generated_prefix(object).unwrap_or_else(|| text(object, "/metadata/name"))
}

/// What it is, without its identity.
fn content(object: &Value) -> String {
    let mut copy = object.clone();
    if let Some(metadata) = copy.pointer_mut("/metadata").and_then(Value::as_object_mut) {
        metadata.retain(|key, _| ["labels", "annotations"].contains(&key.as_str()));
    }
    visit(&mut copy, &mut Ids { names: BTreeMap::new(), random: None });
    copy.to_string()
}

struct Ids {
    /// Exact strings, and what they are called.
    names: BTreeMap<String, String>,
    /// Numbers of ids by the order of their appearance. None: they are not told apart.
    random: Option<BTreeMap<String, usize>>,
}

impl Ids {
    fn replace(&mut self, text: &str) -> String {
        if is_time(text) {
            return "<time>".to_owned();
        }
        if text.strip_prefix(TOKEN_VOLUME).is_some_and(|random| random.len() == GENERATED_CHARACTERS) {
            return format!("{TOKEN_VOLUME}<random>");
        }
        // Longest first: one name may be the beginning of another.
        let mut known: Vec<_> = self.names.iter().collect();
        known.sort_by_key(|(from, _)| std::cmp::Reverse(from.len()));
        let mut text = text.to_owned();
        for (from, to) in known {
            if text.contains(from.as_str()) {
                text = text.replace(from.as_str(), to);
            }
        }
        self.number_random(&text)
    }

    fn number_random(&mut self, text: &str) -> String {
        let Some(random) = &mut self.random else { return masked(text) };
        map_random(text, |run| {
            let next = random.len() + 1;
            format!("<id {}>", random.entry(run.to_owned()).or_insert(next))
        })
    }
}

fn masked(text: &str) -> String {
    map_random(text, |_| "<id>".to_owned())
}

/// Replaces UUIDs, and as many hexadecimal digits as UUIDs and hashes have, where they are words of their own.
fn map_random(text: &str, mut to: impl FnMut(&str) -> String) -> String {
    let mut result = String::new();
    let mut rest = text;
    let mut in_word = false;
    while let Some(character) = rest.chars().next() {
        let length = if in_word { None } else { random_length(rest) };
        let (id, after) = rest.split_at(length.unwrap_or(character.len_utf8()));
        match length {
            Some(_) => result.push_str(&to(id)),
            None => result.push_str(id),
        }
        in_word = length.is_some() || character.is_ascii_alphanumeric();
        rest = after;
    }
    result
}

/// The length of the random id with which the text begins.
fn random_length(text: &str) -> Option<usize> {
    let ends = |length: usize| !text.as_bytes().get(length).is_some_and(u8::is_ascii_alphanumeric);
    let is_uuid = |id: &[u8]| {
        id.iter().enumerate().all(|(index, byte)| match index {
            8 | 13 | 18 | 23 => *byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
    };
    let begins =
        |length: usize, is_id: &dyn Fn(&[u8]) -> bool| text.as_bytes().get(..length).is_some_and(is_id) && ends(length);
    let digits = |id: &[u8]| id.iter().all(u8::is_ascii_hexdigit);
    if begins(UUID_CHARACTERS, &is_uuid) {
        return Some(UUID_CHARACTERS);
    }
    RANDOM_DIGITS.into_iter().find(|length| begins(*length, &digits))
}

/// `2026-01-02T03:04:05Z`, with or without a fraction or an offset.
fn is_time(text: &str) -> bool {
    text.len() >= "2026-01-02T03:04:05Z".len() && text.parse::<jiff::Timestamp>().is_ok()
}

fn visit(value: &mut Value, ids: &mut Ids) {
    match value {
        Value::String(text) => {
            *text = match serde_json::from_str::<Value>(text) {
                // A document in a string, such as the arguments of a container.
                Ok(mut inner) if inner.is_object() => {
                    visit(&mut inner, ids);
                    inner.to_string()
                }
                _ => ids.replace(text),
            }
        }
        Value::Array(items) => {
            items.iter_mut().for_each(|item| visit(item, ids));
            if items.iter().all(|item| item.get("manager").is_some()) {
                // In the order of their times, which differ.
                items.sort_by_key(ToString::to_string);
            }
        }
        Value::Object(fields) => {
            let old = std::mem::take(fields);
            for (key, mut value) in old {
                if DROPPED.contains(&key.as_str()) && !value.is_object() {
                    continue;
                }
                if ALLOCATED.contains(&key.as_str()) && !value.is_object() && value != "None" {
                    value = "<allocated>".into();
                } else {
                    visit(&mut value, ids);
                }
                fields.insert(visited_key(&key, ids), value);
            }
        }
        _ => {}
    }
}

/// Keys of `managedFields` may hold objects: `k:{"ip":"10.0.0.7"}`.
fn visited_key(key: &str, ids: &mut Ids) -> String {
    match key.strip_prefix("k:").and_then(|inner| serde_json::from_str::<Value>(inner).ok()) {
        Some(mut inner) => {
            visit(&mut inner, ids);
            format!("k:{inner}")
        }
        None => ids.replace(key),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(name: &str, uid: &str, owner: &str, phase: &str) -> Value {
        json!({
            "kind": "Pod",
            "metadata": {
                "name": name, "generateName": "job-", "namespace": "a-1", "uid": uid, "resourceVersion": "7",
                "creationTimestamp": "2026-01-02T03:04:05Z",
                "ownerReferences": [{ "name": "job", "uid": owner }],
                "managedFields": [{ "manager": "m", "time": "2026-01-02T03:04:05Z", "fieldsV1": { format!("k:{{\"uid\":\"{owner}\"}}"): {} } }],
            },
            "spec": { "nodeName": "node-0", "volumes": [{ "name": "kube-api-access-x7k2p" }] },
            "status": { "phase": phase, "podIP": "10.0.0.7", "startTime": "2026-01-02T03:04:05.678Z" },
        })
    }

    fn job(uid: &str) -> Value {
        json!({ "kind": "Job", "metadata": { "name": "job", "uid": uid, "labels": { "flow": "0123456789abcdef0123456789abcdef" } } })
    }

    #[test]
    fn two_runs_that_differ_in_what_is_chosen_at_random_are_equal() {
        let (one, two) = ("8ee5d5b2-0a2c-4b5e-8a5c-d0a1f6a3b0a1", "1f3870be-274f-4c79-b3e3-1a0672451b4f");
        let first = vec![
            pod("job-zzzzz", "11111111-2222-4333-8444-555555555555", one, "Failed"),
            pod("job-aaaaa", "21111111-2222-4333-8444-555555555555", one, "Running"),
            job(one),
        ];
        let mut second = vec![
            job(two),
            pod("job-bbbbb", "31111111-2222-4333-8444-555555555555", two, "Failed"),
            pod("job-ccccc", "41111111-2222-4333-8444-555555555555", two, "Running"),
        ];
        second[0]["metadata"]["labels"]["flow"] = "fedcba9876543210fedcba9876543210".into();
        second[1]["spec"] = json!({ "nodeName": "node-1", "volumes": [{ "name": "kube-api-access-abcde" }] });
        second[1]["status"]["podIP"] = "10.0.0.8".into();
        assert_eq!(normalise(first, "a-1"), normalise(second, "a-1"));
    }

    #[test]
    fn what_is_chosen_by_the_guest_stays_different() {
        let one = normalise(vec![job("8ee5d5b2-0a2c-4b5e-8a5c-d0a1f6a3b0a1")], "x");
        let mut changed = job("8ee5d5b2-0a2c-4b5e-8a5c-d0a1f6a3b0a1");
        changed["spec"] = json!({ "parallelism": 2 });
        assert_ne!(one, normalise(vec![changed], "x"));
    }

    #[test]
    fn one_id_in_two_places_stays_one_and_two_ids_stay_two() {
        let id = |first: &str, second: &str| json!({ "kind": "ConfigMap", "metadata": { "name": "c" }, "data": { "a": first, "b": second } });
        let (x, y) = ("0123456789abcdef0123456789abcdef", "1123456789abcdef0123456789abcdef");
        let same = normalise(vec![id(x, x)], "n");
        assert_eq!(same, normalise(vec![id(y, y)], "n"));
        assert_ne!(same, normalise(vec![id(x, y)], "n"));
    }

    #[test]
    fn ids_are_found_as_words_in_names_and_nowhere_else() {
        let id = "0123456789abcdef0123456789abcdef";
        assert_eq!(masked(&format!("offload-invoker-{id}-conf")), "offload-invoker-<id>-conf");
        assert_eq!(masked("x/8ee5d5b2-0a2c-4b5e-8a5c-d0a1f6a3b0a1."), "x/<id>.");
        for other in [format!("x{id}"), format!("{id}0"), "deadbeef".to_owned(), "é-1".to_owned()] {
            assert_eq!(masked(&other), other);
        }
    }

    #[test]
    fn addresses_in_managed_fields_are_no_difference() {
        let fields = |ip: &str| json!({ "kind": "Pod", "metadata": { "name": "p" }, "f": { format!("k:{{\"ip\":\"{ip}\"}}"): {} } });
        assert_eq!(normalise(vec![fields("10.0.0.7")], "n"), normalise(vec![fields("10.0.0.8")], "n"));
    }

    #[test]
    fn an_owner_that_is_another_object_is_a_difference() {
        let (one, two) = ("8ee5d5b2-0a2c-4b5e-8a5c-d0a1f6a3b0a1", "1f3870be-274f-4c79-b3e3-1a0672451b4f");
        let owned = |owner: &str| json!({ "kind": "ConfigMap", "metadata": { "name": "c", "ownerReferences": [{ "controllerUid": owner }] } });
        let known = normalise(vec![job(one), owned(one)], "n");
        assert_ne!(known, normalise(vec![job(one), owned(two)], "n"), "the owner is gone");
    }
}
