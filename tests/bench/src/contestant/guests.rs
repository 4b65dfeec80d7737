//! Guests of wasm-operator.

use std::path::{Path, PathBuf};

use harness::ring::{guest, guest_of};
use harness::{Host, Result, component, ensure};

use crate::stage::{Ring, Stage};
use crate::variant::{Components, Sleep};
use crate::{cache, distinct};

/// The name of the guest in this place of the ring.
fn name(index: usize) -> String {
    format!("ring-{index}")
}

/// The guests of a ring.
fn guest_names(ring: &Ring) -> impl Iterator<Item = String> {
    (0..ring.controllers).map(name)
}

/// Writes configuration and rights, and compiles what is not compiled yet.
pub(super) async fn prepare(
    stage: &Stage,
    ring: &Ring,
    sleep: Sleep,
    components: Components,
    launcher: Vec<String>,
) -> Result<Host> {
    let original = component("ring")?;
    let files = match components {
        Components::One => vec![original; ring.controllers],
        Components::Distinct => distinct::write(&original, &cache::distinct(&original)?, ring.controllers)?,
    };
    let guests = guest_names(ring)
        .zip(ring.pairs())
        .zip(&files)
        .map(|((name, (from, to)), file)| guest(&name, from, to).set("sleep", sleep.configuration()).wasm(file));
    let cache = cache::compiled()?;
    let builder = stage.space().host().cache(&cache).launched_by(launcher).watching_everywhere();
    let host = builder.guests(guests).prepare().await?;
    ensure_compiled_apart(&files, &cache)?;
    Ok(host)
}

/// The same for guests that are programs.
pub(super) async fn prepare_programs(stage: &Stage, ring: &Ring, sleep: Sleep, launcher: Vec<String>) -> Result<Host> {
    let guests = guest_names(ring).zip(ring.pairs());
    let guests =
        guests.map(|(name, (from, to))| guest_of("ring-operator", &name, from, to).set("sleep", sleep.configuration()));
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
