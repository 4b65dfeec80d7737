use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Wake, Waker};

use wasm_operator_core::history::{Item, WatchEvent};
use wasm_operator_core::object::Object;
use wasm_operator_core::watch::{Representation, Resource};

use super::super::filter::Filter;
use super::super::stream::{Stream, WatchStart};
use super::super::watcher::Next;
use super::super::wire::{Event, Source};
use super::super::{ParkReason, Scope};
use super::*;
use crate::metrics::Metrics;

fn resource() -> Resource {
    Resource { group: String::new(), version: "v1".into(), kind: "X".into(), plural: "xs".into() }
}

/// A stream that remembers, with these objects at version 10.
fn stream(objects: Vec<Arc<Object>>) -> Stream {
    let source = Source {
        resource: resource(),
        namespace: None,
        label_selector: String::new(),
        field_selector: String::new(),
        representation: Representation::Full,
        private_to: None,
    };
    let stream = Stream::new(source, Metrics::default());
    stream.want_history();
    stream.replace(objects, version(10));
    stream
}

fn object(name: &str, uid: &str, version: u32) -> Arc<Object> {
    let json =
        format!(r#"{{"metadata":{{"name":"{name}","namespace":"n","uid":"{uid}","resourceVersion":"{version}"}}}}"#);
    Arc::new(Object::parse(json.as_bytes(), &resource()).unwrap())
}

fn version(number: u32) -> ResourceVersion {
    ResourceVersion::new(&number.to_string())
}

fn filter(namespaces: &[&str]) -> Arc<Filter> {
    let scope = Scope {
        resource: resource(),
        namespaces: namespaces.iter().map(|namespace| (*namespace).to_owned()).collect(),
        label_selector: String::new(),
        field_selector: String::new(),
        representation: Representation::Full,
    };
    Arc::new(Filter::new(&scope).unwrap())
}

#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// A watch, and how often it was woken.
struct Watch {
    watcher: Arc<Watcher>,
    woken: Arc<Woken>,
}

impl Watch {
    fn begin(stream: &Stream, start: &WatchStart) -> Result<Self, Expired> {
        Self::of(stream, start, &[])
    }

    fn of(stream: &Stream, start: &WatchStart, namespaces: &[&str]) -> Result<Self, Expired> {
        let (_, watcher) = stream.watch(filter(namespaces), start, &[].into()).expect("a listed stream")?;
        Ok(Self { watcher, woken: Arc::default() })
    }

    /// After what was there at the beginning.
    fn after(stream: &Stream, number: u32) -> Result<Self, Expired> {
        Self::begin(stream, &WatchStart::After(version(number)))
    }

    fn take(&self) -> Vec<String> {
        let waker = Waker::from(self.woken.clone());
        let mut words = Vec::new();
        loop {
            match self.watcher.next(&waker) {
                Next::Item(Item::Event(WatchEvent { r#type, object, version })) => {
                    words.push(format!("{} {}@{version}", r#type.as_str(), object.metadata.name));
                }
                Next::Item(Item::InitialEnd(version)) => words.push(format!("END @{version}")),
                Next::End(end) => {
                    words.push(format!("{end:?}").split('(').next().unwrap().to_owned());
                    return words;
                }
                Next::Nothing => return words,
            }
        }
    }

    fn woken(&self) -> usize {
        self.woken.0.load(Ordering::Relaxed)
    }
}

#[test]
fn only_what_happened_wakes_a_watcher() {
    let stream = stream(vec![object("a", "1", 5)]);
    let watch = Watch::after(&stream, 10).unwrap();
    let other = Watch::of(&stream, &WatchStart::After(version(10)), &["elsewhere"]).unwrap();
    assert!(watch.take().is_empty() && other.take().is_empty());
    stream.apply(Event::Bookmark { version: version(20), initial_end: false });
    stream.interrupted(None);
    stream.resumed();
    stream.replace(vec![object("a", "1", 5)], version(30));
    assert_eq!((watch.woken(), other.woken()), (0, 0));
    stream.apply(Event::Modified(object("a", "1", 31)));
    assert_eq!((watch.woken(), other.woken()), (1, 0));
    assert_eq!(watch.take(), ["MODIFIED a@31"]);
}

#[test]
fn a_list_and_the_watch_after_it_join() {
    let stream = stream(vec![object("a", "1", 5)]);
    stream.apply(Event::Added(object("b", "2", 11)));
    stream.apply(Event::Deleted(object("a", "1", 12)));
    assert_eq!(Watch::after(&stream, 10).unwrap().take(), ["ADDED b@11", "DELETED a@12"]);
    assert_eq!(Watch::after(&stream, 11).unwrap().take(), ["DELETED a@12"]);
    let initial = Watch::begin(&stream, &WatchStart::Initial).unwrap();
    let ahead = Watch::after(&stream, 13).unwrap();
    stream.apply(Event::Modified(object("b", "2", 13)));
    stream.apply(Event::Modified(object("b", "2", 14)));
    assert_eq!(initial.take(), ["ADDED b@11", "END @12", "MODIFIED b@14"]);
    assert_eq!(ahead.take(), ["MODIFIED b@14"]);
    let expired = Watch::after(&stream, 9).err().unwrap();
    assert_eq!(expired.to_string(), "too old resource version: 9 (10)");
}

#[test]
fn what_a_new_list_shows_is_told() {
    let stream = stream(vec![object("a", "1", 5), object("b", "2", 6), object("c", "3", 7)]);
    let (watch, within) = (Watch::after(&stream, 10).unwrap(), Watch::after(&stream, 15).unwrap());
    stream.replace(vec![object("b", "4", 16), object("c", "3", 12), object("d", "5", 14)], version(20));
    assert_eq!(watch.take(), ["MODIFIED c@12", "ADDED d@14", "DELETED b@15", "ADDED b@16", "DELETED a@20"]);
    // It may have seen what nobody here has.
    assert_eq!(within.take(), ["Expired"]);
    assert!(Watch::after(&stream, 15).is_err() && Watch::after(&stream, 10).is_ok());
}

#[test]
fn an_older_history_ends_all_watches_and_none_of_its_versions_can_be_resumed_from() {
    let stream = stream(vec![object("a", "1", 5)]);
    let watch = Watch::after(&stream, 10).unwrap();
    stream.apply(Event::Modified(object("a", "1", 11)));
    stream.replace(vec![object("a", "1", 5)], version(8));
    assert_eq!(watch.take(), ["Expired"]);
    assert!(Watch::after(&stream, 7).is_err());
    assert!(Watch::after(&stream, 8).is_ok());
}

#[test]
fn a_list_of_an_older_history_is_resumed_from_even_if_no_object_differs() {
    let stream = stream(vec![object("a", "1", 5)]);
    let watch = Watch::after(&stream, 10).unwrap();
    stream.replace(vec![object("a", "1", 5)], version(8));
    assert_eq!(watch.take(), ["Expired"]);
    let watch = Watch::after(&stream, 8).unwrap();
    stream.apply(Event::Modified(object("a", "1", 9)));
    assert_eq!(watch.take(), ["MODIFIED a@9"]);
}

#[test]
fn a_version_of_a_lost_history_is_not_waited_for_for_ever() {
    let stream = stream(vec![]);
    let watch = Watch::after(&stream, 99).unwrap();
    stream.expire_if_ahead(&watch.watcher, &version(99));
    assert_eq!(watch.take(), ["Expired"]);
    let watch = Watch::after(&stream, 12).unwrap();
    stream.apply(Event::Bookmark { version: version(12), initial_end: false });
    stream.expire_if_ahead(&watch.watcher, &version(12));
    assert!(watch.take().is_empty());
}

#[test]
fn the_objects_of_a_kind_that_is_gone_are_deleted_and_the_watch_ends() {
    let stream = stream(vec![object("a", "1", 5)]);
    let watch = Watch::after(&stream, 10).unwrap();
    stream.gone();
    assert_eq!(watch.take(), ["DELETED a@10", "Closed"]);
    assert!(stream.watch(filter(&[]), &WatchStart::After(version(10)), &[].into()).is_none());
    stream.replace(vec![], version(20));
    assert!(Watch::after(&stream, 10).is_err());
    assert!(Watch::after(&stream, 20).is_ok());
}

#[test]
fn a_parked_stream_begins_no_watch_and_keeps_those_that_it_has() {
    let stream = stream(vec![object("a", "1", 5)]);
    let watch = Watch::after(&stream, 10).unwrap();
    stream.interrupted(Some(ParkReason::HostForbidden));
    assert!(stream.watch(filter(&[]), &WatchStart::Initial, &[].into()).is_none());
    stream.resumed();
    stream.apply(Event::Deleted(object("a", "1", 12)));
    assert_eq!(watch.take(), ["DELETED a@12"]);
}

#[test]
fn what_the_watcher_deleted_itself_is_not_there_at_the_beginning() {
    let stream = stream(vec![object("a", "1", 5), object("b", "2", 6)]);
    let hidden = [Arc::from("1")].into();
    let (_, watcher) = stream.watch(filter(&[]), &WatchStart::Initial, &hidden).unwrap().unwrap();
    let watch = Watch { watcher, woken: Arc::default() };
    assert_eq!(watch.take(), ["ADDED b@6", "END @10"]);
}

#[test]
fn a_stream_remembers_nothing_for_nobody() {
    let mut followers = Followers::default();
    followers.relisted(vec![], None, &version(10));
    let change = Change { old: None, new: Some(object("a", "1", 11)), initial: false };
    followers.changed(vec![change], Some(&version(10)), &version(11));
    assert!(followers.history().is_none());
    followers.want_history(Some(&version(11)));
    assert!(followers.history().is_some());
}

#[test]
fn a_watch_that_is_over_is_told_nothing_more() {
    let stream = stream(vec![]);
    let (id, watcher) = stream.watch(filter(&["n"]), &WatchStart::Initial, &[].into()).unwrap().unwrap();
    let watch = Watch { watcher, woken: Arc::default() };
    assert_eq!(watch.take(), ["END @10"]);
    stream.unwatch(id);
    stream.apply(Event::Added(object("a", "1", 11)));
    assert!(watch.take().is_empty());
    assert_eq!(watch.woken(), 0);
}
