//! The cache of compiled components: hits, damage, races, eviction.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use wasm_operator_core::description::{Controller, Description};
use wasm_operator_core::limits::Limits;
use wasm_operator_core::watch::{Mapping, Parts, Representation, Resource, Watch};
use wasm_operator_engine::{Engine, EngineError, EngineOptions};

use crate::guests::Guest;
use crate::support::{Host, compiler, instance, nothing, request, settings, shell_compiler};

/// An engine on the same cache that cannot compile.
fn without_compiler(host: &Host) -> Engine {
    Engine::new(EngineOptions::new(host.directory.path().join("cache"), shell_compiler("echo no compiler >&2; exit 1")))
        .unwrap()
}

/// Compiles and leaves a line in `log` for each run.
fn counting_compiler(log: &Path) -> Vec<std::ffi::OsString> {
    let command: Vec<_> = compiler().iter().map(|part| format!("'{}'", part.to_str().unwrap())).collect();
    shell_compiler(&format!("echo run >> '{}'; exec {} \"$@\"", log.display(), command.join(" ")))
}

#[tokio::test]
async fn a_compiled_component_is_found_again_by_the_next_process() {
    let host = Host::new();
    let wasm = host.write(&Guest::default().build());
    let first = host.engine.prepare(&wasm).await.unwrap();
    let again = without_compiler(&host).prepare(&wasm).await.unwrap();
    assert_eq!(again, first);
    assert!(first.compile_time().is_some() && again.compile_time().is_none());
    host.engine.load(&first).unwrap();
    assert_eq!(first.digest().len(), 64);
    assert_eq!(first.bytes(), fs::metadata(first.path()).unwrap().len());
}

#[tokio::test]
async fn a_damaged_file_is_compiled_again() {
    let host = Host::new();
    let wasm = host.write(&Guest::default().build());
    let artifact = host.engine.prepare(&wasm).await.unwrap();
    let whole = fs::read(artifact.path()).unwrap();
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    for damaged in [&whole[..whole.len() / 2], b"garbage", b"", &flipped] {
        // As a crash or a full disk would leave it: another file under the name.
        let other = artifact.path().with_extension("other");
        fs::write(&other, damaged).unwrap();
        fs::rename(&other, artifact.path()).unwrap();
        assert!(without_compiler(&host).prepare(&wasm).await.is_err(), "it is not taken for whole");
        let artifact = host.engine.prepare(&wasm).await.unwrap();
        assert_eq!(fs::read(artifact.path()).unwrap(), whole);
        let component = host.engine.load(&artifact).unwrap();
        instance(&component, Limits::default(), nothing()).await.reconcile(&request()).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_file_that_changed_after_it_was_checked_is_not_mapped() {
    let host = Host::new();
    let component = Guest::default().build();
    let artifact = host.prepare(&component).await;
    let other = artifact.path().with_extension("other");
    fs::copy(artifact.path(), &other).unwrap();
    fs::rename(&other, artifact.path()).unwrap();
    assert!(host.engine.load(&artifact).is_err_and(|error| error.is_stale()));
    fs::remove_file(artifact.path()).unwrap();
    assert!(host.engine.load(&artifact).is_err_and(|error| error.is_stale()));
    host.engine.load(&host.prepare(&component).await).unwrap();
}

#[tokio::test]
async fn guests_of_one_component_compile_it_once() {
    let log = tempfile::NamedTempFile::new().unwrap();
    let host = Host::with(|options| options.compiler = counting_compiler(log.path()));
    let files: Vec<PathBuf> = (0..5).map(|_| host.write(&Guest::default().build())).collect();
    let artifacts = futures::future::join_all(files.iter().map(|file| host.engine.prepare(file))).await;
    let paths: Vec<_> = artifacts.into_iter().map(|artifact| artifact.unwrap().path().to_owned()).collect();
    assert!(paths.iter().all(|path| *path == paths[0]), "{paths:?}");
    assert_eq!(fs::read_to_string(log.path()).unwrap().lines().count(), 1);
}

#[tokio::test]
async fn two_hosts_may_share_a_directory() {
    let host = Host::new();
    let other = Engine::new(EngineOptions::new(host.directory.path().join("cache"), compiler())).unwrap();
    let wasm = host.write(&Guest::default().build());
    let (one, two) = tokio::join!(host.engine.prepare(&wasm), other.prepare(&wasm));
    one.unwrap();
    two.unwrap();
    let artifact = host.engine.prepare(&wasm).await.unwrap();
    host.engine.load(&artifact).unwrap();
}

#[test]
fn the_directory_is_the_hosts_own() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("deep/cache");
    let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o777;
    Engine::new(EngineOptions::new(path.clone(), compiler())).unwrap();
    assert_eq!(mode(), 0o700);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
    Engine::new(EngineOptions::new(path.clone(), compiler())).unwrap();
    assert_eq!(mode(), 0o700, "others are shut out again");
}

#[test]
fn a_directory_of_another_user_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    // Root can give its own away; anybody else finds one of root's.
    let path = match chown(directory.path(), Some(12345), None) {
        Ok(()) => directory.path().to_owned(),
        Err(_) => PathBuf::from("/usr"),
    };
    let error = Engine::new(EngineOptions::new(path, compiler())).err().unwrap();
    assert!(matches!(error, EngineError::CacheOwner { .. }), "{error}");
}

#[test]
fn what_a_killed_host_left_behind_is_removed_once_it_is_old() {
    let directory = tempfile::tempdir().unwrap();
    let old = directory.path().join(".scratch-old");
    let young = directory.path().join(".scratch-young");
    for path in [&old, &young] {
        fs::create_dir(path).unwrap();
        fs::write(path.join("component.cwasm"), "half").unwrap();
    }
    let two_hours_ago = SystemTime::now() - Duration::from_secs(7200);
    fs::File::open(&old).unwrap().set_modified(two_hours_ago).unwrap();
    Engine::new(EngineOptions::new(directory.path().to_owned(), compiler())).unwrap();
    assert!(!old.exists() && young.exists());
}

#[tokio::test]
async fn a_failed_compilation_leaves_nothing_behind() {
    let host = Host::with(|options| options.compiler = shell_compiler("echo half > $2; exit 1"));
    host.engine.prepare(&host.write(&Guest::default().build())).await.unwrap_err();
    assert_eq!(fs::read_dir(host.directory.path().join("cache")).unwrap().count(), 0);
}

#[tokio::test]
async fn what_no_guest_uses_is_evicted_and_runs_on_where_it_is_loaded() {
    let host = Host::with(|options| options.cache_bytes = 1);
    let one = host.prepare(&Guest::default().build()).await;
    let path = one.path().to_owned();
    let component = host.engine.load(&one).unwrap();
    drop(one);
    let two = host.prepare(&Guest { pages: 2, ..Guest::default() }.build()).await;
    assert!(!path.exists() && two.path().exists());
    instance(&component, Limits::default(), nothing()).await.reconcile(&request()).await.unwrap().unwrap();
}

#[tokio::test]
async fn what_guests_use_stays_even_if_it_alone_is_too_much() {
    let host = Host::with(|options| options.cache_bytes = 1);
    let settings = settings(Limits::default());
    let mut used = Vec::new();
    for pages in 1..5 {
        let artifact = host.prepare(&Guest { pages, ..Guest::default() }.build()).await;
        host.engine.store_description(&artifact, &settings, &description()).unwrap();
        used.push(artifact);
    }
    for artifact in &used {
        host.engine.load(artifact).unwrap();
        assert!(host.engine.cached_description(artifact, &settings).is_some());
    }
}

#[tokio::test]
async fn nothing_is_evicted_while_guests_are_still_being_prepared() {
    let host = Host::new();
    let path = host.prepare(&Guest::default().build()).await.path().to_owned();

    let (slow, go) = (host.directory.path().join("slow.wasm"), host.directory.path().join("go"));
    fs::write(&slow, Guest { pages: 2, ..Guest::default() }.build()).unwrap();
    let command: Vec<_> = compiler().iter().map(|part| format!("'{}'", part.to_str().unwrap())).collect();
    let script = format!(
        "case $1 in */slow.wasm) while [ ! -e '{}' ]; do :; done;; esac; exec {} \"$@\"",
        go.display(),
        command.join(" ")
    );
    let mut options = EngineOptions::new(host.directory.path().join("cache"), shell_compiler(&script));
    (options.cache_bytes, options.compile.at_once) = (1, 2);
    let engine = Engine::new(options).unwrap();
    let last = tokio::spawn({
        let engine = engine.clone();
        async move { engine.prepare(&slow).await }
    });
    // Begun, and waiting for its compiler.
    while host.directory.path().join("cache").read_dir().unwrap().count() < 2 {
        tokio::task::yield_now().await;
    }
    let wasm = host.write(&Guest { pages: 3, ..Guest::default() }.build());
    let other = engine.prepare(&wasm).await.unwrap();
    assert!(path.exists(), "a guest that comes after this one may need it");

    fs::write(go, "").unwrap();
    let last = last.await.unwrap().unwrap();
    assert!(!path.exists() && last.path().exists() && other.path().exists());
}

fn description() -> Description {
    let of =
        Resource { group: String::new(), version: "v1".into(), kind: "ConfigMap".into(), plural: "configmaps".into() };
    let primary = Watch {
        of,
        namespaces: vec![],
        label_selector: String::new(),
        field_selector: String::new(),
        representation: Representation::Metadata,
        mapping: Mapping::Object,
        changed: Parts::default(),
        having: vec![],
    };
    Description { controllers: vec![Controller { name: "one".into(), primary, watches: vec![] }], permissions: vec![] }
}

#[tokio::test]
async fn a_description_is_kept_for_exactly_its_environment_and_arguments() {
    let host = Host::new();
    let artifact = host.prepare(&Guest::default().build()).await;
    let with = |env: &[(&str, &str)], args: &[&str]| {
        let mut settings = settings(Limits::default());
        settings.env = env.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        settings.args = args.iter().map(|argument| (*argument).into()).collect();
        settings
    };
    let settings = with(&[("A", "B")], &["c"]);
    assert_eq!(host.engine.cached_description(&artifact, &settings), None);
    host.engine.store_description(&artifact, &settings, &description()).unwrap();
    assert_eq!(without_compiler(&host).cached_description(&artifact, &settings), Some(description()));
    for other in [
        with(&[("A", "C")], &["c"]),
        with(&[("A", "B")], &[]),
        with(&[("AB", "")], &["c"]),
        with(&[], &["A", "B", "c"]),
    ] {
        assert_eq!(host.engine.cached_description(&artifact, &other), None, "{other:?}");
    }
    let other = host.prepare(&Guest { pages: 2, ..Guest::default() }.build()).await;
    assert_eq!(host.engine.cached_description(&other, &settings), None);
}

#[tokio::test]
async fn a_damaged_description_is_as_good_as_none() {
    let host = Host::new();
    let artifact = host.prepare(&Guest::default().build()).await;
    let settings = settings(Limits::default());
    host.engine.store_description(&artifact, &settings, &description()).unwrap();
    let entries = fs::read_dir(host.directory.path().join("cache")).unwrap().map(|entry| entry.unwrap().path());
    let file = entries.into_iter().find(|path| path.extension().is_some_and(|extension| extension == "json")).unwrap();
    fs::write(file, "{\"controllers\":").unwrap();
    assert_eq!(host.engine.cached_description(&artifact, &settings), None);
}
