//! All controllers of a guest, and the two calls of the host.

use std::cell::RefCell;
use std::fmt::Display;
use std::rc::Rc;

use crate::bindings::wasm_operator::controller::types::{self, Description, Failure, Outcome};
use crate::controller::Reconciler;
use crate::{logging, runtime};

pub use types::Cause;

/// The controllers of one component.
pub struct Guest {
    reconcilers: Vec<Reconciler>,
}

/// What a set-up function may return.
pub trait IntoGuest {
    /// The guest, or a message for the administrator why it cannot start.
    ///
    /// # Errors
    /// When environment or arguments do not suffice.
    fn into_guest(self) -> Result<Guest, String>;
}

impl IntoGuest for Guest {
    fn into_guest(self) -> Result<Guest, String> {
        Ok(self)
    }
}

impl IntoGuest for Reconciler {
    fn into_guest(self) -> Result<Guest, String> {
        Ok(Guest { reconcilers: vec![self] })
    }
}

impl IntoGuest for Vec<Reconciler> {
    fn into_guest(self) -> Result<Guest, String> {
        Ok(Guest { reconcilers: self })
    }
}

impl<const N: usize> IntoGuest for [Reconciler; N] {
    fn into_guest(self) -> Result<Guest, String> {
        Ok(Guest { reconcilers: self.into() })
    }
}

impl<G: IntoGuest, E: Display> IntoGuest for Result<G, E> {
    fn into_guest(self) -> Result<Guest, String> {
        self.map_err(|error| format!("{error:#}"))?.into_guest()
    }
}

/// What is known of the running reconcile besides the object.
#[derive(Debug, Clone)]
pub struct RequestInfo {
    /// The controller's name.
    pub controller: String,
    /// Why the object is reconciled.
    pub cause: Cause,
    /// Failures in a row before this attempt.
    pub attempt: u32,
    /// Identifies this reconcile in the host's log.
    pub id: String,
    /// W3C trace context of the change, if one is known.
    pub traceparent: Option<String>,
}

thread_local! {
    static GUEST: RefCell<Option<Rc<Guest>>> = const { RefCell::new(None) };
    static REQUEST: RefCell<Option<RequestInfo>> = const { RefCell::new(None) };
}

/// The running reconcile. `None` outside of one, as in the set-up function.
#[must_use]
pub fn request() -> Option<RequestInfo> {
    REQUEST.with_borrow(Clone::clone)
}

impl Guest {
    fn describe(&self) -> Result<Description, String> {
        if self.reconcilers.is_empty() {
            return Err("the guest has no controllers".to_owned());
        }
        let mut names: Vec<&str> = self.reconcilers.iter().map(|one| one.description.name.as_str()).collect();
        names.sort_unstable();
        if let Some(name) = names.windows(2).find_map(|pair| match pair {
            [first, second] if first == second => Some(first),
            _ => None,
        }) {
            return Err(format!("two controllers are named `{name}`: tell them apart with `Controller::named`"));
        }
        let mut permissions: Vec<types::PermissionRule> = Vec::new();
        for rule in self.reconcilers.iter().flat_map(|one| &one.rules) {
            if !permissions.contains(rule) {
                permissions.push(rule.clone());
            }
        }
        Ok(Description {
            controllers: self.reconcilers.iter().map(|one| one.description.clone()).collect(),
            permissions,
        })
    }

    async fn reconcile(&self, request: types::Request) -> Result<Outcome, Failure> {
        let reconciler = self
            .reconcilers
            .iter()
            .find(|one| one.description.name == request.controller)
            .ok_or_else(|| Failure::Terminal(format!("this guest has no controller `{}`", request.controller)))?;
        REQUEST.set(Some(RequestInfo {
            controller: request.controller.clone(),
            cause: request.cause,
            attempt: request.attempt,
            id: request.id.clone(),
            traceparent: request.traceparent.clone(),
        }));
        let answer = (reconciler.call)(request).await;
        REQUEST.set(None);
        answer
    }
}

pub(crate) fn guest<G: IntoGuest>(setup: fn() -> G) -> Result<Rc<Guest>, String> {
    if let Some(guest) = GUEST.with_borrow(Clone::clone) {
        return Ok(guest);
    }
    logging::init();
    let guest = Rc::new(runtime::enter(|| setup().into_guest())?);
    GUEST.set(Some(Rc::clone(&guest)));
    Ok(guest)
}

/// The export `describe`.
pub fn describe<G: IntoGuest>(setup: fn() -> G) -> Result<Description, String> {
    guest(setup)?.describe()
}

/// The export `reconcile`.
pub fn reconcile<G: IntoGuest>(setup: fn() -> G, request: types::Request) -> Result<Outcome, Failure> {
    let guest = guest(setup).map_err(Failure::Terminal)?;
    runtime::block_on(guest.reconcile(request))
}

#[cfg(test)]
mod tests;
