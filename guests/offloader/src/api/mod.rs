//! The custom resources, group `offloader.wasm-operator.dev`, version `v1alpha1`.

// kube's derive repeats each struct inside of a function, where nothing is reachable.
#[allow(unreachable_pub)]
mod action;
mod schema;
mod status;
#[allow(unreachable_pub)]
mod target;

pub(crate) use action::default_time_limit;
pub use action::{
    AntiAffinity, Completion, ConfigSource, NetworkPolicySource, OffloadedAction, OffloadedActionSpec, ParamsSource,
    Placement, Port, Protocol, Resources, ServiceSource, ServiceType, TargetRef, Toleration,
};
pub use status::{
    Delivery, NetworkStatus, OffloadedActionStatus, Phase, PortStatus, PreviousRun, ServiceStatus, condition, reason,
};
pub use target::{OffloadTarget, OffloadTargetSpec, OffloadTargetStatus, SecretKeyRef};

/// API group of the resources, and prefix of labels and annotations.
pub const GROUP: &str = "offloader.wasm-operator.dev";
/// The finalizer of an `OffloadedAction`: completion endpoints are told of a cancellation before it goes.
pub const FINALIZER: &str = "offloader.wasm-operator.dev/offload-cleanup";

#[cfg(test)]
mod tests;
