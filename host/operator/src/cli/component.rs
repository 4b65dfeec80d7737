//! Compiles and describes components for commands that only look at them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::future;
use wasm_operator_config::GuestSpec;
use wasm_operator_core::description::Description;
use wasm_operator_engine::{
    self as engine, Artifact, CallError, Engine, GuestLogs, GuestSettings, Interface, LoadError, PrepareError, World,
};

use super::CacheArgs;
use crate::revision::settings;

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

pub(super) struct Components(Engine);

impl Components {
    pub(super) fn open(cache: &CacheArgs) -> anyhow::Result<Self> {
        Ok(Self(Engine::new(cache.engine_options()?)?))
    }

    pub(super) async fn describe(&self, wasm: &Path, settings: &GuestSettings) -> Result<Component, ComponentError> {
        self.describe_prepared(self.0.prepare(wasm).await?, wasm, settings).await
    }

    /// The components of these guests, in their order. They are prepared side by side before the first is looked at: two are
    /// compiled at once, and the cache evicts none of them for another, even if they all together are more than it may hold.
    pub(super) async fn describe_all(
        &self,
        guests: &[(PathBuf, GuestSettings)],
    ) -> Vec<Result<Component, ComponentError>> {
        let prepared = future::join_all(guests.iter().map(|(wasm, _)| self.0.prepare(wasm))).await;
        let mut components = Vec::with_capacity(guests.len());
        for ((wasm, settings), prepared) in guests.iter().zip(prepared) {
            components.push(match prepared {
                Ok(artifact) => self.describe_prepared(artifact, wasm, settings).await,
                Err(error) => Err(error.into()),
            });
        }
        components
    }

    async fn describe_prepared(
        &self,
        mut artifact: Artifact,
        wasm: &Path,
        settings: &GuestSettings,
    ) -> Result<Component, ComponentError> {
        let loaded = match self.load(&artifact) {
            // Another process may have compiled the same component, and put its file in the place of ours.
            Err(error) if error.is_stale() => {
                artifact = self.0.prepare(wasm).await?;
                self.load(&artifact)?
            }
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

    fn load(&self, artifact: &Artifact) -> Result<Loaded, LoadError> {
        Ok(match artifact.world() {
            World::Controller => Loaded::Controller(self.0.load(artifact)?),
            World::Operator => Loaded::Program(self.0.load_program(artifact)?),
        })
    }
}

enum Loaded {
    Controller(Arc<engine::Component>),
    Program(Arc<engine::Program>),
}

/// What a guest's description depends on, for [`Components::describe_all`].
pub(super) fn asked(spec: &GuestSpec, directory: &Path) -> (PathBuf, GuestSettings) {
    (spec.wasm_path(directory), settings(spec))
}
