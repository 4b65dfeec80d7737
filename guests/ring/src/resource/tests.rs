use kube::CustomResourceExt;

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
        let old = ring[there].clone();
        let Some(written) = old.clone().map_or(Some(next.clone()), |old| next.over(old)) else { continue };
        writes.push(there);
        // As the predicate: a changed annotation alone is no change of the generation.
        if old.is_none_or(|old| old.spec != written.spec) {
            changed.push_back(there);
        }
        ring[there] = Some(written);
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
fn a_restart_writes_nothing() {
    let mut ring = vec![Some(object("ring-0", 1, None)), None, None];
    run(&mut ring, 0);

    for first in 0..3 {
        assert!(run(&mut ring, first).is_empty());
    }
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
fn what_others_wrote_into_the_object_stays() {
    let mut there = object("ring-1", 1, Some("ring-0/1"));
    there.metadata.resource_version = Some("7".to_owned());
    there.metadata.labels = Some([("kept".to_owned(), "yes".to_owned())].into());
    there.annotations_mut().insert("kept".to_owned(), "yes".to_owned());

    let written = object("ring-0", 2, None).next("ring-1").unwrap().over(there.clone()).unwrap();

    assert_eq!(written.spec.nonce, 2);
    assert_eq!(written.annotations()[ORIGIN], "ring-0/2");
    assert_eq!(written.annotations()["kept"], "yes");
    assert_eq!(written.metadata.labels, there.metadata.labels);
    assert_eq!(written.metadata.resource_version, there.metadata.resource_version);
}

#[test]
fn the_crd_file_is_fresh() {
    let file: serde_json::Value = serde_saphyr::from_str(CRD).unwrap();
    let built = serde_json::to_value(TestResource::crd()).unwrap();

    assert_eq!(file, built, "guests/ring/crd.yaml must be this, in YAML:\n{built:#}");
}
