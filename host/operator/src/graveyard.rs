//! Instances that nobody can reach any more, until they are unmapped.
//!
//! A guest is put to sleep when the event of its own write arrives, which often is what another guest waits for: unmapping its
//! instance at once would hold that one up. So it waits until the host's thread has nothing else to do, as while the API server
//! works on the other guest's request.

use std::sync::Arc;

use parking_lot::Mutex;
use wasm_operator_engine::Instance;

/// Of a thread that is never idle, more instances than this, or more bytes in them, are given back at once.
const MOST: usize = 8;
const MOST_BYTES: u64 = 8 << 20;

/// The instances. A handle: clones share everything.
#[derive(Clone, Default)]
pub(crate) struct Graveyard(Arc<Mutex<Vec<Instance>>>);

impl Graveyard {
    /// Takes instances in.
    pub(crate) fn bury(&self, instances: Vec<Instance>) {
        let mut buried = self.0.lock();
        buried.extend(instances);
        let bytes: u64 = buried.iter().map(Instance::private_bytes).sum();
        let is_full = buried.len() > MOST || bytes > MOST_BYTES;
        drop(buried);
        if is_full {
            self.clear();
        }
    }

    /// Gives all of them back. For a thread that would wait otherwise.
    pub(crate) fn clear(&self) {
        // The lock is not held while they are unmapped.
        let all = std::mem::take(&mut *self.0.lock());
        drop(all);
    }
}
