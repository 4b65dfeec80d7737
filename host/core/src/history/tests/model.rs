//! Watchers against a cluster, an informer that is cut off and lists again, and watchers that read when they like.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

/// What the API server has, and all that ever happened.
#[derive(Default)]
struct Cluster {
    objects: BTreeMap<&'static str, Arc<Object>>,
    happened: Vec<Entry>,
    version: u64,
}

impl Cluster {
    fn put(&mut self, name: &'static str, label: &str) {
        self.version += 1;
        let old = self.objects.get(name).cloned();
        let uid = old.as_ref().map_or_else(|| self.version.to_string(), |old| old.metadata.uid.to_string());
        let new = labelled(name, &uid, self.version, label);
        self.objects.insert(name, new.clone());
        self.happened.push(entry(self.version, old, Some(new)));
    }

    fn delete(&mut self, name: &'static str) {
        if let Some(old) = self.objects.remove(name) {
            self.version += 1;
            self.happened.push(entry(self.version, Some(old), None));
        }
    }

    fn since(&self, position: u64) -> Vec<Entry> {
        self.happened.iter().filter(|entry| number(&entry.version) > position).cloned().collect()
    }
}

fn number(version: &ResourceVersion) -> u64 {
    version.as_str().parse().unwrap()
}

/// A stream: its objects, its position, and what it remembers.
struct Informer {
    objects: BTreeMap<&'static str, Arc<Object>>,
    position: u64,
    history: History,
    relisted: bool,
}

/// What a client of a watch knows.
struct Watcher {
    selects: fn(&Object) -> bool,
    copy: BTreeMap<Arc<str>, Arc<Object>>,
    /// The version to resume from; 0: it begins anew.
    version: u64,
    backlog: Option<Backlog>,
}

impl Watcher {
    fn new(selects: fn(&Object) -> bool) -> Self {
        Self { selects, copy: BTreeMap::new(), version: 0, backlog: None }
    }

    fn connect(&mut self, informer: &Informer) {
        let selects = self.selects;
        if self.version > 0 {
            let from = version(self.version);
            if let Ok(missed) = informer.history.since(&from) {
                let mut backlog = Backlog::after(from.clone());
                missed.filter_map(|entry| entry.narrow(selects)).for_each(|entry| backlog.push(&entry));
                self.backlog = Some(backlog);
                return;
            }
            assert!(informer.relisted, "{from} is too old");
        }
        let objects = informer.objects.values().filter(|object| selects(object)).cloned().collect();
        self.copy.clear();
        self.version = 0;
        self.backlog = Some(Backlog::starting_with(objects, version(informer.position)));
    }

    /// A list from the API server itself, which may be ahead of the informer.
    fn list(&mut self, cluster: &Cluster) {
        self.copy = cluster
            .objects
            .values()
            .filter(|object| (self.selects)(object))
            .map(|object| (object.metadata.name.clone(), object.clone()))
            .collect();
        self.version = cluster.version;
        self.backlog = None;
    }

    fn read(&mut self, most: usize) {
        let Some(backlog) = &mut self.backlog else { return };
        for _ in 0..most {
            match backlog.take() {
                None => break,
                Some(Item::InitialEnd(version)) => self.version = number(&version),
                Some(Item::Event(WatchEvent { r#type, object, version })) => {
                    let version = number(&version);
                    // Before the end of the initial events a client cannot resume.
                    if self.version > 0 {
                        assert!(version >= self.version, "versions went back from {} to {version}", self.version);
                        self.version = version;
                    }
                    assert!(r#type == EventType::Deleted || (self.selects)(&object));
                    match r#type {
                        EventType::Deleted => self.copy.remove(&object.metadata.name),
                        _ => self.copy.insert(object.metadata.name.clone(), object),
                    };
                }
            }
        }
        assert!(backlog.len() <= 3 * NAMES.len() + 1, "{backlog:?}");
    }
}

struct World {
    cluster: Cluster,
    informer: Informer,
    watchers: Vec<Watcher>,
}

#[derive(Debug, Clone)]
enum Step {
    Put(usize, bool),
    Delete(usize),
    /// The informer reads so many events.
    Follow(usize),
    /// The informer lists again.
    Relist,
    /// A bookmark reaches a watcher.
    Bookmark(usize),
    Read(usize, usize),
    /// A watcher's connection ends, with all that was on its way.
    Disconnect(usize),
    Connect(usize),
    /// A watcher lists from the API server.
    List(usize),
}

impl World {
    fn new() -> Self {
        let informer =
            Informer { objects: BTreeMap::new(), position: 1, history: History::new(version(1)), relisted: false };
        let cluster = Cluster { version: 1, ..Cluster::default() };
        let watchers = vec![Watcher::new(|_| true), Watcher::new(is_in), Watcher::new(|object| !is_in(object))];
        Self { cluster, informer, watchers }
    }

    fn show(&mut self, entries: &[Entry]) {
        for entry in entries {
            for watcher in &mut self.watchers {
                if let (Some(backlog), Some(entry)) = (&mut watcher.backlog, entry.narrow(watcher.selects)) {
                    backlog.push(&entry);
                }
            }
        }
    }

    fn follow(&mut self, most: usize) {
        let entries: Vec<_> = self.cluster.since(self.informer.position).into_iter().take(most).collect();
        for entry in &entries {
            let name = NAMES.into_iter().find(|name| entry_name(entry) == *name).unwrap();
            match &entry.new {
                Some(new) => self.informer.objects.insert(name, new.clone()),
                None => self.informer.objects.remove(name),
            };
            self.informer.position = number(&entry.version);
        }
        self.show(&entries);
        entries.into_iter().for_each(|entry| self.informer.history.push(entry));
    }

    fn relist(&mut self) {
        let mut changes = Vec::new();
        for name in NAMES {
            match (self.informer.objects.get(name).cloned(), self.cluster.objects.get(name).cloned()) {
                (Some(old), Some(new)) if old.metadata.uid != new.metadata.uid => {
                    changes.extend([change(Some(old), None), change(None, Some(new))]);
                }
                (Some(old), Some(new)) if old == new => {}
                (None, None) => {}
                (old, new) => changes.push(change(old, new)),
            }
        }
        let (from, to) = (version(self.informer.position), version(self.cluster.version));
        let entries = inferred(changes, &from, &to).unwrap();
        self.informer.objects = self.cluster.objects.clone();
        self.informer.position = self.cluster.version;
        self.informer.relisted = true;
        let gap = Gap { from, to };
        for watcher in &mut self.watchers {
            // Its watch ends with 410, and it begins anew.
            if watcher.backlog.as_ref().is_some_and(|backlog| backlog.is_within(&gap)) {
                *watcher = Watcher::new(watcher.selects);
            }
        }
        self.show(&entries);
        self.informer.history.relisted(entries, gap);
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Put(name, label) => self.cluster.put(NAMES[name], if label { "in" } else { "out" }),
            Step::Delete(name) => self.cluster.delete(NAMES[name]),
            Step::Follow(most) => self.follow(most),
            Step::Relist => self.relist(),
            Step::Bookmark(watcher) => {
                let Watcher { backlog, version: known, .. } = &mut self.watchers[watcher];
                if let Some(told) = backlog.as_mut().and_then(|b| b.bookmark(&version(self.informer.position))) {
                    assert!(number(&told) > *known);
                    *known = number(&told);
                }
            }
            Step::Read(watcher, most) => self.watchers[watcher].read(most),
            Step::Disconnect(watcher) => self.watchers[watcher].backlog = None,
            Step::Connect(watcher) => self.watchers[watcher].connect(&self.informer),
            Step::List(watcher) => self.watchers[watcher].list(&self.cluster),
        }
    }

    /// Everybody catches up; then everybody knows what there is.
    fn settle(&mut self) {
        self.follow(usize::MAX);
        for watcher in &mut self.watchers {
            if watcher.backlog.is_none() {
                watcher.connect(&self.informer);
            }
            watcher.read(usize::MAX);
            let there: BTreeMap<Arc<str>, Arc<Object>> = self
                .cluster
                .objects
                .values()
                .filter(|object| (watcher.selects)(object))
                .map(|object| (object.metadata.name.clone(), object.clone()))
                .collect();
            assert_eq!(watcher.copy, there);
        }
    }
}

fn entry_name(entry: &Entry) -> &str {
    &entry.new.as_ref().or(entry.old.as_ref()).unwrap().metadata.name
}

fn step() -> impl Strategy<Value = Step> {
    let (name, watcher) = (0..NAMES.len(), 0..3_usize);
    prop_oneof![
        6 => (name.clone(), any::<bool>()).prop_map(|(name, label)| Step::Put(name, label)),
        3 => name.prop_map(Step::Delete),
        6 => (1..6_usize).prop_map(Step::Follow),
        1 => Just(Step::Relist),
        1 => watcher.clone().prop_map(Step::Bookmark),
        6 => (watcher.clone(), 1..4_usize).prop_map(|(watcher, most)| Step::Read(watcher, most)),
        1 => watcher.clone().prop_map(Step::Disconnect),
        2 => watcher.clone().prop_map(Step::Connect),
        1 => watcher.prop_map(Step::List),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn a_watcher_ends_with_what_there_is_whatever_happened_on_the_way(
        steps in proptest::collection::vec(step(), 0..150)
    ) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
        }
        world.settle();
    }
}
