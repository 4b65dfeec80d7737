//! Compiles and describes components for commands that only look at them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use wasm_operator_config::GuestSpec;
use wasm_operator_core::description::Description;
use wasm_operator_engine::{
    self as engine, Artifact, CallError, Engine, EngineOptions, GuestLogs, GuestSettings, Interface, LoadError,
    PrepareError, World,
};

/// A component, as far as it can be known without a cluster.
pub(super) struct Component {
    /// SHA-256 in hexadecimal digits.
    pub(super) digest: String,
    /// Of the compiled file.
    pub(super) compiled_bytes: u64,
    pub(super) interface: Interface,
    pub(super) description: Result<Description, CallError>,
}

/// A component cannot be described. The engine's words say who can mend it.
#[derive(Debug, thiserror::Error)]
pub(super) enum ComponentError {
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    #[error(transparent)]
    Load(#[from] LoadError),
}

pub(super) struct Components {
    engine: Engine,
    /// What was looked at: as long as these are here, one guest's file is not evicted for the next one's.
    artifacts: Mutex<Vec<Artifact>>,
}

impl Components {
    pub(super) fn open(cache_directory: PathBuf) -> anyhow::Result<Self> {
        let compiler = vec!["/proc/self/exe".into(), "compile".into()];
        let engine = Engine::new(EngineOptions::new(cache_directory, compiler))?;
        Ok(Self { engine, artifacts: Mutex::default() })
    }

    async fn load(&self, wasm: &Path) -> Result<(Artifact, Loaded), ComponentError> {
        let artifact = self.engine.prepare(wasm).await?;
        self.artifacts.lock().push(artifact.clone());
        let loaded = match artifact.world() {
            World::Controller => Loaded::Controller(self.engine.load(&artifact)?),
            World::Operator => Loaded::Program(self.engine.load_program(&artifact)?),
        };
        Ok((artifact, loaded))
    }

    pub(super) async fn describe(&self, wasm: &Path, settings: &GuestSettings) -> Result<Component, ComponentError> {
        let (artifact, loaded) = match self.load(wasm).await {
            // Another process may have compiled the same component, and put its file in the place of ours.
            Err(ComponentError::Load(error)) if error.is_stale() => self.load(wasm).await?,
            result => result?,
        };
        let (interface, description) = match loaded {
            Loaded::Controller(component) => {
                let description = component.describe(settings, &GuestLogs::discard()).await;
                (component.interface().clone(), description)
            }
            // It is not asked: it says what it watches by watching it.
            Loaded::Program(program) => (program.interface().clone(), Ok(Description::default())),
        };
        Ok(Component { digest: artifact.digest().to_owned(), compiled_bytes: artifact.bytes(), interface, description })
    }
}

enum Loaded {
    Controller(Arc<engine::Component>),
    Program(Arc<engine::Program>),
}

/// The part of a guest's configuration that its description may depend on.
pub(super) fn settings(spec: &GuestSpec) -> GuestSettings {
    GuestSettings {
        name: Arc::from(spec.name.as_str()),
        env: spec.env.iter().map(|variable| (variable.name.clone(), variable.value.clone())).collect(),
        args: spec.args.clone(),
        limits: spec.limits.clone(),
    }
}
