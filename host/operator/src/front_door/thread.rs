//! The thread that everything between a caller's socket and its guest's queue runs on.
//!
//! Handshakes and requests of strangers take CPU. On a thread of their own they contend with the informers and the gateway,
//! which every guest needs, no more than any other thread does.

use std::io;

use parking_lot::Mutex;
use tokio::runtime::{Builder, Handle, Runtime};

/// Started when something listens for the first time.
#[derive(Default)]
pub(super) struct OwnThread(Mutex<Option<Runtime>>);

impl OwnThread {
    pub(super) fn handle(&self) -> io::Result<Handle> {
        let mut runtime = self.0.lock();
        if let Some(runtime) = &*runtime {
            return Ok(runtime.handle().clone());
        }
        let new = Builder::new_multi_thread().worker_threads(1).thread_name("front-door").enable_all().build()?;
        Ok(runtime.insert(new).handle().clone())
    }
}

impl Drop for OwnThread {
    fn drop(&mut self) {
        // Dropping a runtime waits for its thread, which is not allowed on another one's.
        if let Some(runtime) = self.0.get_mut().take() {
            runtime.shutdown_background();
        }
    }
}
