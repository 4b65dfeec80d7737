//! The control plane of the benchmark, its namespaces, and the nonces that were sent.

use std::cell::Cell;
use std::time::Duration;

use harness::ring::{self, objects};
use harness::{Context as _, OwnCluster, Result, Space, bail};
use kube::api::{DeleteParams, DynamicObject, ListParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Api, Client, ResourceExt as _};
use serde::Serialize;
use tokio::time::Instant;
use wasm_operator_devel::Options;

use crate::lap::Eye;
use crate::system::Others;
use crate::variant::Setting;

/// Writes before the first measurement.
const WARM_UP_WRITES: usize = 300;
/// How long others are looked at to see whether they are quiet.
const QUIET_LOOK: Duration = Duration::from_secs(1);

/// What all variants run on.
pub(crate) struct Stage {
    space: Space,
    cluster: OwnCluster,
    nonce: Cell<i64>,
}

/// Who watches whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Shape {
    /// Each controller watches a namespace and writes into that of the next: one event wakes one.
    Ring,
    /// All controllers watch the first namespace, and each writes into one of its own: one event wakes all.
    Star,
}

/// The namespaces that a nonce comes to, in the order of a lap.
#[derive(Debug, Clone)]
pub(crate) struct Course {
    shape: Shape,
    /// What the names begin with; a number follows.
    pub(crate) prefix: String,
    /// How many controllers there are.
    pub(crate) controllers: usize,
    /// The namespaces: one for each controller, and one more where a single controller would write to its own, or all watch
    /// the same.
    pub(crate) namespaces: Vec<String>,
    /// What each controller's heap holds besides, in bytes.
    pub(crate) heap_bytes: u64,
}

impl Course {
    /// `prefix` is what the names of the namespaces begin with.
    pub(crate) fn new(shape: Shape, prefix: String, controllers: usize) -> Self {
        let namespaces = match shape {
            Shape::Ring => controllers.max(2),
            Shape::Star => controllers + 1,
        };
        let namespaces = (0..namespaces).map(|index| format!("{prefix}{index}")).collect();
        Self { shape, prefix, controllers, namespaces, heap_bytes: 0 }
    }

    /// Each controller's namespaces: the one it watches and the one it writes to.
    pub(crate) fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        let watched = |index: usize| match self.shape {
            Shape::Ring => index,
            Shape::Star => 0,
        };
        let next = self.namespaces.iter().cycle().skip(1).take(self.controllers).enumerate();
        next.filter_map(move |(index, to)| Some((self.namespaces.get(watched(index))?.as_str(), to.as_str())))
    }

    /// How long each controller took, by when the nonce came to each namespace.
    pub(crate) fn latencies(&self, arrivals: &[Instant]) -> impl Iterator<Item = Duration> {
        arrivals.windows(2).filter_map(move |pair| {
            let since = match self.shape {
                Shape::Ring => pair.first(),
                Shape::Star => arrivals.first(),
            };
            Some(pair.last()?.saturating_duration_since(*since?))
        })
    }

    /// Hops of a lap.
    pub(crate) fn hops(&self) -> usize {
        self.namespaces.len() - 1
    }
}

impl Stage {
    /// Starts a control plane. Without kube-controller-manager: nothing here needs it, and it would disturb.
    pub(crate) async fn start() -> Result<Self> {
        let options = Options::default().without_controller_manager();
        let cluster = OwnCluster::start_without_audit("bench", options).await?;
        cluster.cluster().install_ring().await?;
        let space = Space::new("bench", cluster.cluster()).await?;
        let stage = Self { space, cluster, nonce: Cell::new(0) };
        // For a moment after its definition is established a resource answers 429.
        harness::eventually("the ring's resource is served", async || {
            Ok(stage.objects().list(&ListParams::default()).await.map(drop)?)
        })
        .await?;
        stage.warm_up().await?;
        Ok(stage)
    }

    /// A server that has just started answers the first requests more slowly, which the first variant would pay for.
    async fn warm_up(&self) -> Result<()> {
        let course = self.course(&Setting::default(), 1).await?;
        for _ in 0..WARM_UP_WRITES {
            self.send(&course).await?;
        }
        Ok(())
    }

    /// Namespaces and hosts are made in here.
    pub(crate) fn space(&self) -> &Space {
        &self.space
    }

    /// A client with the administrator's rights.
    pub(crate) fn client(&self) -> Client {
        self.space.client()
    }

    /// etcd and kube-apiserver.
    pub(crate) fn pids(&self) -> Vec<u32> {
        self.cluster.control_plane.state().pids.into_values().collect()
    }

    /// The API server's version.
    pub(crate) async fn version(&self) -> Result<String> {
        Ok(self.client().apiserver_version().await?.git_version)
    }

    /// Makes the namespaces, if need be, and removes what an earlier variant left in any. Each gets the setting's objects but
    /// the one that travels.
    pub(crate) async fn course(&self, setting: &Setting, controllers: usize) -> Result<Course> {
        let course = Course::new(setting.shape, self.space.name_of("ring-"), controllers);
        for index in 0..course.namespaces.len() {
            self.space.namespace(&format!("ring-{index}")).await?;
        }
        for object in self.objects().list(&ListParams::default()).await?.items {
            let namespace = object.namespace().context("an object without a namespace")?;
            objects(&self.space, &namespace).delete(&object.name_any(), &DeleteParams::default()).await?;
        }
        let next = course.namespaces.iter().cycle().skip(1);
        for (namespace, next) in course.namespaces.iter().zip(next) {
            for index in 1..setting.objects {
                ring::write_still(&self.space, namespace, next, &format!("still-{index}")).await?;
            }
        }
        Ok(Course { heap_bytes: setting.heap_bytes, ..course })
    }

    /// Opens the driver's watch.
    pub(crate) async fn watch(&self) -> Result<Eye> {
        Eye::open(self.objects()).await
    }

    /// Writes a new nonce into the first namespace, and returns it.
    pub(crate) async fn send(&self, course: &Course) -> Result<i64> {
        let nonce = self.nonce.get() + 1;
        self.nonce.set(nonce);
        let first = course.namespaces.first().context("a course without namespaces")?;
        ring::write(&self.space, first, nonce).await?;
        Ok(nonce)
    }

    /// Waits, at most `patience`, until others use no more than `limit` cores.
    pub(crate) async fn until_quiet(&self, limit: f64, patience: Duration) -> Result<()> {
        let deadline = Instant::now() + patience;
        loop {
            let others = Others::than(&self.pids())?;
            tokio::time::sleep(QUIET_LOOK).await;
            if others.cores()? <= limit || Instant::now() >= deadline {
                return Ok(());
            }
        }
    }

    /// Fails when a part of the control plane has ended.
    pub(crate) fn ensure_alive(&self) -> Result<()> {
        for pid in self.pids() {
            if !std::path::Path::new("/proc").join(pid.to_string()).exists() {
                bail!("a process of the control plane has ended; its log is in `{}`", self.log_directory()?);
            }
        }
        Ok(())
    }

    fn log_directory(&self) -> Result<String> {
        Ok(harness::logs_directory()?.join("bench").display().to_string())
    }

    fn objects(&self) -> Api<DynamicObject> {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(ring::GROUP, "v1", "TestResource"));
        Api::all_with(self.client(), &resource)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_controller_closes_the_ring() {
        let course = Course::new(Shape::Ring, "r-".to_owned(), 3);
        assert_eq!(course.pairs().collect::<Vec<_>>(), [("r-0", "r-1"), ("r-1", "r-2"), ("r-2", "r-0")]);
        assert_eq!(course.hops(), 2);
    }

    #[test]
    fn a_single_controller_has_a_second_namespace_to_write_to() {
        let course = Course::new(Shape::Ring, "r-".to_owned(), 1);
        assert_eq!(course.pairs().collect::<Vec<_>>(), [("r-0", "r-1")]);
        assert_eq!(course.hops(), 1);
    }
    #[test]
    fn in_a_star_all_watch_the_first_namespace() {
        let course = Course::new(Shape::Star, "r-".to_owned(), 2);
        assert_eq!(course.pairs().collect::<Vec<_>>(), [("r-0", "r-1"), ("r-0", "r-2")]);
        assert_eq!(course.hops(), 2);
    }

    #[test]
    fn latencies_count_from_the_namespace_that_the_controller_watches() {
        let start = Instant::now();
        let arrivals = [0, 2, 7].map(|milliseconds| start + Duration::from_millis(milliseconds));
        let latencies = |shape, arrivals: &[Instant]| {
            let course = Course::new(shape, "r-".to_owned(), 2);
            course.latencies(arrivals).map(|latency| latency.as_millis()).collect::<Vec<_>>()
        };
        assert_eq!(latencies(Shape::Ring, &arrivals), [2, 5]);
        assert_eq!(latencies(Shape::Star, &arrivals), [2, 7]);
        assert!(latencies(Shape::Star, &[start]).is_empty() && latencies(Shape::Ring, &[]).is_empty());
    }
}
