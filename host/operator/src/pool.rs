//! The instances of one guest's component: which are idle, and how to get one.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use wasm_operator_engine::{
    Artifact, CallError, Component, Engine, GuestLogs, GuestSettings, Instance, LoadError, OutgoingHttp, Program,
};

/// The compiled components that are mapped. Guests of the same component share one.
#[derive(Default)]
pub(crate) struct Components {
    mapped: Mutex<HashMap<String, Weak<Component>>>,
    programs: Mutex<HashMap<String, Weak<Program>>>,
}

impl Components {
    /// The component of this artifact, mapped if need be.
    pub(crate) fn load(&self, engine: &Engine, artifact: &Artifact) -> Result<(Arc<Component>, Found), LoadError> {
        let mut mapped = self.mapped.lock();
        if let Some(component) = mapped.get(artifact.digest()).and_then(Weak::upgrade) {
            return Ok((component, Found::Component));
        }
        mapped.retain(|_, component| component.strong_count() > 0);
        let component = engine.load(artifact)?;
        mapped.insert(artifact.digest().to_owned(), Arc::downgrade(&component));
        Ok((component, Found::Nothing))
    }
}

impl Components {
    /// The program of this artifact, mapped if need be.
    pub(crate) fn load_program(&self, engine: &Engine, artifact: &Artifact) -> Result<Arc<Program>, LoadError> {
        let mut mapped = self.programs.lock();
        if let Some(program) = mapped.get(artifact.digest()).and_then(Weak::upgrade) {
            return Ok(program);
        }
        mapped.retain(|_, program| program.strong_count() > 0);
        let program = engine.load_program(artifact)?;
        mapped.insert(artifact.digest().to_owned(), Arc::downgrade(&program));
        Ok(program)
    }
}

/// No instance could be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PoolError {
    /// The compiled component cannot be mapped.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The component cannot be instantiated.
    #[error(transparent)]
    Instantiate(#[from] CallError),
}

impl PoolError {
    /// Whether the component has to be made anew, which is no fault of the guest.
    pub(crate) fn is_stale(&self) -> bool {
        matches!(self, Self::Load(error) if error.is_stale())
    }
}

/// What was found in memory when an instance was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// An idle instance.
    Instance,
    /// The mapped component.
    Component,
    /// Nothing: the component was mapped first.
    Nothing,
}

/// One guest's mapped component and idle instances.
pub(crate) struct Pool {
    engine: Engine,
    components: Arc<Components>,
    artifact: Artifact,
    settings: GuestSettings,
    http: Arc<dyn OutgoingHttp>,
    logs: Arc<GuestLogs>,
    component: Mutex<Option<Arc<Component>>>,
    idle: Mutex<Vec<Instance>>,
    serves_nothing: AtomicBool,
}

impl Pool {
    pub(crate) fn new(
        engine: Engine,
        components: Arc<Components>,
        artifact: Artifact,
        settings: GuestSettings,
        http: Arc<dyn OutgoingHttp>,
        logs: Arc<GuestLogs>,
    ) -> Self {
        let (component, idle) = (Mutex::new(None), Mutex::new(Vec::new()));
        let serves_nothing = AtomicBool::new(false);
        Self { engine, components, artifact, settings, http, logs, component, idle, serves_nothing }
    }

    /// Whether the component serves requests, as far as is known: that it does not is learnt from the first one.
    pub(crate) fn may_serve(&self) -> bool {
        !self.serves_nothing.load(Ordering::Relaxed)
    }

    /// The component serves no requests.
    pub(crate) fn serves_nothing(&self) {
        self.serves_nothing.store(true, Ordering::Relaxed);
    }

    /// Whether an instance can be had without reading a file.
    pub(crate) fn is_mapped(&self) -> bool {
        self.component.lock().is_some()
    }

    /// An idle instance, or a fresh one.
    pub(crate) async fn acquire(&self) -> Result<(Instance, Found), PoolError> {
        if let Some(instance) = self.idle.lock().pop() {
            return Ok((instance, Found::Instance));
        }
        let (component, found) = self.component()?;
        let instance = component.instantiate(&self.settings, self.http.clone(), &self.logs).await?;
        Ok((instance, found))
    }

    /// Keeps an instance for the next call, unless there are that many already.
    pub(crate) fn release(&self, instance: Instance, most: usize) {
        let mut idle = self.idle.lock();
        if idle.len() < most {
            idle.push(instance);
        }
    }

    /// This guest's part of the bytes that the mapped component holds; 0 while it is not mapped. Guests that share a
    /// component share its bytes.
    pub(crate) fn component_bytes(&self) -> u64 {
        let sharers = |component| u64::try_from(Arc::strong_count(component)).unwrap_or(u64::MAX).max(1);
        self.component.lock().as_ref().map_or(0, |component| component.bytes() / sharers(component))
    }

    /// Bytes of linear memory in idle instances.
    pub(crate) fn instance_bytes(&self) -> u64 {
        self.idle.lock().iter().map(Instance::memory_bytes).sum()
    }

    /// Bytes that would be given back if the idle instances were dropped.
    pub(crate) fn private_bytes(&self) -> u64 {
        self.idle.lock().iter().map(Instance::private_bytes).sum()
    }

    /// Takes the idle instances out. Dropping them, which unmaps memory, is for the caller.
    #[must_use]
    pub(crate) fn sleep(&self) -> Vec<Instance> {
        std::mem::take(&mut *self.idle.lock())
    }

    /// Drops the idle instances and the mapped component.
    pub(crate) fn unload(&self) {
        drop(self.sleep());
        let component = self.component.lock().take();
        drop(component);
    }

    fn component(&self) -> Result<(Arc<Component>, Found), LoadError> {
        let mut slot = self.component.lock();
        if let Some(component) = &*slot {
            return Ok((component.clone(), Found::Component));
        }
        let (component, found) = self.components.load(&self.engine, &self.artifact)?;
        *slot = Some(component.clone());
        Ok((component, found))
    }
}
