use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::*;

/// Longer than any wait inside; it only ends a test that fails.
const PATIENCE: Duration = Duration::from_secs(20);

async fn changes(reload: &mut Reload) -> bool {
    tokio::time::timeout(PATIENCE, reload.changed()).await.is_ok()
}

fn watch(reload: &mut Reload, file: &Path) {
    reload.watch([file.to_path_buf()]);
}

/// A watch whose first report, which is about the watching itself, is done with.
async fn watching(file: &Path) -> Reload {
    let mut reload = Reload::new();
    watch(&mut reload, file);
    assert!(changes(&mut reload).await, "what is newly watched may have changed before");
    assert!(!reload.is_polling(), "this test needs inotify");
    reload
}

#[tokio::test]
async fn a_file_replaced_by_renaming_is_noticed() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("c.yaml");
    fs::write(&file, "1").unwrap();
    let mut reload = watching(&file).await;
    for round in 0..3 {
        fs::write(directory.path().join(".c.yaml.swp"), round.to_string()).unwrap();
        fs::rename(directory.path().join(".c.yaml.swp"), &file).unwrap();
        assert!(changes(&mut reload).await, "{round}");
        watch(&mut reload, &file);
    }
}

#[tokio::test]
async fn a_config_map_volume_is_noticed() {
    let volume = tempfile::tempdir().unwrap();
    let at = |name: &str| volume.path().join(name);
    fs::create_dir(at("..1")).unwrap();
    fs::write(at("..1/c.yaml"), "1").unwrap();
    symlink("..1", at("..data")).unwrap();
    symlink("..data/c.yaml", at("c.yaml")).unwrap();
    let mut reload = watching(&at("c.yaml")).await;
    for round in 2..5 {
        fs::create_dir(at(&format!("..{round}"))).unwrap();
        fs::write(at(&format!("..{round}/c.yaml")), "2").unwrap();
        symlink(format!("..{round}"), at("..data_tmp")).unwrap();
        fs::rename(at("..data_tmp"), at("..data")).unwrap();
        fs::remove_dir_all(at(&format!("..{}", round - 1))).unwrap();
        assert!(changes(&mut reload).await, "{round}");
        assert_eq!(fs::read_to_string(at("c.yaml")).unwrap(), "2");
        watch(&mut reload, &at("c.yaml"));
    }
}

#[tokio::test]
async fn a_file_behind_a_link_is_noticed_where_it_is() {
    let here = tempfile::tempdir().unwrap();
    let there = tempfile::tempdir().unwrap();
    let (link, target) = (here.path().join("ring.wasm"), there.path().join("ring.wasm"));
    fs::write(&target, "1").unwrap();
    symlink(&target, &link).unwrap();
    let mut reload = watching(&link).await;
    fs::write(&target, "2").unwrap();
    assert!(changes(&mut reload).await);
}

#[tokio::test]
async fn a_directory_made_anew_is_noticed() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("target/release/ring.wasm");
    let build = || {
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, "1").unwrap();
    };
    let mut reload = watching(&file).await;
    build();
    // As the kernel reports it: first a part of the path, and more once that is watched.
    for _ in 0..2 {
        assert!(changes(&mut reload).await);
        watch(&mut reload, &file);
    }
    fs::remove_dir_all(root.path().join("target")).unwrap();
    assert!(changes(&mut reload).await);
    watch(&mut reload, &file);
    build();
    assert!(changes(&mut reload).await);
}

#[tokio::test]
async fn a_dropped_wait_loses_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("c.yaml");
    let mut reload = Reload::new();
    watch(&mut reload, &file);
    {
        // It has taken the change and waits for quiet.
        let waiting = std::pin::pin!(reload.changed());
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(waiting.poll(&mut context).is_pending());
    }
    assert!(changes(&mut reload).await);
}

#[tokio::test]
async fn without_notifications_files_are_looked_at() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("c.yaml");
    let mut reload = Reload { source: Source::Polling(Poller::default()), pending: None };
    watch(&mut reload, &file);
    assert!(changes(&mut reload).await);
    tokio::time::pause();
    let before = Instant::now();
    let (seen, ()) = tokio::join!(changes(&mut reload), async {
        tokio::time::sleep(POLL_INTERVAL / 2).await;
        fs::write(&file, "1").unwrap();
    });
    assert!(seen && before.elapsed() <= POLL_INTERVAL + MAX_WAIT);
}

mod filter {
    use notify::Event;
    use notify::event::{AccessKind, AccessMode, CreateKind, EventKind, Flag, ModifyKind};

    use super::super::notifier::concerns;
    use super::super::walk::Interests;

    fn event(kind: EventKind, path: &str) -> bool {
        let interests = Interests::from([("/d".into(), ["c.yaml".into()].into())]);
        concerns(&Event::new(kind).add_path(path.into()), &interests)
    }

    #[test]
    fn other_files_of_the_directory_do_not_matter() {
        let create = EventKind::Create(CreateKind::File);
        assert!(event(create, "/d/c.yaml"));
        assert!(event(create, "/d"));
        assert!(!event(create, "/d/c.yaml~"));
        assert!(!event(create, "/d/sub/c.yaml"));
        assert!(!event(create, "/"));
    }

    #[test]
    fn reading_is_no_change() {
        for kind in [AccessKind::Open(AccessMode::Any), AccessKind::Read, AccessKind::Close(AccessMode::Read)] {
            assert!(!event(EventKind::Access(kind), "/d/c.yaml"), "{kind:?}");
        }
        assert!(event(EventKind::Access(AccessKind::Close(AccessMode::Write)), "/d/c.yaml"));
        assert!(event(EventKind::Modify(ModifyKind::Any), "/d/c.yaml"));
    }

    #[test]
    fn lost_events_count_as_a_change() {
        assert!(concerns(&Event::new(EventKind::Other).set_flag(Flag::Rescan), &Interests::new()));
    }
}

mod paths {
    use super::super::walk::interests;
    use super::*;

    #[test]
    fn a_loop_of_links_ends() {
        let directory = tempfile::tempdir().unwrap();
        symlink("b", directory.path().join("a")).unwrap();
        symlink("a", directory.path().join("b")).unwrap();
        let found = interests(&[directory.path().join("a/x")]);
        assert_eq!(found.get(directory.path()).map(|names| names.len()), Some(2));
    }

    #[test]
    fn links_with_parents_are_followed() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::create_dir_all(at("x/y")).unwrap();
        symlink("../z.wasm", at("x/y/link")).unwrap();
        fs::write(at("x/z.wasm"), "").unwrap();
        let found = interests(&[at("x/y/link")]);
        assert!(found[&at("x")].contains(std::ffi::OsStr::new("z.wasm")), "{found:?}");
        assert!(found[&at("x/y")].contains(std::ffi::OsStr::new("link")), "{found:?}");
    }
}
