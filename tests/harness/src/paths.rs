//! Where the programs under test are.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::{Context as _, Result, ensure};

/// Environment variable with the path of the host binary.
const HOST_VARIABLE: &str = "WASM_OPERATOR_HOST";
/// Environment variable with the directory of the components.
const COMPONENTS_VARIABLE: &str = "WASM_OPERATOR_COMPONENTS";

/// The `target` directory that the running test was built in: three levels above `<triple>/<profile>/deps/<test>`.
pub fn target() -> Result<PathBuf> {
    let test = std::env::current_exe().context("the path of the running test")?;
    let profile =
        test.ancestors().find(|path| path.file_name().is_some_and(|name| name == "release" || name == "debug"));
    let target =
        profile.and_then(|path| path.ancestors().nth(2)).context("the test does not lie in a target directory")?;
    Ok(target.to_owned())
}

/// The host binary: static, release profile, what is shipped.
pub fn program() -> Result<PathBuf> {
    let path = match std::env::var_os(HOST_VARIABLE) {
        Some(path) => path.into(),
        None => target()?.join("x86_64-unknown-linux-musl/release/wasm-operator"),
    };
    ensure!(
        path.is_file(),
        "`{}` does not exist; build it with `cargo build --release -p wasm-operator` or set `{HOST_VARIABLE}`",
        path.display()
    );
    Ok(path)
}

/// The component of a guest, by the name of its package (`ring`), of its program in `tests/misbehaving` (`probe`) or of its folder in `guests` when it is
/// written in another language (`ring-python`).
pub fn component(name: &str) -> Result<PathBuf> {
    let directory = match std::env::var_os(COMPONENTS_VARIABLE) {
        Some(path) => path.into(),
        None => target()?.join("wasm32-wasip2/guest"),
    };
    let places = [directory.join("examples"), directory.clone(), directory.join("../../guests")];
    let found = places.into_iter().map(|place| place.join(format!("{name}.wasm"))).find(|path| path.is_file());
    found.with_context(|| {
        format!("no component `{name}` in `{}`; build it with `cargo build --profile guest --target wasm32-wasip2` or set `{COMPONENTS_VARIABLE}`", directory.display())
    })
}

/// The folder of this run for logs and compiled components. It stays, for whoever wants to know why a test failed; the next run removes it.
pub fn logs_directory() -> Result<&'static Path> {
    static DIRECTORY: OnceLock<std::result::Result<PathBuf, String>> = OnceLock::new();
    let made = DIRECTORY.get_or_init(|| make_logs_directory().map_err(|error| format!("{error:#}")));
    made.as_deref().map_err(|error| anyhow::anyhow!("{error}"))
}

fn make_logs_directory() -> Result<PathBuf> {
    let parent = target()?.join("e2e-logs");
    std::fs::create_dir_all(&parent)?;
    for entry in std::fs::read_dir(&parent)?.flatten() {
        let alive = entry.file_name().to_str().is_some_and(|pid| Path::new("/proc").join(pid).exists());
        if !alive {
            // Another run may be removing it as well.
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
    let directory = parent.join(std::process::id().to_string());
    std::fs::create_dir_all(directory.join("cache"))?;
    Ok(directory)
}
