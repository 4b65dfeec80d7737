//! stub
use std::time::Duration;
use prometheus_client::registry::Registry;
use wasm_operator_core::dispatch::*;
use crate::pool::Found;
#[derive(Debug, Clone, Copy)]
pub(crate) enum Reconciled { Success, RequeueAfter(Duration), Retry, Terminal, Broken }
impl From<Reconciled> for Completion { fn from(r: Reconciled) -> Self { match r { Reconciled::Success => Completion::Done, Reconciled::RequeueAfter(d) => Completion::RequeueAfter(d), Reconciled::Retry => Completion::Retry, Reconciled::Terminal => Completion::Terminal, Reconciled::Broken => Completion::Broken } } }
pub(crate) struct Metrics;
impl Metrics {
    pub(crate) fn register(_: &mut Registry) -> Self { Self }
    pub(crate) fn slept(&self, _: &str, _: SleepReason) {}
    pub(crate) fn removed(&self, _: &str) {}
    pub(crate) fn started(&self, _: &str, _: &Job, _: Time) {}
    pub(crate) fn finished(&self, _: &str, _: Reconciled, _: Duration) {}
    pub(crate) fn woke(&self, _: &str, _: Option<WakeReason>, _: Found, _: Duration) {}
    pub(crate) fn memory(&self, _: &str, _: u64) {}
    pub(crate) fn trapped(&self, _: &str, _: &str) {}
}
