//! Instances that nobody can reach any more, until they are unmapped.
//!
//! A guest is put to sleep when the event of its own write arrives, which often is what another guest waits for: unmapping its
//! instance at once would hold that one up, and a guest's thread would have to be woken for it.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use wasm_operator_engine::Instance;

/// How long an instance lies here.
const REST: Duration = Duration::from_millis(10);
/// More instances than this, or more bytes in them, are given back at once.
const MOST: usize = 8;
const MOST_BYTES: u64 = 8 << 20;

/// The instances. A handle: clones share everything.
#[derive(Clone, Default)]
pub(crate) struct Graveyard(Arc<Mutex<Vec<Instance>>>);

impl Graveyard {
    /// Gives the instances back soon, on that runtime; at once if `now` says so.
    pub(crate) fn bury(&self, runtime: &Handle, instances: Vec<Instance>, now: bool) {
        let mut buried = self.0.lock();
        let is_first = buried.is_empty();
        buried.extend(instances);
        let bytes: u64 = buried.iter().map(Instance::private_bytes).sum();
        let rest = if now || buried.len() > MOST || bytes > MOST_BYTES { None } else { Some(REST) };
        if buried.is_empty() || (rest.is_some() && !is_first) {
            return;
        }
        let all = self.clone();
        runtime.spawn(async move {
            if let Some(rest) = rest {
                tokio::time::sleep(rest).await;
            }
            let instances = std::mem::take(&mut *all.0.lock());
            drop(instances);
        });
    }
}
