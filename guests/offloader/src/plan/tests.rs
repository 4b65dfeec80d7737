//! Flows in a cluster that exists in memory only, with a crash after every single write.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::batch::v1::{Job, JobStatus};
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::*;
use crate::api::{condition, reason};
use crate::{children, ids};

const UID: &str = "11111111-2222-3333-4444-555555555555";

/// The cluster, as far as one flow is concerned.
#[derive(Clone)]
struct World {
    /// None: deleted, and all finalizers are gone.
    action: Option<OffloadedAction>,
    jobs: BTreeMap<String, Job>,
    pods: BTreeMap<String, Pod>,
    service: Option<Service>,
    /// Secrets, ConfigMaps and the NetworkPolicy, by kind and name.
    others: BTreeSet<String>,
    /// What of a Job's objects the API server refuses.
    refuses_jobs: bool,
    /// Whether pods of the image become ready.
    ready: fn(&str) -> bool,
    resolved: Result<Resolution, Refusal>,
    acknowledges: bool,
    delivered: usize,
    now: Timestamp,
    /// Writes until the instance is dropped.
    budget: Option<usize>,
    writes: usize,
    events: Vec<&'static str>,
    /// Every Job that the Service ever led to, in order.
    led_to: Vec<String>,
}

struct Crash;

impl World {
    fn new(spec: Value) -> Self {
        let action = json!({
            "apiVersion": "offloader.wasm-operator.dev/v1alpha1", "kind": "OffloadedAction",
            "metadata": {"name": "f", "namespace": "n", "uid": UID, "generation": 1}, "spec": spec,
        });
        let resolution = Resolution { image: "looked-up".to_owned(), ..Resolution::default() };
        Self {
            action: Some(serde_json::from_value(action).unwrap()),
            jobs: BTreeMap::new(),
            pods: BTreeMap::new(),
            service: None,
            others: BTreeSet::new(),
            refuses_jobs: false,
            ready: |_| true,
            resolved: Ok(resolution),
            acknowledges: true,
            delivered: 0,
            now: Timestamp::from_second(1_800_000_000).unwrap(),
            budget: None,
            writes: 0,
            events: Vec::new(),
            led_to: Vec::new(),
        }
    }

    fn change(&mut self, change: impl FnOnce(&mut OffloadedAction)) {
        let action = self.action.as_mut().unwrap();
        let before = action.spec.clone();
        change(action);
        if action.spec != before {
            *action.metadata.generation.as_mut().unwrap() += 1;
        }
    }

    fn status(&self) -> OffloadedActionStatus {
        self.action.as_ref().and_then(|action| action.status.clone()).unwrap_or_default()
    }

    fn condition(&self, type_: &str) -> (String, String) {
        let status = self.status();
        let found = conditions::get(&status.conditions, type_).cloned();
        found.map(|found| (found.status, found.reason)).unwrap_or_default()
    }

    fn seen(&self) -> Observed {
        let mut seen = Observed::new(self.action.clone().unwrap(), Settings::default());
        seen.jobs = self.jobs.clone();
        seen.pods = self.pods.values().cloned().collect();
        seen.service = self.service.clone();
        seen
    }

    fn spend(&mut self) -> Result<(), Crash> {
        self.writes += 1;
        match &mut self.budget {
            Some(0) => Err(Crash),
            Some(left) => {
                *left -= 1;
                if *left == 0 { Err(Crash) } else { Ok(()) }
            }
            None => Ok(()),
        }
    }

    /// What one call of the guest does, as `reconcile` does it.
    fn reconcile(&mut self) -> Result<Option<Duration>, Crash> {
        if self.action.is_none() {
            return Ok(None);
        }
        let mut seen = self.seen();
        for _ in 0..100 {
            seen.now = self.now;
            let Plan { step, status } = plan(&seen);
            match step {
                Step::Wait(wait) => return Ok(wait),
                Step::Retry(_) => return Ok(Some(Duration::from_secs(1))),
                Step::Resolve => {
                    let image = seen.action.spec.image.clone();
                    let given = image.map(|image| Ok(Resolution { image, ..Resolution::default() }));
                    seen.resolved = Some(given.unwrap_or_else(|| self.resolved.clone()));
                }
                Step::ReadLog { .. } => seen.log = Some("hello\n{\"ok\": true}".to_owned()),
                Step::ReadNetwork { .. } => seen.network = Some(Networks::default()),
                Step::Push { .. } => seen.push = Some(Ok(())),
                Step::Deliver { index } => {
                    let answer = if self.acknowledges { Ok(()) } else { Err("503".to_owned()) };
                    self.delivered += usize::from(self.acknowledges);
                    seen.delivery = Some((index, answer));
                }
                Step::Write(writes) => {
                    for write in &writes {
                        if let Some(message) = self.write(write, &status)? {
                            seen = Observed { rejection: Some(Rejection { write: write.clone(), message }), ..seen };
                            break;
                        }
                        if *write == Write::Status {
                            (seen.delivery, seen.rejection) = (None, None);
                        }
                    }
                    if self.action.is_none() {
                        return Ok(None);
                    }
                    let fresh = self.seen();
                    seen = Observed { action: fresh.action, jobs: fresh.jobs, service: fresh.service, ..seen };
                }
            }
        }
        panic!("no end: {:?}", plan(&seen).step);
    }

    /// One write, or the API server's refusal of it.
    fn write(&mut self, write: &Write, status: &OffloadedActionStatus) -> Result<Option<String>, Crash> {
        let flow = ids::flow_name(&UID.replace('-', ""));
        let action = self.action.clone().unwrap();
        match write {
            Write::Finalizer(true) => {
                self.action.as_mut().unwrap().metadata.finalizers = Some(vec![FINALIZER.to_owned()]);
            }
            Write::Finalizer(false) => {
                self.action = None;
                // Garbage collection.
                (self.jobs, self.pods, self.others) = Default::default();
                self.service = None;
            }
            Write::Status => self.action.as_mut().unwrap().status = Some(status.clone()),
            Write::Run(id) => {
                self.others.insert(format!("Secret/{}", ids::job_name(id)));
                self.spend()?;
                if self.refuses_jobs {
                    return Ok(Some("exceeded quota".to_owned()));
                }
                let job = json!({"metadata": {"name": ids::job_name(id), "labels": {"jobId": id}}, "spec": {
                    "template": {}, "backoffLimit": 0, "suspend": action.spec.suspend,
                    "activeDeadlineSeconds": (action.spec.time_limit_seconds > 0).then_some(action.spec.time_limit_seconds),
                }, "status": {"startTime": self.now}});
                let image = action.status.and_then(|status| status.resolved_image).unwrap_or_default();
                let mut job: Job = serde_json::from_value(job).unwrap();
                job.metadata.annotations = Some([("image".to_owned(), image)].into());
                self.jobs.entry(id.clone()).or_insert(job);
            }
            Write::Conf => self.set(format!("ConfigMap/{flow}-conf"), children::conf(&action).is_some()),
            Write::Policy => self.set(format!("NetworkPolicy/{flow}"), children::policy(&action).is_some()),
            Write::Service(serving) => {
                self.led_to.push(serving.clone());
                self.service = children::flow_service(&action, serving, &Settings::default());
                let ports = self.service.as_mut().and_then(|service| service.spec.as_mut()?.ports.as_mut());
                ports.into_iter().flatten().for_each(|port| port.node_port = Some(30_000));
            }
            Write::DeleteService => self.service = None,
            Write::Job(id) => {
                let spec = self.jobs.get_mut(id).and_then(|job| job.spec.as_mut()).unwrap();
                spec.suspend = Some(action.spec.suspend);
                spec.active_deadline_seconds =
                    (action.spec.time_limit_seconds > 0).then_some(action.spec.time_limit_seconds);
                spec.backoff_limit = Some(action.spec.backoff_limit);
            }
            Write::DeleteRun(id) => {
                self.others.remove(&format!("Secret/{}", ids::job_name(id)));
                self.spend()?;
                self.delete_job(id);
            }
            Write::DeleteJob(id) => self.delete_job(id),
            Write::DeleteFlow => {
                self.others.retain(|name| name.starts_with("Secret/"));
                self.spend()?;
                self.service = None;
            }
            Write::Event(notice) => self.events.push(notice.reason),
        }
        self.spend()?;
        Ok(None)
    }

    fn set(&mut self, name: String, wanted: bool) {
        if wanted {
            self.others.insert(name)
        } else {
            self.others.remove(&name)
        };
    }

    fn delete_job(&mut self, id: &str) {
        if let Some(job) = self.jobs.get_mut(id) {
            job.metadata.deletion_timestamp = Some(Time(self.now));
        }
    }

    /// What the Job controller and the kubelet do.
    fn cluster(&mut self) {
        let gone: Vec<String> = self
            .jobs
            .iter()
            .filter(|(_, job)| job.metadata.deletion_timestamp.is_some())
            .map(|(id, _)| id.clone())
            .collect();
        for id in gone {
            self.jobs.remove(&id);
            self.pods.remove(&id);
        }
        for (id, job) in &self.jobs {
            let image = &job.metadata.annotations.as_ref().unwrap()["image"];
            let ready = (self.ready)(image);
            let pod = json!({
                "metadata": {"name": format!("pod-{id}"), "labels": {"jobId": id}},
                "spec": {"nodeName": "node", "containers": []},
                "status": {"phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}], "containerStatuses": [{
                    "name": "ow-action", "ready": ready, "restartCount": 0, "image": "", "imageID": "",
                    "state": {"running": {}},
                }]},
            });
            self.pods.entry(id.clone()).or_insert_with(|| serde_json::from_value(pod).unwrap());
        }
    }

    /// Lets everybody act until nothing changes any more; a dropped instance is followed by a fresh one.
    fn settle(&mut self) {
        for _ in 0..50 {
            let before = (self.writes, self.pods.len());
            if self.reconcile().is_err() {
                self.budget = None;
                continue;
            }
            self.cluster();
            if (self.writes, self.pods.len()) == before
                && self.jobs.values().all(|job| job.metadata.deletion_timestamp.is_none())
            {
                return;
            }
        }
        panic!("never settles");
    }

    /// Lets the next timer come due.
    fn pass(&mut self, seconds: i64) {
        self.now = self.now.checked_add(SignedDuration::from_secs(seconds)).unwrap();
        self.settle();
    }

    fn end_job(&mut self, type_: &str, reason: &str) {
        let id = self.status().job_id.unwrap();
        let status = json!({"startTime": self.now, "conditions": [{"type": type_, "status": "True", "reason": reason, "message": "m"}]});
        self.jobs.get_mut(&id).unwrap().status = Some(serde_json::from_value::<JobStatus>(status).unwrap());
        self.settle();
    }

    /// Everything that must be the same, whatever happened in between.
    fn end(&self) -> Value {
        let names: Vec<&String> = self.jobs.keys().collect();
        let selector = self.service.as_ref().map(|service| service.spec.clone().unwrap().selector);
        json!({"status": self.action.as_ref().map(|action| &action.status), "jobs": names, "others": self.others,
            "selector": selector, "delivered": self.delivered})
    }
}

fn spec(extra: Value) -> Value {
    let mut spec = json!({"action": "/guest/ping", "image": "i:1", "runtimeConf": {"a": "b"}});
    for (key, value) in extra.as_object().unwrap() {
        spec[key] = value.clone();
    }
    spec
}

/// Runs a scenario once for each of its writes, dropping the instance after it, and compares the ends.
fn survives_every_crash(spec: &Value, scenario: impl Fn(&mut World)) -> Value {
    let mut calm = World::new(spec.clone());
    scenario(&mut calm);
    for after in 1..=calm.writes {
        let mut world = World::new(spec.clone());
        world.budget = Some(after);
        scenario(&mut world);
        assert_eq!(world.end(), calm.end(), "after write {after}");
    }
    assert!(calm.writes > 3);
    calm.end()
}

// OFF-29
#[test]
fn a_flow_is_made_once_wherever_its_making_is_interrupted() {
    let end = survives_every_crash(&spec(json!({"networkPolicy": {"ingressFrom": []}})), World::settle);
    assert_eq!(end["jobs"].as_array().unwrap().len(), 1);
    assert_eq!(end["others"].as_array().unwrap().len(), 3);
    assert_eq!(end["status"]["phase"], "Running");
}

// OFF-17
#[test]
fn a_reconfiguration_ends_the_same_wherever_it_is_interrupted() {
    let end = survives_every_crash(&spec(json!({})), |world| {
        world.settle();
        let old = world.status().job_id.unwrap();
        world.change(|action| action.spec.image = Some("i:2".to_owned()));
        world.settle();
        let new = world.status().job_id.unwrap();
        world.led_to.dedup();
        assert_eq!(world.led_to, [old, new]);
    });
    assert_eq!(end["jobs"].as_array().unwrap().len(), 1);
    assert_eq!((&end["status"]["resolvedImage"], &end["status"]["phase"]), (&json!("i:2"), &json!("Running")));
    assert_eq!(end["status"]["previousJobID"], Value::Null);
}

#[test]
fn a_reconfiguration_that_is_taken_back_ends_the_same_wherever_it_is_interrupted() {
    let end = survives_every_crash(&spec(json!({})), |world| {
        world.ready = |image| image != "bad";
        world.settle();
        let old = world.status().job_id;
        world.change(|action| action.spec.image = Some("bad".to_owned()));
        world.settle();
        assert_eq!(world.status().previous_job_id, old);
        world.pass(55);
        world.pass(55);
        assert_eq!(world.status().job_id, old);
        assert_eq!(world.condition(condition::RECONFIGURED), ("False".to_owned(), reason::ROLLED_BACK.to_owned()));
        assert_eq!(world.led_to.iter().collect::<BTreeSet<_>>().len(), 1, "nobody was ever sent to the bad pod");
    });
    assert_eq!(end["jobs"].as_array().unwrap().len(), 1);
    assert_eq!(end["status"]["resolvedImage"], "i:1");
    assert_eq!(end["others"].as_array().unwrap().len(), 2);
}

#[test]
fn an_end_is_told_and_cleared_away_wherever_that_is_interrupted() {
    let target = json!({"targetRef": {"name": "t"}, "completion": {"triggers": ["a"], "actions": ["b"]}});
    let end = survives_every_crash(&spec(target), |world| {
        world.settle();
        world.end_job("Complete", "CompletionsReached");
        world.pass(300);
        // A crash between call and status repeats the call: at least once, with the same key.
        assert!(world.delivered >= 2);
        world.delivered = 2;
    });
    assert_eq!(end["jobs"], json!([]));
    assert_eq!((&end["others"], &end["selector"]), (&json!([]), &Value::Null));
    assert_eq!((&end["status"]["phase"], &end["status"]["result"]), (&json!("Succeeded"), &json!({"ok": true})));
}

#[test]
fn a_deletion_ends_the_same_wherever_it_is_interrupted() {
    let target = json!({"targetRef": {"name": "t"}, "completion": {"triggers": ["a"]}});
    let end = survives_every_crash(&spec(target), |world| {
        world.settle();
        world.change(|action| action.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH)));
        world.settle();
        assert!(world.delivered >= 1);
        world.delivered = 1;
    });
    assert_eq!(end["status"], Value::Null);
    assert_eq!(end["jobs"], json!([]));
}

// OFF-16
#[test]
fn a_refused_job_leaves_nothing_wherever_that_is_interrupted() {
    let end = survives_every_crash(&spec(json!({})), |world| {
        world.refuses_jobs = true;
        world.settle();
        assert_eq!(world.condition(condition::FAILED), ("True".to_owned(), reason::CREATE_REJECTED.to_owned()));
    });
    assert_eq!((&end["jobs"], &end["others"], &end["selector"]), (&json!([]), &json!([]), &Value::Null));
}

#[test]
fn a_refused_job_of_a_reconfiguration_leaves_the_old_one() {
    let mut world = World::new(spec(json!({})));
    world.settle();
    let old = world.status().job_id;
    world.refuses_jobs = true;
    world.change(|action| action.spec.image = Some("i:2".to_owned()));
    world.settle();
    assert_eq!((world.status().job_id, world.jobs.len()), (old, 1));
    assert_eq!(world.condition(condition::RECONFIGURED).0, "False");
    assert_eq!(world.status().phase, Phase::Running);
}

#[test]
fn the_last_of_several_changes_remains() {
    let mut world = World::new(spec(json!({})));
    world.ready = |image| image != "bad";
    world.settle();
    for image in ["bad", "i:3"] {
        world.change(|action| action.spec.image = Some(image.to_owned()));
        world.settle();
    }
    assert_eq!((world.jobs.len(), world.status().resolved_image.as_deref()), (1, Some("i:3")));
    assert_eq!(world.status().removing, Vec::<String>::new());
}

#[test]
fn a_change_that_is_taken_back_while_it_is_under_way_ends_with_the_first_template() {
    let mut world = World::new(spec(json!({})));
    world.ready = |image| image != "bad";
    world.settle();
    for image in ["bad", "i:1"] {
        world.change(|action| action.spec.image = Some(image.to_owned()));
        world.settle();
    }
    assert_eq!((world.jobs.len(), world.status().resolved_image.as_deref()), (1, Some("i:1")));
}

// OFF-27
#[test]
fn refused_calls_wait_longer_and_longer_and_end() {
    let target = json!({"targetRef": {"name": "t"}, "completion": {"triggers": ["a"]}, "keepFailed": true});
    let mut world = World::new(spec(target));
    world.settle();
    world.acknowledges = false;
    world.end_job("Failed", "BackoffLimitExceeded");
    assert_eq!(world.condition(condition::COMPLETION_DELIVERED), ("False".to_owned(), reason::PENDING.to_owned()));
    let mut waits = Vec::new();
    while let Ok(Some(wait)) = world.reconcile() {
        waits.push(wait.as_secs());
        world.pass(i64::try_from(wait.as_secs()).unwrap());
    }
    assert_eq!(waits.get(..4), Some([1, 2, 4, 8].as_slice()));
    assert_eq!(waits.len(), 23);
    assert_eq!(world.condition(condition::COMPLETION_DELIVERED).1, reason::GAVE_UP);
}

// OFF-26
#[test]
fn what_failed_is_kept_on_request_only() {
    for (keep, left) in [(true, 1), (false, 0)] {
        let mut world = World::new(spec(json!({ "keepFailed": keep })));
        world.settle();
        world.end_job("Failed", "BackoffLimitExceeded");
        world.pass(299);
        assert_eq!(world.jobs.len(), 1);
        world.pass(1);
        assert_eq!(world.jobs.len(), left);
        assert_eq!(world.condition(condition::FAILED).1, reason::BACKOFF_LIMIT_EXCEEDED);
    }
}

#[test]
fn an_action_that_cannot_be_found_makes_nothing_and_is_told_once() {
    let mut world = World::new(json!({"action": "/guest/ping", "targetRef": {"name": "t"}}));
    let refusal = Refusal { reason: reason::ACTION_NOT_FOUND, message: "no".to_owned(), transient: false };
    world.resolved = Err(refusal);
    world.settle();
    world.settle();
    assert_eq!(world.condition(condition::ACTION_RESOLVED), ("False".to_owned(), reason::ACTION_NOT_FOUND.to_owned()));
    assert!(world.jobs.is_empty() && world.others.is_empty() && world.service.is_none());
    assert_eq!(world.events, [reason::ACTION_NOT_FOUND]);

    world.resolved = Ok(Resolution { image: "found".to_owned(), ..Resolution::default() });
    world.settle();
    assert_eq!((world.jobs.len(), world.status().phase), (1, Phase::Running));
}

#[test]
fn a_flow_that_runs_asks_for_nothing_but_the_warning_before_its_deadline() {
    let mut world = World::new(spec(json!({"timeLimitSeconds": 1000})));
    world.settle();
    let writes = world.writes;
    assert_eq!(world.reconcile().ok().flatten().map(|wait| wait.as_secs()), Some(900));
    assert_eq!(world.writes, writes, "a flow that runs is not written to");
    world.pass(900);
    assert!(world.events.contains(&reason::DEADLINE_APPROACHING));
    assert_eq!(world.reconcile().ok().flatten(), None);
    let mut unlimited = World::new(spec(json!({"timeLimitSeconds": 0})));
    unlimited.settle();
    assert_eq!(unlimited.reconcile().ok().flatten(), None);
}

#[test]
fn limits_and_configuration_change_in_place() {
    let mut world = World::new(spec(json!({})));
    world.settle();
    let job = world.status().job_id;
    world.change(|action| {
        action.spec.time_limit_seconds = 10;
        action.spec.runtime_conf = Some([("a".to_owned(), String::new())].into());
        action.spec.service.type_ = crate::api::ServiceType::None;
    });
    world.settle();
    assert_eq!((world.status().job_id, world.jobs.len()), (job.clone(), 1));
    let spec = world.jobs[&job.unwrap()].spec.clone().unwrap();
    assert_eq!(spec.active_deadline_seconds, Some(10));
    assert!(world.service.is_none() && world.condition(condition::SERVICE_READY).0.is_empty());
    assert_eq!(world.status().observed_generation, Some(2));
}

#[test]
fn a_suspended_flow_is_not_started() {
    let mut world = World::new(spec(json!({"suspend": true})));
    world.settle();
    assert_eq!((world.jobs.len(), world.status().phase), (0, Phase::Pending));
    world.change(|action| action.spec.suspend = false);
    world.settle();
    assert_eq!((world.jobs.len(), world.status().phase), (1, Phase::Running));
}

#[test]
fn a_flow_that_ended_starts_anew_when_its_template_changes() {
    let mut world = World::new(spec(json!({})));
    world.settle();
    let first = world.status().job_id;
    world.end_job("Failed", "DeadlineExceeded");
    assert_eq!(world.condition(condition::FAILED).1, reason::DEADLINE_EXCEEDED);
    world.change(|action| action.spec.image = Some("i:2".to_owned()));
    world.settle();
    assert_ne!(world.status().job_id, first);
    assert_eq!((world.jobs.len(), world.status().phase, world.status().log_tail), (1, Phase::Running, None));
}
