//! Everything that could favour a side, and how it is set.

use serde::Serialize;

/// One setting on each side.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Knob {
    pub(crate) name: &'static str,
    pub(crate) go: String,
    pub(crate) kube_rs: String,
    pub(crate) floor: String,
    pub(crate) guests: String,
}

/// All of them, for a machine with so many processors.
pub(crate) fn all(cores: usize) -> Vec<Knob> {
    let tokio = format!("tokio, {cores} worker threads a process (its default)");
    vec![
        knob(
            "Framework",
            [
                "controller-runtime 0.25.2, client-go 0.37.0",
                "kube 5.0.0 with its runtime",
                "kube 5.0.0, client only",
                "this checkout, guests with kube 5.0.0",
            ],
        ),
        knob(
            "Build",
            [
                "go build, CGO_ENABLED=0",
                "release profile of this workspace, static musl",
                "the same",
                "the same; guests with its profile for guests (size, whole-program optimisation), for wasm32-wasip2",
            ],
        ),
        knob(
            "Threads",
            [
                &format!("GOMAXPROCS {cores} (default)"),
                &tokio,
                &tokio,
                &format!("1 for the host and short runs of guests, {cores} for longer ones (default)"),
            ],
        ),
        knob(
            "Garbage collection, allocator",
            ["GOGC 100, no GOMEMLIMIT (default)", "musl's malloc", "musl's malloc", "musl's malloc"],
        ),
        knob(
            "What is watched",
            [
                "each: both of its namespaces; one process: all namespaces, one shared informer",
                "each: both of its namespaces; one process: all namespaces, one shared store",
                "all namespaces",
                "all namespaces, one shared stream",
            ],
        ),
        knob("The target is read from", ["the informer's cache", "the reflector's store", "a map", "the host's cache"]),
        knob("Write", ["one PUT with the version read"; 4]),
        knob(
            "Resync",
            ["none (the default: 10 h, longer than any repeat)", "none (default)", "none", "none (default)"],
        ),
        knob("Client-side rate limit", ["none (QPS -1, the default of controller-runtime)", "none", "none", "none"]),
        knob("Workers per controller", ["1 (default)", "unbounded, one key here (default)", "1", "1 (default)"]),
        knob(
            "Delay before a key is handled",
            ["none", "kube's scheduler, rounds up to 1 ms (default)", "none", "none"],
        ),
        knob(
            "HTTP",
            [
                "HTTP/2, one connection a process",
                "HTTP/1.1, Nagle's algorithm as kube leaves it",
                "HTTP/1.1, as kube-rs",
                "HTTP/1.1, Nagle's algorithm off",
            ],
        ),
        knob("TLS", ["Go's own", "rustls with ring", "rustls with ring", "rustls with ring"]),
        knob(
            "Compression",
            ["asks for gzip; the API server uses it above 128 KiB", "not asked for", "not asked for", "not asked for"],
        ),
        knob(
            "Initial list",
            [
                "streamed (WatchList, default of client-go)",
                "list, then watch (default)",
                "list, then watch",
                "list, then watch",
            ],
        ),
        knob(
            "Identity",
            [
                "ServiceAccount token; RBAC: a role in its namespaces, or for all",
                "the same",
                "the same, for all",
                "the host's ServiceAccount token, impersonating one account per guest; RBAC per guest",
            ],
        ),
        knob("Metrics, leader election", ["off", "none", "none", "metrics and health served; no leader election"]),
        knob(
            "Logs",
            [
                "controller-runtime's production logger, to a file",
                "warnings and more, to a file",
                "the same",
                "JSON at the default level, to a pipe",
            ],
        ),
    ]
}

fn knob<T: ToString + ?Sized>(name: &'static str, [go, kube_rs, floor, guests]: [&T; 4]) -> Knob {
    Knob {
        name,
        go: go.to_string(),
        kube_rs: kube_rs.to_string(),
        floor: floor.to_string(),
        guests: guests.to_string(),
    }
}

/// The same for all sides.
pub(crate) const COMMON: &str = "The same for all: one control plane on loopback (etcd with `--unsafe-no-fsync`, no audit log, no \
    controller manager), the same namespaces, the same driver with one watch of its own, one nonce in the ring at a time. Nothing is set \
    that is not named here: processes start with an empty environment but for the kubeconfig and their namespaces.";
