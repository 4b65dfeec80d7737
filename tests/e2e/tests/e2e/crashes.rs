//! Crashes after every write, of a guest that can be dropped anywhere and of one that cannot.

use harness::programs::Objects;
use harness::{
    Fault, Guest, Protocol, Result, Stage, crash_after_every_write, ensure, programs, ring, test, until_object,
};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::core::{ApiResource, GroupVersionKind};

/// One object gets two children and later a third, another one gets one and is deleted.
struct Children {
    names: &'static str,
}

impl Children {
    async fn until_made(objects: &Objects, name: &str, made: &str) -> Result<()> {
        let has = |object: Option<&ConfigMap>| {
            object.and_then(|object| object.data.as_ref()?.get("made")).is_some_and(|count| count == made)
        };
        until_object(objects.api(), name, &format!("`{name}` has made {made}"), has).await?;
        Ok(())
    }
}

impl Protocol for Children {
    fn guest(&self, stage: &Stage<'_>) -> Guest {
        programs::guest("forgetful", "forgetful", &[&stage.namespace])
    }

    fn kinds(&self) -> Vec<ApiResource> {
        vec![ApiResource::erase::<ConfigMap>(&())]
    }

    async fn run(&self, stage: &Stage<'_>) -> Result<()> {
        let objects = Objects::new(stage.space, &stage.namespace, "forgetful");
        let write = async |name: &str, children: &str| {
            objects.write(name, &[("children", children), ("names", self.names), ("value", "v")]).await
        };
        write("one", "2").await?;
        Self::until_made(&objects, "one", "2").await?;
        write("one", "3").await?;
        Self::until_made(&objects, "one", "3").await?;
        write("gone", "1").await?;
        Self::until_made(&objects, "gone", "1").await?;
        objects.delete("gone").await
    }
}

#[test]
fn a_guest_that_can_be_dropped_anywhere_ends_the_same_after_a_crash_at_every_write() -> Result<()> {
    test(async |space| {
        let report = crash_after_every_write(space, &Children { names: "fixed" }, &Fault::ALL).await?;
        assert_eq!(report.writes.len(), 8, "{:?}", report.writes);
        assert_eq!(report.runs, 24);
        report.check()
    })
}

/// Two nonces pass a guest of the ring.
struct Hop;

impl Hop {
    async fn from(stage: &Stage<'_>) -> Result<String> {
        stage.space.namespace(&format!("{}-from", stage.name)).await
    }
}

impl Protocol for Hop {
    fn guest(&self, stage: &Stage<'_>) -> Guest {
        ring::guest("ring", &stage.space.name_of(&format!("{}-from", stage.name)), &stage.namespace)
    }

    fn kinds(&self) -> Vec<ApiResource> {
        vec![ApiResource::from_gvk(&GroupVersionKind::gvk(ring::GROUP, "v1", "TestResource"))]
    }

    async fn prepare(&self, stage: &Stage<'_>) -> Result<()> {
        Self::from(stage).await.map(drop)
    }

    async fn run(&self, stage: &Stage<'_>) -> Result<()> {
        let from = Self::from(stage).await?;
        for nonce in [1, 2] {
            ring::write(stage.space, &from, nonce).await?;
            ring::until_nonce(stage.space, &stage.namespace, nonce).await?;
        }
        Ok(())
    }
}

#[test]
fn a_guest_of_the_ring_passes_every_nonce_on_through_a_crash_at_each_write() -> Result<()> {
    test(async |space| {
        let report = crash_after_every_write(space, &Hop, &Fault::ALL).await?;
        assert_eq!((report.writes.len(), report.runs), (2, 6), "{report:?}");
        report.check()
    })
}

#[test]
fn a_guest_that_forgets_what_it_made_is_found_out_with_the_write_and_the_difference() -> Result<()> {
    test(async |space| {
        let report = crash_after_every_write(space, &Children { names: "generated" }, &Fault::ALL).await?;
        // Every other write counts what the one before has made; the last object is deleted with what belongs to it.
        for fault in Fault::ALL {
            let failures = report.failures.iter().filter(|failure| failure.fault == fault);
            let found: Vec<usize> = failures.map(|failure| failure.after).collect();
            assert_eq!(found, [1, 3, 5], "{fault}: {report:?}");
        }
        for failure in &report.failures {
            ensure!(failure.write.starts_with("POST "), "{failure}");
            ensure!(failure.difference.contains("ConfigMap/one-<4> is one too many"), "{failure}");
        }
        let told = report.check().err().map(|error| error.to_string()).unwrap_or_default();
        ensure!(told.contains("the host is killed after write 1, `POST /api/v1/namespaces/"), "{told}");
        Ok(())
    })
}

#[test]
fn a_protocol_that_never_ends_the_same_is_refused() -> Result<()> {
    /// Leaves an object whose content is another one in each run.
    struct Restless;

    impl Protocol for Restless {
        fn guest(&self, stage: &Stage<'_>) -> Guest {
            Children { names: "fixed" }.guest(stage)
        }

        fn kinds(&self) -> Vec<ApiResource> {
            Children { names: "fixed" }.kinds()
        }

        async fn run(&self, stage: &Stage<'_>) -> Result<()> {
            let objects = Objects::new(stage.space, &stage.namespace, "nobody");
            objects.write_value("run", &stage.name).await.map(drop)
        }
    }

    test(async |space| {
        let refused = crash_after_every_write(space, &Restless, &Fault::ALL).await;
        let told = refused.err().map(|error| error.to_string()).unwrap_or_default();
        ensure!(told.contains("undisturbed") && told.contains("ConfigMap/run .data .value"), "{told}");
        Ok(())
    })
}
