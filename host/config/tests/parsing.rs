//! What the documents of a file come to, and what a change of the file leads to.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test, its helpers included")]

use std::time::Duration;

use proptest::prelude::*;
use wasm_operator_config::{Change, GuestSpec, Parsed, Segment, Severity, parse};
use wasm_operator_core::dispatch::SleepPolicy;

fn file(text: &str) -> Parsed {
    parse("c.yaml", text, None)
}

fn running(names: &[&str]) -> Vec<GuestSpec> {
    names.iter().map(|name| GuestSpec::new(*name, "a.wasm")).collect()
}

fn names(changes: &[Change]) -> Vec<String> {
    changes
        .iter()
        .map(|change| match change {
            Change::Added(spec) => format!("+{}", spec.name),
            Change::Changed { new, .. } => format!("~{}", new.name),
            Change::Removed(spec) => format!("-{}", spec.name),
        })
        .collect()
}

#[test]
fn the_minimum_means_the_defaults() {
    let parsed = file("name: ring\nwasm: a.wasm\n");
    let spec = &parsed.guests().next().unwrap().spec;
    assert_eq!(*spec, GuestSpec::new("ring", "a.wasm"));
    assert!(spec.permissions.is_empty());
    assert_eq!(spec.identity("host").to_string(), "system:serviceaccount:host:guest-ring");
    assert_eq!(spec.settings(), wasm_operator_core::dispatch::Settings::default());
    assert_eq!(spec.wasm_path("/etc/guests".as_ref()), std::path::Path::new("/etc/guests/a.wasm"));
}

#[test]
fn sleep_modes_become_policies() {
    let policy = |text: &str| {
        let parsed = file(&format!("name: a\nwasm: a\nsleep: {text}\n"));
        parsed.guests().next().unwrap().spec.sleep.policy()
    };
    assert_eq!(policy("{mode: Never}"), SleepPolicy::Never);
    assert_eq!(policy("{mode: Immediately}"), SleepPolicy::Immediately);
    assert_eq!(policy("{mode: Fixed, idleAfter: 20s}"), SleepPolicy::Fixed(Duration::from_secs(20)));
    assert_eq!(policy("{mode: Fixed}"), SleepPolicy::Fixed(Duration::from_secs(1)));
    assert_eq!(policy("{}"), SleepPolicy::default());
    let SleepPolicy::Predicted(settings) = policy("{minResident: 5s}") else { panic!("not the default mode") };
    assert_eq!(settings.min_resident, Duration::from_secs(5));
}

#[test]
fn a_broken_document_stops_nobody_else() {
    let parsed = file("name: a\nwasm: a.wasm\n---\nname: b\nwasm: [\n---\nname: c\nwasm: a.wasm\n");
    assert_eq!(parsed.guests().map(|guest| guest.spec.name.as_str()).collect::<Vec<_>>(), ["a", "c"]);
    assert_eq!(parsed.errors().count(), 1);
}

#[test]
fn a_guest_whose_document_breaks_goes_on() {
    let old = running(&["a", "b", "c"]);
    assert_eq!(names(&file("name: a\nwasm: a.wasm\n---\nname: b\nwasm: a.wasm\nbad: 1\n").changes(&old)), ["-c"]);
}

#[test]
fn nobody_is_removed_while_a_document_has_no_name() {
    let old = running(&["a", "b"]);
    for broken in ["nmae: b\nwasm: a.wasm", "name: B!\nwasm: a.wasm", "name: 'b", "wasm: a.wasm", "- b"] {
        let parsed = file(&format!("name: d\nwasm: a.wasm\n---\n{broken}\n"));
        assert_eq!(names(&parsed.changes(&old)), ["+d"], "{broken}");
    }
    assert_eq!(names(&file("").changes(&old)), ["-a", "-b"]);
}

#[test]
fn an_edit_changes_one_guest() {
    let text = |weight: u32| format!("name: a\nwasm: a.wasm\n---\nname: b\nwasm: a.wasm\nweight: {weight}\n");
    let old: Vec<GuestSpec> = file(&text(1)).guests().map(|guest| guest.spec.clone()).collect();
    assert_eq!(names(&file(&text(2)).changes(&old)), ["~b"]);
    assert_eq!(names(&file(&format!("# a comment\n{}", text(1))).changes(&old)), Vec::<String>::new());
}

#[test]
fn later_findings_get_their_place_too() {
    let parsed = file(
        "# c\n---\nname: a\nwasm: ./a.wasm\npermissions:\n  - {apiGroups: [x], resources: [y], verbs: [get], namespaces: [n]}\n",
    );
    let guest = parsed.guests().next().unwrap();
    let at = |path: &[Segment]| guest.diagnostic(Severity::Error, path, "bad").short();
    assert_eq!(at(&[Segment::Field("wasm")]), "c.yaml:4:7: bad");
    assert_eq!(
        at(&[Segment::Field("permissions"), Segment::Index(0), Segment::Field("verbs"), Segment::Index(0)]),
        "c.yaml:6:46: bad"
    );
    // What is not there is reported where it would be.
    assert_eq!(at(&[Segment::Field("permissions"), Segment::Index(7)]), "c.yaml:6:3: bad");
    assert_eq!(at(&[Segment::Field("limits")]), "c.yaml:3:1: bad");
}

#[test]
fn a_thousand_guests_are_read() {
    let text: String =
        (0..1_000).map(|n| format!("---\nname: ring-{n}\nwasm: ring.wasm\npermissions: as-requested\n")).collect();
    assert_eq!(file(&text).guests().count(), 1_000);
}

fn any_spec() -> impl Strategy<Value = GuestSpec> {
    let rule = ("[a-z]{1,4}", "[a-z]{1,4}", prop::option::of("[a-z]{1,4}")).prop_map(|(group, resource, namespace)| {
        wasm_operator_core::permission::Rule {
            api_groups: vec![group],
            resources: vec![resource],
            verbs: vec!["get".into()],
            resource_names: vec![],
            namespaces: namespace.into_iter().collect(),
        }
    });
    (
        "[a-z][a-z0-9]{0,9}",
        "[ -~]{1,9}",
        prop::collection::vec("[^\0]{0,9}", 0..3),
        prop::collection::vec(rule, 0..3),
        1_u32..256,
        1_000_u64..2_592_000_000,
    )
        .prop_map(|(name, wasm, args, rules, concurrency, resync)| GuestSpec {
            args,
            permissions: wasm_operator_config::Grants::Rules(rules),
            concurrency,
            resync: Some(std::time::Duration::from_millis(resync)),
            ..GuestSpec::new(name, wasm)
        })
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(spec in any_spec()) {
        // JSON is YAML. Characters that YAML does not print are escaped there.
        let json: String = serde_json::to_string(&spec).unwrap().chars()
            .map(|c| if c.is_ascii() { c.to_string() } else { c.encode_utf16(&mut [0; 2]).iter().map(|u| format!("\\u{u:04x}")).collect() })
            .collect();
        let json = json.replace('\u{7f}', "\\u007f");
        let parsed = file(&json);
        prop_assert_eq!(parsed.errors().count(), 0, "{:?}", parsed.errors().next());
        prop_assert_eq!(&parsed.guests().next().unwrap().spec, &spec);
        prop_assert_eq!(serde_json::from_str::<GuestSpec>(&json).unwrap(), spec);
    }

    #[test]
    fn no_text_does_harm(text in "([a-z:#&*!|>%@`'\"\\[\\]{}, ?-]|name: a|wasm: a|\\n|\\n  |\\n---\\n|\\t|é|<<: )*") {
        for diagnostic in file(&text).diagnostics() {
            let position = diagnostic.position.unwrap();
            prop_assert!(position.line <= text.lines().count().max(1) + 1, "{}", diagnostic);
            prop_assert!(!diagnostic.message.is_empty());
        }
    }
}
