use kube::CustomResourceExt;
use serde_json::json;

use super::*;

const CRD: &str = include_str!("../../crd.yaml");

fn object(namespace: &str, nonce: i64, origin: Option<&str>) -> TestResource {
    let mut object =
        TestResource::new("ring", TestResourceSpec { nonce, updated_at: "2026-01-23T13:04:03Z".to_owned() });
    object.metadata.namespace = Some(namespace.to_owned());
    object.metadata.annotations = origin.map(|origin| [(ORIGIN.to_owned(), origin.to_owned())].into());
    object
}

/// Lets the guests of a ring of `size` take turns until none of them writes any more. Returns the writes in order.
fn run(ring: &mut [Option<TestResource>], first: usize) -> Vec<usize> {
    let size = ring.len();
    let mut changed = std::collections::VecDeque::from([first]);
    let mut writes = Vec::new();
    while let Some(here) = changed.pop_front() {
        let there = (here + 1) % size;
        let Some(next) = ring[here].as_ref().and_then(|object| object.next(&format!("ring-{there}"))) else { continue };
        let old = ring[there].take();
        let nonce = old.as_ref().map(|object| object.spec.nonce);
        if nonce.is_some_and(|nonce| nonce > next.spec.nonce) {
            ring[there] = old;
            continue;
        }
        writes.push(there);
        // As the predicate: a changed annotation alone is no change of the generation.
        if old.is_none_or(|old| old.spec != next.spec) {
            changed.push_back(there);
        }
        ring[there] = Some(next);
        assert!(writes.len() < 10 * size, "the nonce never comes to rest");
    }
    writes
}

fn nonces(ring: &[Option<TestResource>]) -> Vec<i64> {
    ring.iter().flatten().map(|object| object.spec.nonce).collect()
}

#[test]
fn a_lap_visits_every_namespace_once_and_ends_before_its_origin() {
    let mut ring = vec![None, None, None, None];
    for nonce in 1..4 {
        // Whoever begins a lap changes the nonce and leaves everything else as it is.
        ring[0].get_or_insert_with(|| object("ring-0", 0, None)).spec.nonce = nonce;
        assert_eq!(run(&mut ring, 0), [1, 2, 3]);
        assert_eq!(nonces(&ring), [nonce; 4]);
    }
}

#[test]
fn a_lap_may_begin_where_another_one_passed() {
    let mut ring = vec![Some(object("ring-0", 1, None)), None, None, None];
    run(&mut ring, 0);

    ring[2].as_mut().unwrap().spec.nonce = 2;

    assert_eq!(run(&mut ring, 2), [3, 0, 1]);
    assert_eq!(nonces(&ring), [2; 4]);
}

#[test]
fn an_older_lap_gives_way_to_a_newer_one() {
    let mut ring = vec![Some(object("ring-0", 7, None)), None, Some(object("ring-2", 9, None)), None];

    run(&mut ring, 0);
    assert_eq!(nonces(&ring), [7, 7, 9]);

    run(&mut ring, 2);
    assert_eq!(nonces(&ring), [9; 4]);
}

#[test]
fn a_restart_writes_what_is_there_already() {
    let mut ring = vec![Some(object("ring-0", 1, None)), None, None];
    run(&mut ring, 0);
    let before = ring.clone();

    for first in 0..3 {
        run(&mut ring, first);
    }

    assert_eq!(ring, before);
}

#[test]
fn a_ring_of_one_writes_nothing() {
    assert!(run(&mut [Some(object("ring-0", 1, None))], 0).is_empty());
}

#[test]
fn an_origin_that_makes_no_sense_is_none() {
    for origin in ["", "/", "ring-1", "ring-1/", "ring-1/x", "ring-1/4"] {
        let next = object("ring-0", 5, Some(origin)).next("ring-1").unwrap();
        assert_eq!(next.annotations()[ORIGIN], "ring-0/5", "`{origin}`");
    }
    assert_eq!(object("ring-0", 5, Some("ring-1/5")).next("ring-1"), None);
}

#[test]
fn only_a_refused_nonce_counts_as_overtaken() {
    let status = |code: u16, field: &str| -> Status {
        serde_json::from_value(json!({
            "status": "Failure", "code": code, "reason": "Invalid", "message": "",
            "details": {"causes": [{"reason": "FieldValueInvalid", "message": "", "field": field}]},
        }))
        .unwrap()
    };
    assert!(is_newer_there(&status(422, "spec.nonce")));
    assert!(!is_newer_there(&status(422, "spec.updatedAt")));
    assert!(!is_newer_there(&status(409, "spec.nonce")));
    assert!(!is_newer_there(&Status::failure("namespaces \"ring-1\" not found", "NotFound").with_code(404)));
}

#[test]
fn the_crd_file_is_fresh() {
    let file: serde_json::Value = serde_saphyr::from_str(CRD).unwrap();
    let built = serde_json::to_value(TestResource::crd()).unwrap();

    assert_eq!(file, built, "guests/ring/crd.yaml must be this, in YAML:\n{built:#}");
}
