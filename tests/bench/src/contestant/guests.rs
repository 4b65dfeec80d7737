//! Guests of wasm-operator.

use std::path::{Path, PathBuf};

use harness::ring::{guest_of, with_ballast};
use harness::{Guest, Host, Result, component, ensure};

use crate::stage::{Course, Stage};
use crate::variant::{Components, Sleep};
use crate::{cache, distinct};

/// The name of the guest in this place of the ring.
fn name(index: usize) -> String {
    format!("ring-{index}")
}

/// The guests of a ring.
fn guest_names(course: &Course) -> impl Iterator<Item = String> {
    (0..course.controllers).map(name)
}

/// Writes configuration and rights, and compiles what is not compiled yet.
pub(super) async fn prepare(
    stage: &Stage,
    course: &Course,
    sleep: Sleep,
    components: Components,
    launcher: Vec<String>,
) -> Result<Host> {
    let original = component("ring")?;
    let files = match components {
        Components::One => vec![original; course.controllers],
        Components::Distinct => distinct::write(&original, &cache::distinct(&original)?, course.controllers)?,
    };
    let guests = guests(course, "ring", sleep).zip(&files).map(|(guest, file)| guest.wasm(file));
    let host = host(stage, guests, launcher).await?;
    ensure_compiled_apart(&files, &cache::compiled()?)?;
    Ok(host)
}

/// The same for guests that are programs.
pub(super) async fn prepare_programs(
    stage: &Stage,
    course: &Course,
    sleep: Sleep,
    launcher: Vec<String>,
) -> Result<Host> {
    host(stage, guests(course, "ring-operator", sleep), launcher).await
}

/// The guests of a ring, which all run this component.
fn guests(course: &Course, program: &str, sleep: Sleep) -> impl Iterator<Item = Guest> {
    guest_names(course).zip(course.pairs()).map(move |(name, (from, to))| {
        let guest = guest_of(program, &name, from, to).set("sleep", sleep.configuration());
        with_ballast(guest, course.heap_bytes)
    })
}

async fn host(stage: &Stage, guests: impl IntoIterator<Item = Guest>, launcher: Vec<String>) -> Result<Host> {
    let builder = stage.space().host().cache(&cache::compiled()?).launched_by(launcher).watching_everywhere();
    builder.guests(guests).prepare().await
}

/// Each different component must have a compiled file of its own, or something would be shared that must not be.
fn ensure_compiled_apart(files: &[PathBuf], cache: &Path) -> Result<()> {
    let mut digests = files.iter().map(|file| distinct::digest(file)).collect::<Result<Vec<_>>>()?;
    digests.sort();
    digests.dedup();
    let compiled: Vec<String> =
        std::fs::read_dir(cache)?.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    for digest in &digests {
        let own = compiled.iter().any(|name| name.starts_with(digest.as_str()) && name.ends_with(".cwasm"));
        ensure!(own, "`{}` holds no compiled file of the component with digest {digest}", cache.display());
    }
    Ok(())
}
