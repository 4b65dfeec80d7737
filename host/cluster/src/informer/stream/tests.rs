use parking_lot::Mutex;
use wasm_operator_core::watch::{Representation, Resource};

use super::super::Scope;
use super::*;

fn resource() -> Resource {
    Resource { group: String::new(), version: "v1".into(), kind: "X".into(), plural: "xs".into() }
}

fn stream() -> Stream {
    let source = Source {
        resource: resource(),
        namespace: None,
        label_selector: String::new(),
        field_selector: String::new(),
        representation: Representation::Full,
        private_to: None,
    };
    Stream::new(source, Metrics::default())
}

fn object(name: &str, uid: &str, version: u32) -> Arc<Object> {
    labelled(name, uid, version, "")
}

fn labelled(name: &str, uid: &str, version: u32, app: &str) -> Arc<Object> {
    let json = format!(
        r#"{{"metadata":{{"name":"{name}","namespace":"n","uid":"{uid}","resourceVersion":"{version}","labels":{{"app":"{app}"}}}}}}"#
    );
    Arc::new(Object::parse(json.as_bytes(), &resource()).unwrap())
}

fn version(number: u32) -> ResourceVersion {
    ResourceVersion::new(&number.to_string())
}

fn selecting(label_selector: &str) -> Arc<Filter> {
    let scope = Scope {
        resource: resource(),
        namespaces: vec![],
        label_selector: label_selector.into(),
        field_selector: String::new(),
        representation: Representation::Full,
    };
    Arc::new(Filter::new(&scope).unwrap())
}

#[derive(Default)]
struct Recorder(Mutex<Vec<String>>);

impl Recorder {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock())
    }
}

impl Subscriber for Recorder {
    fn changed(&self, change: &Change) {
        let sign = match (&change.old, &change.new) {
            (None, _) if change.initial => '*',
            (None, _) => '+',
            (_, None) => '-',
            _ => '~',
        };
        self.0.lock().push(format!("{sign}{}", change.latest().unwrap().metadata.name));
    }

    fn state(&self, state: &SubscriptionState) {
        self.0.lock().push(format!("{state:?}").split([' ', '{']).next().unwrap().to_owned());
    }

    fn history_lost(&self) {
        self.0.lock().push("history lost".to_owned());
    }
}

fn attach(stream: &Stream, known: &[Arc<Object>]) -> (u64, Arc<Recorder>) {
    let recorder = Arc::new(Recorder::default());
    let known = known.iter().map(|object| (object.object_ref(), object.clone())).collect();
    (stream.attach(selecting(""), recorder.clone(), known), recorder)
}

#[test]
fn bookmarks_and_relists_and_resumes_without_change_are_not_heard() {
    let stream = stream();
    let (_, heard) = attach(&stream, &[]);
    stream.replace(vec![object("a", "1", 1)], version(1));
    assert_eq!(heard.take(), ["Syncing", "*a", "Synced"]);
    stream.apply(Event::Bookmark { version: version(5), initial_end: false });
    stream.replace(vec![object("a", "1", 1)], version(7));
    stream.resumed();
    assert_eq!(heard.take(), Vec::<String>::new());
}

#[test]
fn a_position_is_that_of_the_last_event_or_bookmark() {
    let stream = stream();
    let position = || {
        let mut at = None;
        stream.read(|store, _| at = store.position().cloned());
        at
    };
    stream.replace(vec![object("a", "1", 1)], version(3));
    assert_eq!(position(), Some(version(3)));
    stream.apply(Event::Modified(object("a", "1", 4)));
    stream.apply(Event::Bookmark { version: version(9), initial_end: false });
    assert_eq!(position(), Some(version(9)));
    stream.apply(Event::Deleted(object("a", "1", 10)));
    assert_eq!(position(), Some(version(10)));
}

#[test]
fn a_late_subscriber_hears_of_what_is_there() {
    let stream = stream();
    stream.replace(vec![object("a", "1", 1)], version(1));
    stream.apply(Event::Added(object("b", "2", 2)));
    assert_eq!(attach(&stream, &[]).1.take(), ["*a", "*b", "Synced"]);
}

#[test]
fn whoever_comes_back_hears_of_what_vanished_meanwhile() {
    let stream = stream();
    stream.replace(vec![object("kept", "1", 1), object("lost", "2", 1), object("again", "3", 1)], version(1));
    let (id, _) = attach(&stream, &[]);
    let known: Vec<_> = stream.detach(id).into_values().collect();
    assert_eq!(known.len(), 3);
    stream.apply(Event::Deleted(object("lost", "2", 4)));
    stream.apply(Event::Deleted(object("again", "3", 5)));
    stream.apply(Event::Added(object("again", "4", 6)));
    assert_eq!(attach(&stream, &known).1.take(), ["-again", "-lost", "*again", "*kept", "Synced"]);
}

#[test]
fn whoever_comes_from_another_stream_hears_of_what_vanished_when_the_list_is_complete() {
    let stream = stream();
    let (_, heard) = attach(&stream, &[object("kept", "1", 1), object("lost", "2", 1)]);
    stream.interrupted(Some(ParkReason::HostForbidden));
    assert_eq!(heard.take(), ["Syncing", "Parked"]);
    stream.replace(vec![object("kept", "1", 1)], version(8));
    assert_eq!(heard.take(), ["-lost", "*kept", "Synced"]);
    stream.apply(Event::Modified(object("kept", "1", 9)));
    assert_eq!(heard.take(), ["~kept"]);
}

#[test]
fn what_is_not_confirmed_yet_is_still_known_after_another_move() {
    let stream = stream();
    let (id, _) = attach(&stream, &[object("a", "1", 1)]);
    assert_eq!(stream.detach(id).len(), 1);
}

#[test]
fn leaving_a_selector_is_a_deletion_with_the_object_as_it_was() {
    let stream = stream();
    stream.replace(vec![labelled("a", "1", 1, "web")], version(1));
    let recorder = Arc::new(Recorder::default());
    stream.attach(selecting("app=web"), recorder.clone(), Known::new());
    stream.apply(Event::Modified(labelled("a", "1", 2, "db")));
    stream.apply(Event::Modified(labelled("a", "1", 3, "db")));
    stream.apply(Event::Modified(labelled("a", "1", 4, "web")));
    assert_eq!(recorder.take(), ["*a", "Synced", "-a", "+a"]);
}

#[test]
fn an_older_history_is_announced_before_what_it_holds() {
    let stream = stream();
    let (_, heard) = attach(&stream, &[]);
    stream.replace(vec![object("a", "1", 50), object("b", "2", 60)], version(60));
    heard.take();
    stream.replace(vec![object("a", "1", 20)], version(30));
    assert_eq!(heard.take(), ["history lost", "-b", "~a"]);
}

#[test]
fn a_kind_that_is_gone_takes_its_objects_along_and_new_ones_are_additions() {
    let stream = stream();
    let (_, heard) = attach(&stream, &[]);
    stream.replace(vec![object("a", "1", 1)], version(1));
    heard.take();
    stream.gone();
    assert_eq!(heard.take(), ["-a", "Parked"]);
    stream.replace(vec![object("a", "2", 9)], version(9));
    assert_eq!(heard.take(), ["+a", "Synced"]);
}

#[test]
fn an_interruption_is_told_and_forgets_nothing() {
    let stream = stream();
    let (_, heard) = attach(&stream, &[]);
    stream.interrupted(None);
    stream.replace(vec![object("a", "1", 1)], version(1));
    stream.interrupted(None);
    stream.interrupted(Some(ParkReason::HostForbidden));
    stream.resumed();
    assert_eq!(heard.take(), ["Syncing", "*a", "Synced", "Restarting", "Parked", "Synced"]);
}

#[test]
fn a_parked_stream_is_no_basis_for_answers() {
    let stream = stream();
    let is_current = || {
        let mut current = false;
        stream.read(|_, state| current = state.is_basis());
        current
    };
    assert!(!is_current());
    stream.replace(vec![], version(1));
    assert!(is_current());
    stream.interrupted(Some(ParkReason::HostForbidden));
    assert!(!is_current());
}

#[test]
fn whoever_waits_for_a_position_is_woken_by_what_comes() {
    let stream = stream();
    stream.replace(vec![], version(1));
    let mut moved = stream.moved();
    moved.mark_unchanged();
    stream.apply(Event::Bookmark { version: version(2), initial_end: false });
    assert!(moved.has_changed().unwrap());
}

#[test]
fn metrics_follow_the_objects_until_the_stream_ends() {
    let metrics = Metrics::default();
    let label = ResourceLabel { resource: "xs".into() };
    let stream = Stream::new(stream().source.clone(), metrics.clone());
    stream.replace(vec![object("a", "1", 1), object("b", "2", 1)], version(1));
    stream.apply(Event::Deleted(object("a", "1", 2)));
    assert_eq!(metrics.cache_objects.get_or_create(&label).get(), 1);
    let bytes = i64::try_from(object("b", "2", 1).json.len()).unwrap();
    assert_eq!(metrics.cache_bytes.get_or_create(&label).get(), bytes);
    drop(stream);
    assert_eq!(metrics.cache_objects.get_or_create(&label).get(), 0);
    assert_eq!(metrics.cache_bytes.get_or_create(&label).get(), 0);
    assert_eq!(metrics.watch_streams.get_or_create(&label).get(), 0);
}
