use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::request::ApiRequest;

/// A cache that holds what the test puts in.
#[derive(Default)]
struct Cache {
    position: Option<ResourceVersion>,
    objects: BTreeMap<ObjectRef, Held>,
    namespace: Option<&'static str>,
    label: Option<(&'static str, &'static str)>,
    /// Only the server knows which objects it selects.
    field: bool,
}

impl View for Cache {
    fn position(&self) -> Option<ResourceVersion> {
        self.position.clone()
    }
    fn held(&self, object: &ObjectRef) -> Option<Held> {
        self.objects.get(object).cloned()
    }
    fn covers(&self, target: &Target) -> bool {
        self.namespace.is_none_or(|namespace| target.object.namespace.as_deref() == Some(namespace))
            && self.label.is_none_or(|(key, value)| {
                target.labels.as_ref().is_none_or(|labels| labels.get(key).is_some_and(|found| **found == *value))
            })
    }
    fn selects(&self, target: &Target) -> bool {
        self.covers(target) && !self.field && (self.label.is_none() || target.labels.is_some())
    }
}

impl Cache {
    fn at(position: &str) -> Self {
        Self { position: Some(v(position)), ..Self::default() }
    }
    fn with(mut self, name: &str, uid: &str, version: &str) -> Self {
        self.objects.insert(object(name), Held { uid: uid.into(), version: v(version), terminating: false });
        self
    }
}

fn v(version: &str) -> ResourceVersion {
    ResourceVersion::new(version)
}

fn object(name: &str) -> ObjectRef {
    ObjectRef { namespace: Some("a".into()), name: name.into() }
}

fn maps() -> ResourceKey {
    ResourceKey { group: "".into(), plural: "configmaps".into() }
}

const NOW: Time = Time::from_micros(1_000_000);
const ALL: Scope<'static> = Scope::ALL;

fn effect(method: &str, path: &str, code: u16, body: &str) -> Effect {
    let ApiRequest::Resource(request) = ApiRequest::parse(method, path).unwrap() else { panic!("{path}") };
    Effect::of(&request, request.query.dry_run, code, body.as_bytes())
}

const ONE: &str = "/api/v1/namespaces/a/configmaps/x";

fn body(uid: &str, version: &str, more: &str) -> String {
    format!(
        r#"{{"kind":"ConfigMap","metadata":{{"name":"x","namespace":"a","uid":"{uid}","resourceVersion":"{version}"{more}}}}}"#
    )
}

fn after(effect: Effect) -> Gate {
    let mut gate = Gate::new();
    gate.record(&maps(), effect, NOW);
    gate
}

fn decide(gate: &Gate, cache: &Cache) -> Decision {
    gate.decide(&maps(), ALL, cache, NOW)
}

fn settle(gate: &mut Gate, views: &[&dyn View], now: Time) {
    let mut unseen = Unseen::default();
    for view in views {
        gate.look(&maps(), *view, &mut unseen);
    }
    gate.settle(&maps(), &unseen, now);
}

fn served() -> Decision {
    Decision::Serve(HashSet::new())
}

fn wait() -> Decision {
    Decision::Wait(NOW + MAX_WAIT)
}

// Rule 25
#[test]
fn a_read_waits_until_the_written_version_or_the_position_is_seen() {
    let gate = after(effect("PUT", ONE, 200, &body("u", "50", "")));
    assert_eq!(decide(&gate, &Cache::at("49").with("x", "u", "40")), wait());
    assert_eq!(decide(&gate, &Cache::at("49")), wait());
    assert_eq!(decide(&gate, &Cache::default()), wait());
    assert_eq!(decide(&gate, &Cache::at("50").with("x", "u", "50")), served());
    assert_eq!(decide(&gate, &Cache::at("49").with("x", "u", "51")), served());
    assert_eq!(decide(&gate, &Cache::at("60")), served());
    // Another object of that name says nothing of the written one.
    assert_eq!(decide(&gate, &Cache::at("49").with("x", "other", "99")), wait());
}

#[test]
fn a_write_without_change_is_true_already() {
    let gate = after(effect("PATCH", ONE, 200, &body("u", "40", "")));
    assert_eq!(decide(&gate, &Cache::at("49").with("x", "u", "40")), served());
}

#[test]
fn status_and_scale_count_as_writes_of_the_parent() {
    let status = effect("PATCH", "/apis/apps/v1/namespaces/a/deployments/x/status", 200, &body("u", "50", ""));
    let scale = effect("PATCH", "/apis/apps/v1/namespaces/a/deployments/x/scale", 200, &body("u", "50", ""));
    for effect in [status, scale] {
        let Effect::Changed(target) = effect else { panic!("{effect:?}") };
        assert_eq!((&*target.uid, target.version.as_str()), ("u", "50"));
    }
}

#[test]
fn reads_of_other_resources_and_objects_do_not_wait() {
    let gate = after(effect("PUT", ONE, 200, &body("u", "50", "")));
    let cache = Cache::at("49");
    let secrets = ResourceKey { group: "".into(), plural: "secrets".into() };
    assert_eq!(gate.decide(&secrets, ALL, &cache, NOW), served());
    let scope = |namespace, name| gate.decide(&maps(), Scope { namespace: Some(namespace), name }, &cache, NOW);
    assert_eq!(scope("b", None), served());
    assert_eq!(scope("a", Some("y")), served());
    assert_eq!(scope("a", Some("x")), wait());
    assert_eq!(scope("a", None), wait());
}

// Rule 26
#[test]
fn a_delete_that_answers_a_status_hides_the_uid() {
    let gate =
        after(effect("DELETE", ONE, 200, r#"{"kind":"Status","status":"Success","details":{"name":"x","uid":"u"}}"#));
    let hidden = Decision::Serve(HashSet::from(["u".into()]));
    assert_eq!(decide(&gate, &Cache::at("49").with("x", "u", "40")), hidden);
    // A successor of the same name has another uid and is not hidden.
    assert_eq!(decide(&gate, &Cache::at("60").with("x", "v", "60")), hidden);
    assert_eq!(gate.decide(&maps(), Scope { namespace: Some("b"), name: None }, &Cache::at("49"), NOW), served());
}

#[test]
fn a_hidden_uid_is_forgotten_when_its_deletion_was_seen() {
    let mut gate = after(Effect::Deleted { object: object("x"), uid: "u".into() });
    settle(&mut gate, &[&Cache::at("49").with("x", "u", "40")], NOW);
    assert_eq!(gate.resources().count(), 1);
    settle(&mut gate, &[&Cache::at("60")], NOW);
    assert_eq!(gate.resources().count(), 0);
}

#[test]
fn a_uid_that_the_cache_has_not_seen_yet_stays_hidden() {
    let mut gate = after(Effect::Deleted { object: object("x"), uid: "u".into() });
    settle(&mut gate, &[&Cache::at("30")], NOW);
    assert_eq!(decide(&gate, &Cache::at("40").with("x", "u", "40")), Decision::Serve(HashSet::from(["u".into()])));
    settle(&mut gate, &[&Cache::at("30")], NOW + HIDDEN_FOR);
    assert_eq!(gate.resources().count(), 0);
}

// Rule 27
#[test]
fn the_write_that_removes_the_last_finalizer_waits_for_the_deletion() {
    let gone = r#","deletionTimestamp":"2026-01-01T00:00:00Z","deletionGracePeriodSeconds":0"#;
    let gate = after(effect("PATCH", ONE, 200, &body("u", "50", gone)));
    assert_eq!(decide(&gate, &Cache::at("50").with("x", "u", "50")), wait());
    assert_eq!(decide(&gate, &Cache::at("49")), wait());
    assert_eq!(decide(&gate, &Cache::at("51")), served());
    assert_eq!(decide(&gate, &Cache::at("52").with("x", "v", "52")), served());
}

#[test]
fn an_object_that_terminates_slowly_is_not_waited_for() {
    for more in [
        r#","deletionTimestamp":"t","deletionGracePeriodSeconds":30"#,
        r#","deletionTimestamp":"t","finalizers":["f"],"deletionGracePeriodSeconds":0"#,
    ] {
        assert!(matches!(effect("PATCH", ONE, 200, &body("u", "50", more)), Effect::Changed(_)), "{more}");
    }
    let namespace = |spec: &str| {
        let body = format!(
            r#"{{"kind":"Namespace","metadata":{{"name":"x","uid":"u","resourceVersion":"5","deletionTimestamp":"t"}}{spec}}}"#
        );
        effect("PATCH", "/api/v1/namespaces/x", 200, &body)
    };
    assert!(matches!(namespace(r#","spec":{"finalizers":["kubernetes"]}"#), Effect::Changed(_)));
    assert!(matches!(namespace(""), Effect::Changed(_)));
    assert!(matches!(namespace(r#","spec":{}"#), Effect::Removed(_)));
    assert!(matches!(namespace(r#","spec":{"finalizers":[]}"#), Effect::Removed(_)));
}

// Rule 28
#[test]
fn after_a_deletecollection_each_object_must_be_gone_or_terminating() {
    let list = r#"{"kind":"ConfigMapList","metadata":{"resourceVersion":"60"},"items":[
        {"metadata":{"name":"x","namespace":"a","uid":"u","resourceVersion":"40"}},
        {"metadata":{"name":"y","namespace":"a","uid":"v","resourceVersion":"41"}}]}"#;
    let gate = after(effect("DELETE", "/api/v1/namespaces/a/configmaps", 200, list));
    let mut cache = Cache::at("59").with("x", "u", "40").with("y", "v", "41");
    assert_eq!(decide(&gate, &cache), wait());
    cache.objects.remove(&object("x"));
    assert_eq!(decide(&gate, &cache), wait());
    cache.objects.get_mut(&object("y")).unwrap().terminating = true;
    assert_eq!(decide(&gate, &cache), served());
    // Absent because the cache is behind their creation.
    assert_eq!(decide(&gate, &Cache::at("39")), wait());
}

// Rule 29
#[test]
fn nothing_is_waited_for_after_what_changes_nothing() {
    let changed = body("u", "50", "");
    for (method, path, code, answer) in [
        ("PUT", "/api/v1/namespaces/a/configmaps/x?dryRun=All", 200, changed.as_str()),
        ("POST", "/api/v1/namespaces/a/pods/x/eviction", 201, r#"{"kind":"Status","status":"Success"}"#),
        ("POST", "/api/v1/namespaces/a/pods/x/eviction", 500, ""),
        ("POST", "/api/v1/namespaces/a/pods/x/binding", 201, changed.as_str()),
        ("POST", "/api/v1/namespaces/a/serviceaccounts/x/token", 201, changed.as_str()),
        (
            "POST",
            "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
            201,
            r#"{"kind":"X","metadata":{},"status":{}}"#,
        ),
        ("PUT", ONE, 409, ""),
        ("PUT", ONE, 429, "slow down"),
        ("DELETE", ONE, 404, "{}"),
        ("DELETE", "/api/v1/namespaces/a/configmaps", 200, r#"{"kind":"Status","status":"Success"}"#),
        ("GET", ONE, 200, changed.as_str()),
        ("GET", ONE, 500, ""),
    ] {
        assert_eq!(effect(method, path, code, answer), Effect::Nothing, "{method} {path} {code}");
    }
}

#[test]
fn objects_outside_the_view_are_not_waited_for() {
    let gate = after(effect("PUT", ONE, 200, &body("u", "50", r#","labels":{"app":"y"}"#)));
    let narrow = |cache: Cache| Cache { label: Some(("app", "x")), ..cache };
    assert_eq!(decide(&gate, &Cache { namespace: Some("b"), ..Cache::at("49") }), served());
    assert_eq!(decide(&gate, &narrow(Cache::at("49"))), served());
    // It was in the view and leaves it: the event is still to come.
    assert_eq!(decide(&gate, &narrow(Cache::at("49").with("x", "u", "40"))), wait());
}

// Rule 30
#[test]
fn after_an_unknown_outcome_reads_go_upstream_until_a_fresh_list_is_passed() {
    for (code, answer) in [(500, "{}"), (503, ""), (504, ""), (200, "{\"metadata\":{"), (301, "")] {
        assert_eq!(effect("PUT", ONE, code, answer), Effect::Unknown, "{code}");
    }
    let mut gate = after(Effect::Unknown);
    assert_eq!(decide(&gate, &Cache::at("1000")), Decision::Forward);
    let first = gate.needs_list(&maps()).unwrap();
    gate.record(&maps(), Effect::Unknown, NOW);
    gate.listed(&maps(), first, v("60"));
    assert_eq!(
        decide(&gate, &Cache::at("1000")),
        Decision::Forward,
        "a list made before the second write says nothing of it"
    );
    gate.listed(&maps(), first + 1, v("70"));
    assert_eq!(gate.needs_list(&maps()), None);
    assert_eq!(decide(&gate, &Cache::at("69")), Decision::Forward);
    assert_eq!(decide(&gate, &Cache::at("70")), served());
    assert_eq!(decide(&gate, &Cache::default()), Decision::Forward);
}

// Rule 13
#[test]
fn after_five_seconds_the_read_goes_to_the_server() {
    let gate = after(effect("PUT", ONE, 200, &body("u", "50", "")));
    let cache = Cache::at("49");
    let late = NOW + MAX_WAIT;
    assert_eq!(gate.decide(&maps(), ALL, &cache, late), Decision::Forward);
    assert_eq!(gate.decide(&maps(), ALL, &Cache::at("50"), late), served());
}

#[test]
fn versions_of_unknown_order_open_the_gate_only_when_they_are_equal() {
    let gate = after(effect("PUT", ONE, 200, &body("u", "abc", "")));
    assert_eq!(decide(&gate, &Cache::at("9999").with("x", "u", "9999")), wait());
    assert_eq!(decide(&gate, &Cache::at("9999").with("x", "u", "abc")), served());
}

#[test]
fn answers_that_cross_keep_the_newer_version() {
    let mut gate = after(effect("PUT", ONE, 200, &body("u", "50", "")));
    gate.record(&maps(), effect("PUT", ONE, 200, &body("u", "45", "")), NOW);
    assert_eq!(decide(&gate, &Cache::at("46").with("x", "u", "46")), wait());
}

#[test]
fn an_echo_is_pending_until_it_is_seen_or_given_up() {
    let gate = after(effect("PUT", ONE, 200, &body("u", "50", "")));
    let pending = |cache: &Cache, now| gate.is_echo_pending(&maps(), ALL, cache, now);
    assert_eq!(pending(&Cache::at("49").with("x", "u", "40"), NOW), Some(NOW + MAX_WAIT));
    assert_eq!(pending(&Cache::at("50"), NOW), None);
    assert_eq!(pending(&Cache { namespace: Some("b"), ..Cache::at("49") }, NOW), None);
    assert_eq!(pending(&Cache::at("49"), NOW + MAX_WAIT), None);
    let of = |name| gate.is_echo_pending(&maps(), Scope::of(&object(name)), &Cache::at("49"), NOW).is_some();
    assert_eq!((of("x"), of("y")), (true, false), "another object does not wait");
    let deleted = after(Effect::Deleted { object: object("x"), uid: "u".into() });
    assert!(deleted.is_echo_pending(&maps(), ALL, &Cache::at("49").with("x", "u", "40"), NOW).is_some());
    assert!(deleted.is_echo_pending(&maps(), ALL, &Cache::at("60"), NOW).is_none());
}

#[test]
fn no_echo_is_expected_of_a_view_that_has_not_listed() {
    let mut gate = after(effect("PUT", ONE, 200, &body("u", "50", "")));
    let unlisted = Cache::default();
    assert_eq!(gate.is_echo_pending(&maps(), ALL, &unlisted, NOW), None);
    assert_eq!(decide(&gate, &unlisted), wait(), "a read waits for it nevertheless");
    settle(&mut gate, &[&unlisted], NOW);
    assert_eq!(decide(&gate, &Cache::at("49").with("x", "u", "40")), wait(), "its list may be of before the write");
}

#[test]
fn a_view_that_may_not_select_the_object_echoes_it_only_if_it_holds_it() {
    let labelled = r#","labels":{"app":"web"}"#;
    let many = format!(r#","labels":{{"app":"{}"}}"#, "x".repeat(2_000));
    for (labels, view, expected) in [
        ("", Cache { field: true, ..Cache::at("49") }, false),
        (labelled, Cache { label: Some(("app", "web")), ..Cache::at("49") }, true),
        (many.as_str(), Cache { label: Some(("app", "web")), ..Cache::at("49") }, false),
    ] {
        let mut gate = after(effect("PUT", ONE, 200, &body("u", "50", labels)));
        let pending = |gate: &Gate, view: &Cache| gate.is_echo_pending(&maps(), ALL, view, NOW).is_some();
        assert_eq!(pending(&gate, &view), expected, "{labels}");
        assert_eq!(decide(&gate, &view), wait(), "a read waits: it may be selected");
        settle(&mut gate, &[&view], NOW);
        let view = view.with("x", "u", "40");
        assert!(pending(&gate, &view), "{labels}");
        assert_eq!(decide(&gate, &view), wait());
        assert!(!pending(&gate, &view.with("x", "u", "50")));
    }
}

#[test]
fn what_one_view_has_seen_is_kept_for_another_that_is_behind() {
    let mut gate = after(effect("PUT", ONE, 200, &body("u", "50", "")));
    let (ahead, behind) = (Cache::at("60"), Cache::at("40").with("x", "u", "40"));
    settle(&mut gate, &[&ahead, &behind], NOW);
    assert_eq!(decide(&gate, &behind), wait());
    settle(&mut gate, &[&ahead, &Cache::default()], NOW);
    assert_eq!(gate.resources().count(), 1, "a view that has not listed may list an old state");
    settle(&mut gate, &[&ahead], NOW);
    assert_eq!(gate.resources().count(), 0);
}

#[test]
fn a_new_history_clears_the_gate() {
    let mut gate = after(effect("PUT", ONE, 200, &body("u", "50", "")));
    gate.clear(&maps());
    assert_eq!(decide(&gate, &Cache::at("3")), served());
}

#[test]
fn what_is_remembered_is_bounded_and_stays_safe() {
    let mut gate = Gate::new();
    for n in 0..10_u32.pow(4) {
        let target = Target {
            object: object(&format!("x{n}")),
            uid: format!("u{n}").into(),
            version: v(&(n + 1).to_string()),
            labels: None,
        };
        gate.record(&maps(), Effect::Changed(target), NOW + Duration::from_micros(n.into()));
        gate.record(&maps(), Effect::Deleted { object: object("d"), uid: format!("d{n}").into() }, NOW);
    }
    let pending = gate.resources.get(&maps()).unwrap();
    assert!(pending.writes.len() <= MAX_WRITES && pending.hidden.len() <= MAX_HIDDEN);
    assert_eq!(decide(&gate, &Cache::at("1")), Decision::Forward);
    for n in 0..1_000 {
        let resource = ResourceKey { group: "g".into(), plural: format!("r{n}").into() };
        gate.record(&resource, Effect::Unknown, NOW);
    }
    assert!(gate.resources.len() <= MAX_RESOURCES);
    let unseen = ResourceKey { group: "g".into(), plural: "r999".into() };
    assert_eq!(gate.decide(&unseen, ALL, &Cache::at("1"), NOW), Decision::Forward);
}

/// The server of the model: the state after each version, and what each write answered.
#[derive(Debug, Clone, Copy)]
enum Step {
    Create(u8),
    Update(u8),
    NoOp(u8),
    Delete(u8),
    DeleteWithFinalizer(u8),
    RemoveFinalizer(u8),
    DeleteCollection,
    Lost(u8),
    Foreign(u8),
    Advance(u8),
    Settle,
    Read(Option<u8>),
}

#[derive(Debug, Clone, PartialEq)]
struct Stored {
    uid: u64,
    version: u64,
    finalizer: bool,
    terminating: bool,
}

type State = BTreeMap<u8, Stored>;

struct Model {
    /// The state after version n, the first is empty.
    history: Vec<State>,
    cache: usize,
    uids: u64,
    gate: Gate,
    /// For each key, the version at which this guest last changed it.
    written: BTreeMap<u8, usize>,
}

impl Model {
    fn state(&self) -> &State {
        self.history.last().unwrap()
    }

    fn commit(&mut self, change: impl FnOnce(&mut State, u64)) -> u64 {
        let mut state = self.state().clone();
        let version = self.history.len() as u64;
        change(&mut state, version);
        self.history.push(state);
        version
    }

    fn target(&self, key: u8, stored: &Stored) -> Target {
        Target {
            object: object(&key.to_string()),
            uid: stored.uid.to_string().into(),
            version: v(&stored.version.to_string()),
            labels: None,
        }
    }

    fn own(&mut self, key: u8, effect: Effect) {
        self.written.insert(key, self.history.len() - 1);
        self.gate.record(&maps(), effect, NOW);
    }

    fn view(&self) -> Cache {
        let state = &self.history[self.cache];
        let objects = state.iter().map(|(key, stored)| {
            let held = Held {
                uid: stored.uid.to_string().into(),
                version: v(&stored.version.to_string()),
                terminating: stored.terminating,
            };
            (object(&key.to_string()), held)
        });
        Cache { position: Some(v(&self.cache.to_string())), objects: objects.collect(), ..Cache::default() }
    }

    fn step(&mut self, step: Step) -> Result<(), TestCaseError> {
        match step {
            Step::Create(key) | Step::Foreign(key) if !self.state().contains_key(&key) => {
                self.uids += 1;
                let uid = self.uids;
                self.commit(|state, version| {
                    state.insert(key, Stored { uid, version, finalizer: false, terminating: false });
                });
                if matches!(step, Step::Create(_)) {
                    let target = self.target(key, &self.state()[&key]);
                    self.own(key, Effect::Changed(target));
                }
            }
            Step::Update(key) | Step::Foreign(key) | Step::Lost(key) if self.state().contains_key(&key) => {
                self.commit(|state, version| state.get_mut(&key).unwrap().version = version);
                let target = self.target(key, &self.state()[&key]);
                match step {
                    Step::Update(_) => self.own(key, Effect::Changed(target)),
                    Step::Lost(_) => {
                        self.own(key, Effect::Unknown);
                        let generation = self.gate.needs_list(&maps()).unwrap();
                        let version = (self.history.len() - 1).to_string();
                        self.gate.listed(&maps(), generation, v(&version));
                    }
                    _ => {}
                }
            }
            Step::NoOp(key) if self.state().contains_key(&key) => {
                let target = self.target(key, &self.state()[&key]);
                self.gate.record(&maps(), Effect::Changed(target), NOW);
            }
            Step::Delete(key) if self.state().get(&key).is_some_and(|stored| !stored.finalizer) => {
                let uid = self.state()[&key].uid.to_string().into();
                self.commit(|state, _| {
                    state.remove(&key);
                });
                self.own(key, Effect::Deleted { object: object(&key.to_string()), uid });
            }
            Step::DeleteWithFinalizer(key) if self.state().get(&key).is_some_and(|stored| !stored.terminating) => {
                self.commit(|state, version| {
                    let stored = state.get_mut(&key).unwrap();
                    (stored.finalizer, stored.terminating, stored.version) = (true, true, version);
                });
                let target = self.target(key, &self.state()[&key]);
                self.own(key, Effect::Changed(target));
            }
            Step::RemoveFinalizer(key) if self.state().get(&key).is_some_and(|stored| stored.finalizer) => {
                let target = self.target(key, &self.state()[&key]);
                self.commit(|state, _| {
                    state.remove(&key);
                });
                self.own(key, Effect::Removed(target));
            }
            Step::DeleteCollection => {
                let before = self.state().clone();
                let targets = before.iter().map(|(key, stored)| self.target(*key, stored)).collect();
                for (key, stored) in &before {
                    if stored.finalizer && stored.terminating {
                        continue;
                    }
                    self.commit(|state, _| {
                        state.remove(key);
                    });
                }
                self.gate.record(&maps(), Effect::Collection(targets), NOW);
                for (key, stored) in before {
                    if !(stored.finalizer && stored.terminating) {
                        self.written.insert(key, self.history.len() - 1);
                    }
                }
            }
            Step::Advance(by) => self.cache = (self.cache + usize::from(by)).min(self.history.len() - 1),
            Step::Settle => {
                let view = self.view();
                settle(&mut self.gate, &[&view], NOW);
            }
            Step::Read(key) => return self.read(key),
            _ => {}
        }
        Ok(())
    }

    /// What is served must be a state of each own key that the server had at the write or after it.
    fn read(&self, key: Option<u8>) -> Result<(), TestCaseError> {
        let name = key.map(|key| key.to_string());
        let scope = Scope { namespace: Some("a"), name: name.as_deref() };
        let view = self.view();
        let decision = self.gate.decide(&maps(), scope, &view, NOW);
        if self.cache == self.history.len() - 1 {
            prop_assert!(matches!(decision, Decision::Serve(_)), "a cache that is up to date is used: {decision:?}");
        }
        let Decision::Serve(hidden) = decision else { return Ok(()) };
        for (written, at) in self.written.iter().filter(|(written, _)| key.is_none_or(|key| key == **written)) {
            let shown = self.history[self.cache]
                .get(written)
                .filter(|stored| !hidden.contains(stored.uid.to_string().as_str()));
            // A deletecollection deletes one object after the other, so each is written somewhere before its end.
            let fresh =
                self.history[(*at).min(self.history.len() - 1)..].iter().any(|state| state.get(written) == shown);
            prop_assert!(fresh, "key {written} shown as {shown:?}, written at version {at}, cache at {}", self.cache);
        }
        Ok(())
    }
}

fn step() -> impl Strategy<Value = Step> {
    let key = 0_u8..3;
    prop_oneof![
        key.clone().prop_map(Step::Create),
        key.clone().prop_map(Step::Create),
        key.clone().prop_map(Step::Update),
        key.clone().prop_map(Step::NoOp),
        key.clone().prop_map(Step::Delete),
        key.clone().prop_map(Step::DeleteWithFinalizer),
        key.clone().prop_map(Step::RemoveFinalizer),
        Just(Step::DeleteCollection),
        key.clone().prop_map(Step::Lost),
        key.clone().prop_map(Step::Foreign),
        (0_u8..6).prop_map(Step::Advance),
        (0_u8..6).prop_map(Step::Advance),
        Just(Step::Settle),
        prop::option::of(key.clone()).prop_map(Step::Read),
        prop::option::of(key).prop_map(Step::Read),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_500))]

    #[test]
    fn a_cached_read_after_a_write_never_shows_an_older_state(steps in prop::collection::vec(step(), 1..40)) {
        let mut model = Model {
            history: vec![State::new()],
            cache: 0,
            uids: 0,
            gate: Gate::new(),
            written: BTreeMap::new(),
        };
        for step in steps {
            model.step(step)?;
        }
        // However far behind it was, a cache that catches up is used again.
        model.step(Step::Advance(u8::MAX))?;
        model.step(Step::Read(None))?;
    }

    #[test]
    fn any_answer_is_read_without_panic(code in 100_u16..600, answer in "\\PC{0,80}") {
        let _ = effect("PUT", ONE, code, &answer);
        let _ = effect("DELETE", "/api/v1/namespaces/a/configmaps", code, &format!("{{\"items\":[{answer}]}}"));
    }
}
