//! An engine on a directory of its own, and the two sides of a guest: its HTTP and its log.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use http_body_util::{BodyExt, Full};
use parking_lot::Mutex;
use tempfile::TempDir;
use wasm_operator_core::limits::Limits;
use wasm_operator_core::object::ObjectRef;
use wasm_operator_core::reconcile::{Cause, Failure, Outcome, Request};
use wasm_operator_engine::{
    Artifact, CallError, Component, Engine, EngineOptions, GuestLogs, GuestSettings, HttpError, Instance, LogSink,
    OutgoingHttp, ResponseBody, Stream, Timeouts,
};

/// This test program as the compile child: see [`compile_child`].
pub(crate) fn compiler() -> Vec<OsString> {
    let program = std::env::current_exe().unwrap().into_os_string();
    let arguments = ["support::compile_child", "--exact", "--ignored", "--nocapture", "--test-threads=1", "--"];
    std::iter::once(program).chain(arguments.map(OsString::from)).collect()
}

/// A compiler in shell: `$1` is the component, `$2` the output, `$3` the digest.
pub(crate) fn shell_compiler(script: &str) -> Vec<OsString> {
    ["/bin/sh", "-c", script, "compiler"].map(OsString::from).to_vec()
}

#[test]
#[ignore = "started by the other tests, as the compile child of the engine"]
fn compile_child() {
    let arguments: Vec<_> = std::env::args().skip_while(|argument| argument != "--").skip(1).collect();
    let [wasm, output, digest] = arguments.as_slice() else { return };
    if let Err(error) = wasm_operator_engine::compile(Path::new(wasm), Path::new(output), Some(digest)) {
        eprintln!("{error}");
        std::process::exit(1);
    }
}

pub(crate) struct Host {
    pub(crate) engine: Engine,
    pub(crate) directory: TempDir,
}

impl Host {
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(crate) fn with(change: impl FnOnce(&mut EngineOptions)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut options = EngineOptions::new(directory.path().join("cache"), compiler());
        change(&mut options);
        Self { engine: Engine::new(options).unwrap(), directory }
    }

    pub(crate) fn write(&self, component: &[u8]) -> PathBuf {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let name = format!("guest-{}.wasm", NUMBER.fetch_add(1, Ordering::Relaxed));
        let path = self.directory.path().join(name);
        std::fs::write(&path, component).unwrap();
        path
    }

    pub(crate) async fn prepare(&self, component: &[u8]) -> Artifact {
        self.engine.prepare(&self.write(component)).await.unwrap()
    }

    pub(crate) async fn load(&self, component: &[u8]) -> Arc<Component> {
        self.engine.load(&self.prepare(component).await).unwrap()
    }

    /// One reconcile of a fresh instance.
    pub(crate) async fn call(&self, component: &[u8], limits: Limits, http: Arc<dyn OutgoingHttp>) -> Answer {
        let component = self.load(component).await;
        instance(&component, limits, http).await.reconcile(&request()).await
    }
}

pub(crate) type Answer = Result<Result<Outcome, Failure>, CallError>;

pub(crate) async fn instance(component: &Component, limits: Limits, http: Arc<dyn OutgoingHttp>) -> Instance {
    component.instantiate(&settings(limits), http, &GuestLogs::discard()).await.unwrap()
}

pub(crate) fn settings(limits: Limits) -> GuestSettings {
    GuestSettings { name: "test".into(), env: vec![], args: vec![], limits }
}

pub(crate) fn request() -> Request {
    Request {
        controller: "test".into(),
        object: ObjectRef { namespace: Some("default".into()), name: "one".into() },
        content: None,
        deleted: vec![],
        attempt: 0,
        cause: Cause::Change,
        id: "1".into(),
        traceparent: None,
    }
}

/// The number that a guest reports as `requeue-after`.
#[track_caller]
pub(crate) fn number(answer: Answer) -> u64 {
    match answer.unwrap().unwrap() {
        Outcome::RequeueAfter(after) => after.as_millis().try_into().unwrap(),
        Outcome::Done => panic!("`done` instead of a number"),
    }
}

/// The label of the error that ended a call.
#[track_caller]
pub(crate) fn kind(answer: Answer) -> &'static str {
    answer.unwrap_err().kind()
}

type Response = Result<http::Response<ResponseBody>, HttpError>;

/// Answers requests with a function.
pub(crate) struct Server<F>(F);

impl<F, R> OutgoingHttp for Server<F>
where
    F: Fn(http::Request<Bytes>, Timeouts) -> R + Send + Sync + 'static,
    R: Future<Output = Response> + Send + 'static,
{
    fn send(&self, request: http::Request<Bytes>, timeouts: Timeouts) -> BoxFuture<'static, Response> {
        (self.0)(request, timeouts).boxed()
    }
}

pub(crate) fn server<F, R>(answer: F) -> Arc<dyn OutgoingHttp>
where
    F: Fn(http::Request<Bytes>, Timeouts) -> R + Send + Sync + 'static,
    R: Future<Output = Response> + Send + 'static,
{
    Arc::new(Server(answer))
}

/// For guests without HTTP.
pub(crate) fn nothing() -> Arc<dyn OutgoingHttp> {
    server(|_, _| async { Err(HttpError::Internal("unexpected".into())) })
}

pub(crate) fn body(bytes: impl Into<Bytes>) -> ResponseBody {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// A body of these frames; an error ends it.
pub(crate) fn frames(frames: impl futures::Stream<Item = Result<Bytes, HttpError>> + Send + 'static) -> ResponseBody {
    use futures::StreamExt;
    http_body_util::StreamBody::new(frames.map(|frame| frame.map(http_body::Frame::data))).boxed_unsync()
}

/// Says whether it was dropped.
#[derive(Clone, Default)]
pub(crate) struct Dropped(Arc<Mutex<bool>>);

impl Dropped {
    pub(crate) fn guard(&self) -> impl Send + use<> {
        struct Guard(Dropped);
        impl Drop for Guard {
            fn drop(&mut self) {
                *self.0.0.lock() = true;
            }
        }
        Guard(self.clone())
    }

    pub(crate) fn is(&self) -> bool {
        *self.0.lock()
    }
}

#[derive(Default)]
pub(crate) struct Recorder(pub(crate) Mutex<Vec<String>>);

impl LogSink for Recorder {
    fn line(&self, stream: Stream, line: &str) {
        self.0.lock().push(format!("{stream:?}: {line}"));
    }

    fn suppressed(&self, lines: u64) {
        self.0.lock().push(format!("suppressed {lines}"));
    }
}
