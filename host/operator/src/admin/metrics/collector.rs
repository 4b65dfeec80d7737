//! The text of the guests' metrics.

use std::collections::BTreeMap;
use std::fmt::{self, Error};
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::exemplar::Exemplar;
use wasm_operator_core::dispatch::{Priority, Tally};

use super::guest::{GuestNumbers, Hibernations};
use super::histogram::{Histogram, Reading};
use super::{Current, Metrics};
use crate::why::word;

const STATES: [&str; 7] = ["loading", "cold", "dormant", "hibernated", "awake", "failed", "suspended"];

pub(super) struct Guests(pub(super) Metrics);

impl fmt::Debug for Guests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Guests")
    }
}

/// Counters need the type of exemplars, which nothing here has.
const NO_EXEMPLAR: Option<&Exemplar<NoLabelSet, f64>> = None;

pub(super) fn counter(encoder: &mut MetricEncoder<'_>, labels: &impl EncodeLabelSet, value: u64) -> fmt::Result {
    encoder.encode_family(labels)?.encode_counter(&value, NO_EXEMPLAR)
}

pub(super) fn counter_seconds(
    encoder: &mut MetricEncoder<'_>,
    labels: &impl EncodeLabelSet,
    value: f64,
) -> fmt::Result {
    encoder.encode_family(labels)?.encode_counter(&value, NO_EXEMPLAR)
}

fn histogram(encoder: &mut MetricEncoder<'_>, labels: &impl EncodeLabelSet, histogram: &Histogram) -> fmt::Result {
    match histogram.read() {
        Some(Reading { sum, count, buckets }) => {
            encoder.encode_family(labels)?.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
        }
        None => Ok(()),
    }
}

impl Collector for Guests {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let numbers = self.0.0.guests.read().clone();
        let current = self.0.0.source.read().as_ref().map(|source| source()).unwrap_or_default();
        reconciles(&mut encoder, &numbers, &current)?;
        work_queue(&mut encoder, &numbers, &current)?;
        requests(&mut encoder, &numbers, &current)?;
        let mut family = encoder.encode_descriptor(
            "wasm_operator_front_door_refused",
            "Callers that were not let in, or asked for no guest, by the status code of the answer",
            None,
            MetricType::Counter,
        )?;
        for (code, count) in self.0.0.not_admitted.read() {
            counter(&mut family, &[("code", code.to_string())], count)?;
        }
        life(&mut encoder, &numbers, &current)?;
        hibernation(&mut encoder, &numbers)?;
        if let Some(bytes) = self.0.0.disk.read().as_ref().map(|bytes| bytes()) {
            let help = "Bytes on disk of hibernated programs and the images that they share";
            let name = "wasm_operator_hibernation_disk_bytes";
            encoder.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&bytes)?;
        }
        Ok(())
    }
}

type Numbers = BTreeMap<Arc<str>, Arc<GuestNumbers>>;

fn reconciles(encoder: &mut DescriptorEncoder<'_>, numbers: &Numbers, current: &[Current]) -> fmt::Result {
    let mut family = encoder.encode_descriptor(
        "controller_runtime_reconcile",
        "Reconciles by result; the controller is the guest",
        None,
        MetricType::Counter,
    )?;
    for (guest, numbers) in numbers.iter().filter(|(_, numbers)| numbers.reconciles.total() > 0) {
        for (result, count) in numbers.reconciles.read() {
            counter(&mut family, &[("controller", &**guest), ("result", result)], count)?;
        }
    }
    let mut family = encoder.encode_descriptor(
        "controller_runtime_reconcile_errors",
        "Reconciles that failed",
        None,
        MetricType::Counter,
    )?;
    for (guest, numbers) in numbers {
        counter(&mut family, &[("controller", &**guest)], numbers.errors())?;
    }
    let mut family = encoder.encode_descriptor(
        "controller_runtime_reconcile_time_seconds",
        "Time of a reconcile, waking included",
        None,
        MetricType::Histogram,
    )?;
    for (guest, numbers) in numbers {
        histogram(&mut family, &[("controller", &**guest)], &numbers.reconcile_time)?;
    }
    let mut family = encoder.encode_descriptor(
        "controller_runtime_max_concurrent_reconciles",
        "Reconciles that a guest may run at once",
        None,
        MetricType::Gauge,
    )?;
    for guest in current {
        family.encode_family(&[("controller", &*guest.guest)])?.encode_gauge(&guest.concurrency)?;
    }
    let mut family = encoder.encode_descriptor(
        "controller_runtime_active_workers",
        "Reconciles under way",
        None,
        MetricType::Gauge,
    )?;
    for guest in current {
        family.encode_family(&[("controller", &*guest.guest)])?.encode_gauge(&guest.snapshot.running)?;
    }
    Ok(())
}

fn work_queue(encoder: &mut DescriptorEncoder<'_>, numbers: &Numbers, current: &[Current]) -> fmt::Result {
    let labels = |guest: &Arc<str>| [("name", Arc::clone(guest)), ("controller", Arc::clone(guest))];
    let mut family = encoder.encode_descriptor(
        "workqueue_depth",
        "Keys that wait for a reconcile, by priority",
        None,
        MetricType::Gauge,
    )?;
    for guest in current {
        let depth = &guest.snapshot.depth;
        let normal = [(Priority::NORMAL, depth.get(&Priority::NORMAL).copied().unwrap_or_default())];
        let others = depth.iter().map(|(priority, count)| (*priority, *count)).filter(|(p, _)| *p != Priority::NORMAL);
        for (priority, count) in normal.into_iter().chain(others) {
            let [name, controller] = labels(&guest.guest);
            let labels = [name, controller, ("priority", Arc::from(priority.0.to_string()))];
            family.encode_family(&labels)?.encode_gauge(&count)?;
        }
    }
    let mut family = encoder.encode_descriptor("workqueue_adds", "Keys that were queued", None, MetricType::Counter)?;
    for guest in current {
        counter(&mut family, &labels(&guest.guest), guest.snapshot.adds)?;
    }
    let mut family = encoder.encode_descriptor(
        "workqueue_retries",
        "Keys that failed and were queued for another attempt",
        None,
        MetricType::Counter,
    )?;
    for guest in current {
        counter(&mut family, &labels(&guest.guest), guest.snapshot.retries)?;
    }
    let mut family = encoder.encode_descriptor(
        "workqueue_queue_duration_seconds",
        "Time from when a key is due until its reconcile begins",
        None,
        MetricType::Histogram,
    )?;
    for (guest, numbers) in numbers {
        histogram(&mut family, &labels(guest), &numbers.queued)?;
    }
    let mut family = encoder.encode_descriptor(
        "workqueue_work_duration_seconds",
        "Time of a reconcile, waking included",
        None,
        MetricType::Histogram,
    )?;
    for (guest, numbers) in numbers {
        histogram(&mut family, &labels(guest), &numbers.reconcile_time)?;
    }
    let mut family = encoder.encode_descriptor(
        "workqueue_unfinished_work_seconds",
        "How long all reconciles under way have been running, together",
        None,
        MetricType::Gauge,
    )?;
    for guest in current {
        family.encode_family(&labels(&guest.guest))?.encode_gauge(&guest.snapshot.unfinished.as_secs_f64())?;
    }
    let mut family = encoder.encode_descriptor(
        "workqueue_longest_running_processor_seconds",
        "How long the oldest reconcile under way has been running",
        None,
        MetricType::Gauge,
    )?;
    for guest in current {
        family.encode_family(&labels(&guest.guest))?.encode_gauge(&guest.snapshot.longest_running.as_secs_f64())?;
    }
    Ok(())
}

fn requests(encoder: &mut DescriptorEncoder<'_>, numbers: &Numbers, current: &[Current]) -> fmt::Result {
    let mut family = encoder.encode_descriptor(
        "wasm_operator_guest_requests",
        "Requests for a guest at the front door, by status code",
        None,
        MetricType::Counter,
    )?;
    for (guest, numbers) in numbers {
        for (code, count) in numbers.codes.read() {
            counter(&mut family, &[("guest", guest.to_string()), ("code", code.to_string())], count)?;
        }
    }
    let mut family = encoder.encode_descriptor(
        "wasm_operator_guest_request_duration_seconds",
        "Time of a request from its head to the end of the answer, waiting and waking included",
        None,
        MetricType::Histogram,
    )?;
    for (guest, numbers) in numbers {
        histogram(&mut family, &[("guest", &**guest)], &numbers.request_time)?;
    }
    let mut family = encoder.encode_descriptor(
        "wasm_operator_guest_requests_in_flight",
        "Requests that a guest serves at the moment, and that wait for it",
        None,
        MetricType::Gauge,
    )?;
    // Guests that have never served anything have none.
    let serves = |guest: &&Current| {
        let counted = numbers.get(&guest.guest).is_some_and(|numbers| !numbers.codes.is_empty());
        counted || guest.snapshot.requests_running > 0 || guest.snapshot.requests_waiting > 0
    };
    for guest in current.iter().filter(serves) {
        for (phase, count) in
            [("serving", guest.snapshot.requests_running), ("waiting", guest.snapshot.requests_waiting)]
        {
            family.encode_family(&[("guest", &*guest.guest), ("phase", phase)])?.encode_gauge(&count)?;
        }
    }
    Ok(())
}

/// Of programs that were, or should have been.
fn hibernation(encoder: &mut DescriptorEncoder<'_>, numbers: &Numbers) -> fmt::Result {
    type Count = fn(&Hibernations) -> u64;
    let mut family = encoder.encode_descriptor(
        "wasm_operator_guest_hibernation_duration_seconds",
        "Time to write a program's memory to disk",
        None,
        MetricType::Histogram,
    )?;
    for (guest, numbers) in numbers {
        histogram(&mut family, &[("guest", &**guest)], &numbers.hibernation)?;
    }
    let mut family = encoder.encode_descriptor(
        "wasm_operator_guest_first_request_delay_seconds",
        "Time from a hibernated program's wake to the first request that it sends, if it sends one before it rests again",
        None,
        MetricType::Histogram,
    )?;
    for (guest, numbers) in numbers {
        histogram(&mut family, &[("guest", &**guest)], &numbers.first_request)?;
    }
    let counts = numbers.iter().map(|(guest, numbers)| (guest, numbers.hibernations()));
    let counts: Vec<_> = counts.filter(|(_, counts)| *counts != Hibernations::default()).collect();
    let families: [(&str, &str, Count); 4] = [
        (
            "wasm_operator_guest_hibernation_written_bytes",
            "Bytes of a program's memory that were written to disk",
            |counts| counts.written,
        ),
        (
            "wasm_operator_guest_hibernation_read_ahead_bytes",
            "Bytes of a program's memory that were read ahead of a predicted event or a timer",
            |counts| counts.read_ahead,
        ),
        (
            "wasm_operator_guest_hibernation_contexts",
            "How often the contexts of a program that rested on disk were written there as well",
            |counts| counts.contexts,
        ),
        (
            "wasm_operator_guest_hibernation_failures",
            "How often a program stayed awake because it could not be written to disk",
            |counts| counts.failures,
        ),
    ];
    for (name, help, count) in families {
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (guest, counts) in &counts {
            counter(&mut family, &[("guest", &***guest)], count(counts))?;
        }
    }
    Ok(())
}

fn life(encoder: &mut DescriptorEncoder<'_>, numbers: &Numbers, current: &[Current]) -> fmt::Result {
    let mut family = encoder.encode_descriptor(
        "wasm_operator_guest_state",
        "1 for the state that a guest is in, 0 for the others",
        None,
        MetricType::Gauge,
    )?;
    for guest in current {
        let now = word(guest.snapshot.state);
        for state in STATES {
            let labels = [("guest", &*guest.guest), ("state", state)];
            family.encode_family(&labels)?.encode_gauge(&u32::from(state == now))?;
        }
    }
    let mut family = encoder.encode_descriptor(
        "wasm_operator_guest_resident_seconds",
        "Time that a guest has been awake",
        None,
        MetricType::Counter,
    )?;
    for guest in current {
        counter_seconds(&mut family, &[("guest", &*guest.guest)], guest.snapshot.resident.as_secs_f64())?;
    }
    let mut family = encoder.encode_descriptor(
        "wasm_operator_guest_prediction",
        "Events that found a guest in memory (hit) or had to wake it (miss), and times that it was made ready for nothing (wasted)",
        None,
        MetricType::Counter,
    )?;
    for guest in current.iter().filter(|guest| guest.snapshot.predicted != Tally::default()) {
        let Tally { hits, misses, wasted, .. } = guest.snapshot.predicted;
        for (outcome, count) in [("hit", hits), ("miss", misses), ("wasted", wasted)] {
            counter(&mut family, &[("guest", &*guest.guest), ("outcome", outcome)], count)?;
        }
    }
    let mut family = encoder.encode_descriptor(
        "wasm_operator_guest_delay_saved_seconds",
        "Delay that events were saved by finding a guest in memory",
        None,
        MetricType::Counter,
    )?;
    for guest in current.iter().filter(|guest| guest.snapshot.predicted != Tally::default()) {
        let saved = guest.snapshot.predicted.delay_saved.as_secs_f64();
        counter_seconds(&mut family, &[("guest", &*guest.guest)], saved)?;
    }
    let mut family = encoder.encode_descriptor(
        "wasm_operator_guest_memory_bytes",
        "Linear memory of a guest's instances; 0 asleep",
        None,
        MetricType::Gauge,
    )?;
    for (guest, numbers) in numbers {
        family.encode_family(&[("guest", &**guest)])?.encode_gauge(&numbers.memory())?;
    }
    let mut family = encoder.encode_descriptor(
        "wasm_operator_guest_wakes",
        "Wakes by what caused them",
        None,
        MetricType::Counter,
    )?;
    for (guest, numbers) in numbers {
        for (reason, count) in numbers.wakes.read() {
            counter(&mut family, &[("guest", &**guest), ("reason", reason)], count)?;
        }
    }
    let mut family = encoder.encode_descriptor(
        "wasm_operator_guest_wake_duration_seconds",
        "Time to make an instance, from a mapped component (dormant) or from its file (cold); of a hibernated program, its first turn",
        None,
        MetricType::Histogram,
    )?;
    for (guest, numbers) in numbers {
        for (path, times) in [("dormant", &numbers.wake_from_dormant), ("cold", &numbers.wake_from_cold)] {
            histogram(&mut family, &[("guest", &**guest), ("path", path)], times)?;
        }
    }
    let mut family = encoder.encode_descriptor(
        "wasm_operator_guest_compile_duration_seconds",
        "Time that it took to compile a guest's component, the last time that it was not in the cache",
        None,
        MetricType::Gauge,
    )?;
    for (guest, numbers) in numbers {
        if let Some(took) = numbers.compile_time() {
            family.encode_family(&[("guest", &**guest)])?.encode_gauge(&took.as_secs_f64())?;
        }
    }
    let mut family = encoder.encode_descriptor(
        "wasm_operator_guest_sleeps",
        "How often a guest's instances were dropped, by reason",
        None,
        MetricType::Counter,
    )?;
    for (guest, numbers) in numbers.iter().filter(|(_, numbers)| numbers.sleeps.total() > 0) {
        for (reason, count) in numbers.sleeps.read() {
            counter(&mut family, &[("guest", &**guest), ("reason", reason)], count)?;
        }
    }
    let mut family = encoder.encode_descriptor(
        "wasm_operator_guest_traps",
        "How often a guest broke off: a trap or a broken limit",
        None,
        MetricType::Counter,
    )?;
    for (guest, numbers) in numbers {
        for (kind, count) in numbers.traps() {
            counter(&mut family, &[("guest", &**guest), ("kind", kind)], count)?;
        }
    }
    Ok(())
}
