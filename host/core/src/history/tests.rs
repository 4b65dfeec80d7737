mod model;

use super::*;
use crate::object::Change;
use crate::watch::Resource;

fn object(name: &str, uid: &str, version: u64) -> Arc<Object> {
    labelled(name, uid, version, "in")
}

fn labelled(name: &str, uid: &str, version: u64, label: &str) -> Arc<Object> {
    let resource = Resource { group: String::new(), version: "v1".into(), kind: "X".into(), plural: "xs".into() };
    let json = format!(
        r#"{{"metadata":{{"name":"{name}","namespace":"n","uid":"{uid}","resourceVersion":"{version}","labels":{{"l":"{label}"}}}}}}"#
    );
    Arc::new(Object::parse(json.as_bytes(), &resource).unwrap())
}

fn is_in(object: &Object) -> bool {
    object.metadata.labels.get("l").is_some_and(|label| &**label == "in")
}

fn version(number: u64) -> ResourceVersion {
    ResourceVersion::new(&number.to_string())
}

fn entry(number: u64, old: Option<Arc<Object>>, new: Option<Arc<Object>>) -> Entry {
    Entry { version: version(number), old, new, inferred: false }
}

fn added(name: &str, uid: &str, number: u64) -> Entry {
    entry(number, None, Some(object(name, uid, number)))
}

fn modified(name: &str, uid: &str, number: u64) -> Entry {
    entry(number, Some(object(name, uid, 1)), Some(object(name, uid, number)))
}

fn deleted(name: &str, uid: &str, number: u64) -> Entry {
    entry(number, Some(object(name, uid, 1)), None)
}

fn written(item: &Item) -> String {
    match item {
        Item::Event(WatchEvent { r#type, object, version }) => {
            format!("{} {}/{}@{version}", r#type.as_str(), object.metadata.name, object.metadata.uid)
        }
        Item::InitialEnd(version) => format!("END @{version}"),
    }
}

fn drain(backlog: &mut Backlog) -> Vec<String> {
    std::iter::from_fn(|| backlog.take()).map(|item| written(&item)).collect()
}

/// What is left of these when a watcher that has seen everything up to 1 reads at last.
fn compacted(entries: &[Entry]) -> Vec<String> {
    let mut backlog = Backlog::after(version(1));
    for entry in entries {
        backlog.push(entry);
    }
    let length = backlog.len();
    let left = drain(&mut backlog);
    assert_eq!((left.len(), backlog.is_empty()), (length, true));
    assert_eq!(backlog.take_compacted(), (entries.len() - left.len()) as u64);
    left
}

#[test]
fn a_state_that_is_overtaken_is_left_out() {
    assert_eq!(compacted(&[added("a", "1", 2), modified("a", "1", 3)]), ["ADDED a/1@3"]);
    assert_eq!(compacted(&[modified("a", "1", 2), modified("a", "1", 3)]), ["MODIFIED a/1@3"]);
    assert_eq!(compacted(&[modified("a", "1", 2), deleted("a", "1", 3)]), ["DELETED a/1@3"]);
}

#[test]
fn what_came_and_went_was_never_there() {
    assert!(compacted(&[added("a", "1", 2), modified("a", "1", 3), deleted("a", "1", 4)]).is_empty());
    let again = [added("a", "1", 2), deleted("a", "1", 3), added("a", "2", 4)];
    assert_eq!(compacted(&again), ["ADDED a/2@4"]);
}

#[test]
fn a_deletion_stays_before_a_successor_of_the_same_name() {
    let again = [deleted("a", "1", 2), added("a", "2", 3), modified("a", "2", 4)];
    assert_eq!(compacted(&again), ["DELETED a/1@2", "ADDED a/2@4"]);
    let gone = [deleted("a", "1", 2), added("a", "2", 3), deleted("a", "2", 4)];
    assert_eq!(compacted(&gone), ["DELETED a/1@2"]);
    let third = [deleted("a", "1", 2), added("a", "2", 3), deleted("a", "2", 4), added("a", "3", 5)];
    assert_eq!(compacted(&third), ["DELETED a/1@2", "ADDED a/3@5"]);
}

#[test]
fn events_come_in_the_order_of_versions_whatever_was_left_out() {
    let entries = [modified("a", "1", 2), modified("b", "1", 3), deleted("c", "1", 4), modified("a", "1", 5)];
    assert_eq!(compacted(&entries), ["MODIFIED b/1@3", "DELETED c/1@4", "MODIFIED a/1@5"]);
}

#[test]
fn what_was_taken_is_not_compacted_away() {
    let mut backlog = Backlog::after(version(1));
    backlog.push(&added("a", "1", 2));
    assert_eq!(drain(&mut backlog), ["ADDED a/1@2"]);
    backlog.push(&modified("a", "1", 3));
    backlog.push(&deleted("a", "1", 4));
    assert_eq!(drain(&mut backlog), ["DELETED a/1@4"]);
}

#[test]
fn what_was_there_at_the_beginning_is_told_as_it_was() {
    let mut backlog = Backlog::starting_with(vec![object("b", "1", 7), object("c", "1", 3)], version(9));
    backlog.push(&deleted("b", "1", 10));
    backlog.push(&added("a", "1", 11));
    assert_eq!(drain(&mut backlog), ["ADDED b/1@7", "ADDED c/1@3", "END @9", "DELETED b/1@10", "ADDED a/1@11"]);
}

#[test]
fn a_watcher_that_is_ahead_hears_nothing_that_it_knows() {
    let mut backlog = Backlog::after(version(5));
    assert!(backlog.is_ahead_of(&version(4)) && !backlog.is_ahead_of(&version(5)));
    for number in 3..=6 {
        backlog.push(&modified(&format!("a{number}"), "1", number));
    }
    // When exactly it was deleted nobody knows.
    backlog.push(&Entry { inferred: true, ..deleted("z", "1", 8) });
    assert_eq!(drain(&mut backlog), ["MODIFIED a6/1@6", "DELETED z/1@8"]);
}

#[test]
fn a_bookmark_tells_news_and_nothing_that_is_not_taken() {
    let mut backlog = Backlog::after(version(5));
    assert_eq!(backlog.bookmark(&version(4)), None, "the watcher is ahead");
    assert_eq!(backlog.bookmark(&version(5)), None);
    backlog.push(&modified("a", "1", 6));
    assert_eq!(backlog.bookmark(&version(7)), None);
    drain(&mut backlog);
    assert_eq!(backlog.bookmark(&version(6)), None);
    assert_eq!(backlog.bookmark(&version(7)), Some(version(7)));
    assert_eq!(backlog.bookmark(&version(7)), None);
}

#[test]
fn entering_a_selection_is_an_addition_and_leaving_a_deletion_of_the_old_state() {
    let (inside, outside) = (labelled("a", "1", 2, "in"), labelled("a", "1", 3, "out"));
    let left = entry(3, Some(inside.clone()), Some(outside.clone())).narrow(is_in).unwrap();
    assert_eq!((left.old.as_ref(), left.new.as_ref(), &left.version), (Some(&inside), None, &version(3)));
    let entered = entry(2, Some(outside.clone()), Some(inside.clone())).narrow(is_in).unwrap();
    assert!(entered.old.is_none() && entered.new == Some(inside));
    assert!(entry(3, None, Some(outside)).narrow(is_in).is_none());
}

fn since(history: &History, from: u64) -> Option<Vec<String>> {
    let entries = history.since(&version(from)).ok()?;
    Some(entries.map(|entry| entry.version.to_string()).collect())
}

#[test]
fn a_version_that_is_too_old_is_refused_and_a_newer_one_has_missed_nothing() {
    let mut history = History::new(version(10));
    history.push(modified("a", "1", 12));
    history.push(modified("a", "1", 15));
    assert_eq!(since(&history, 9), None);
    assert_eq!(since(&history, 10).unwrap(), ["12", "15"]);
    assert_eq!(since(&history, 12).unwrap(), ["15"]);
    assert_eq!(since(&history, 13).unwrap(), ["15"]);
    assert!(since(&history, 15).unwrap().is_empty() && since(&history, 99).unwrap().is_empty());
    let expired = history.since(&version(9)).err().unwrap();
    assert_eq!(expired.to_string(), "too old resource version: 9 (10)");
    for odd in ["", "x", "012"] {
        assert!(history.since(&ResourceVersion::new(odd)).is_err(), "{odd}");
    }
}

#[test]
fn a_history_is_bounded_in_number_and_in_bytes() {
    let mut history = History::new(version(1));
    for number in 2..(MAX_EVENTS as u64 + 12) {
        history.push(modified("a", "1", number));
    }
    assert_eq!(history.entries.len(), MAX_EVENTS);
    assert_eq!(since(&history, 10), None);
    assert_eq!(since(&history, 11).unwrap().len(), MAX_EVENTS);

    let large = |number| entry(number, None, Some(object("a", &"u".repeat(MAX_BYTES / 3), number)));
    for number in 2_000..2_005 {
        history.push(large(number));
    }
    assert_eq!(history.entries.len(), 2);
    assert!(history.bytes <= MAX_BYTES);
    assert_eq!(since(&history, 2_002).unwrap(), ["2003", "2004"]);
}

#[test]
fn deletions_of_unknown_version_are_told_again_as_long_as_all_of_them_are_known() {
    let gone = |name: &str| Entry { inferred: true, ..deleted(name, "1", 20) };
    let mut history = History::new(version(10));
    history.push(gone("a"));
    history.push(gone("b"));
    // A watcher may have been cut between the two.
    assert_eq!(since(&history, 20).unwrap(), ["20", "20"]);
    assert!(since(&history, 21).unwrap().is_empty());
    for number in 30..(30 + MAX_EVENTS as u64 - 1) {
        history.push(modified("c", "1", number));
    }
    assert_eq!(since(&history, 20), None, "one of the two is forgotten");
    assert_eq!(since(&history, 21).unwrap().len(), MAX_EVENTS - 1);
}

fn gap(from: u64, to: u64) -> Gap {
    Gap { from: version(from), to: version(to) }
}

#[test]
fn nobody_resumes_from_within_a_gap() {
    let mut history = History::new(version(5));
    history.push(modified("a", "1", 10));
    history.relisted([modified("a", "1", 15), Entry { inferred: true, ..deleted("b", "1", 20) }], gap(10, 20));
    history.push(modified("a", "1", 25));
    assert_eq!(since(&history, 10).unwrap(), ["15", "20", "25"]);
    for inside in [11, 15, 19] {
        assert_eq!(since(&history, inside), None, "{inside}");
    }
    assert_eq!(since(&history, 20).unwrap(), ["20", "25"]);
    assert!(Backlog::after(version(15)).is_within(&gap(10, 20)));
    for outside in [10, 20, 30] {
        assert!(!Backlog::after(version(outside)).is_within(&gap(10, 20)), "{outside}");
    }
    // A second one makes the first one the end of what is remembered.
    history.relisted([], gap(25, 40));
    assert_eq!(since(&history, 19), None);
    assert_eq!(since(&history, 21).unwrap(), ["25"]);
    assert_eq!(since(&history, 30), None);
    assert!(since(&history, 40).unwrap().is_empty());
    history.relisted([], gap(50, 60));
    assert_eq!(since(&history, 39), None);
    assert!(since(&history, 40).unwrap().is_empty());
}

fn change(old: Option<Arc<Object>>, new: Option<Arc<Object>>) -> Change {
    Change { old, new, initial: false }
}

fn inferred_versions(changes: Vec<Change>, from: u64, to: u64) -> Option<Vec<(String, bool)>> {
    let entries = inferred(changes, &version(from), &version(to))?;
    Some(entries.into_iter().map(|entry| (entry.version.to_string(), entry.inferred)).collect())
}

#[test]
fn what_a_list_shows_comes_in_the_order_of_the_latest_versions_that_it_can_have() {
    let changes = vec![
        change(Some(object("a", "1", 3)), None),
        change(Some(object("b", "1", 4)), None),
        change(None, Some(object("b", "2", 15))),
        change(None, Some(object("c", "1", 12))),
        change(Some(object("d", "1", 5)), Some(object("d", "1", 14))),
    ];
    let versions = inferred_versions(changes, 10, 20).unwrap();
    let expected = [("12", false), ("14", false), ("14", true), ("15", false), ("20", true)];
    assert_eq!(versions, expected.map(|(version, inferred)| (version.to_owned(), inferred)));
}

#[test]
fn a_list_that_no_history_leads_to_is_another_history() {
    assert_eq!(inferred_versions(vec![change(None, Some(object("a", "1", 9)))], 10, 20), None);
    assert_eq!(inferred_versions(vec![change(None, Some(object("a", "1", 21)))], 10, 20), None);
    assert_eq!(inferred_versions(vec![change(Some(object("a", "1", 5)), None)], 10, 10), None);
    let recreated = vec![change(Some(object("a", "1", 5)), None), change(None, Some(object("a", "2", 11)))];
    assert_eq!(inferred_versions(recreated, 10, 20), None, "there was no version for the deletion");
    assert_eq!(inferred_versions(vec![], 10, 10), Some(vec![]));
    assert_eq!(inferred_versions(vec![], 10, 8), None, "an older list, though nothing differs");
}
