//! Command lines of the components.

use std::net::SocketAddr;
use std::path::Path;

use crate::pki::Pair;

/// Address of the Service `kubernetes`: the first of the service range.
pub(crate) const SERVICE_ADDRESS: &str = "10.96.0.1";
const SERVICE_RANGE: &str = "10.96.0.0/16";

/// Files that several components need.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    pub(crate) authority: Pair,
    pub(crate) serving: Pair,
    pub(crate) service_account: Pair,
    pub(crate) tokens: std::path::PathBuf,
}

fn flag(name: &str, value: impl std::fmt::Display) -> String {
    format!("--{name}={value}")
}

fn path(name: &str, value: &Path) -> String {
    flag(name, value.display())
}

pub(crate) fn etcd(data: &Path, client_port: u16, peer_port: u16) -> Vec<String> {
    let client = format!("http://127.0.0.1:{client_port}");
    let peer = format!("http://127.0.0.1:{peer_port}");
    vec![
        path("data-dir", data),
        flag("listen-client-urls", &client),
        flag("advertise-client-urls", &client),
        flag("listen-peer-urls", &peer),
        flag("initial-advertise-peer-urls", &peer),
        flag("initial-cluster", format!("default={peer}")),
        // The data is thrown away; waiting for the disk would be the largest part of every write.
        "--unsafe-no-fsync".to_owned(),
        flag("log-level", "warn"),
    ]
}

pub(crate) fn apiserver(address: SocketAddr, etcd_url: &str, files: &Files) -> Vec<String> {
    vec![
        flag("etcd-servers", etcd_url),
        flag("bind-address", address.ip()),
        flag("advertise-address", address.ip()),
        // Endpoints refuse loopback addresses; what pods there are reach the address that it listens on.
        flag("endpoint-reconciler-type", "none"),
        flag("secure-port", address.port()),
        path("tls-cert-file", &files.serving.certificate),
        path("tls-private-key-file", &files.serving.key),
        path("client-ca-file", &files.authority.certificate),
        path("token-auth-file", &files.tokens),
        flag("authorization-mode", "RBAC"),
        flag("service-cluster-ip-range", SERVICE_RANGE),
        flag("service-account-issuer", "https://kubernetes.default.svc"),
        path("service-account-key-file", &files.service_account.certificate),
        path("service-account-signing-key-file", &files.service_account.key),
        flag("allow-privileged", true),
        // Nodes, simulated or not, have names that nothing resolves.
        flag("kubelet-preferred-address-types", "InternalIP"),
    ]
}

pub(crate) fn controller_manager(kubeconfig: &Path, files: &Files) -> Vec<String> {
    vec![
        path("kubeconfig", kubeconfig),
        path("root-ca-file", &files.authority.certificate),
        path("cluster-signing-cert-file", &files.authority.certificate),
        path("cluster-signing-key-file", &files.authority.key),
        path("service-account-private-key-file", &files.service_account.key),
        flag("use-service-account-credentials", true),
        flag("leader-elect", false),
        // It serves only metrics and health, which nobody reads here: one port less.
        flag("secure-port", 0),
        // The defaults (20 and 30 a second) protect a shared server. Here they only make tests wait.
        flag("kube-api-qps", 500),
        flag("kube-api-burst", 1000),
    ]
}

pub(crate) fn scheduler(kubeconfig: &Path) -> Vec<String> {
    vec![
        path("kubeconfig", kubeconfig),
        flag("leader-elect", false),
        flag("secure-port", 0),
        flag("kube-api-qps", 500),
        flag("kube-api-burst", 1000),
    ]
}

pub(crate) fn kwok(kubeconfig: &Path, configuration: &Path, address: SocketAddr, files: &Files) -> Vec<String> {
    vec![
        path("kubeconfig", kubeconfig),
        path("config", configuration),
        // Where each node says that its kubelet is. Only `pods/log` comes here.
        flag("node-ip", address.ip()),
        flag("node-port", address.port()),
        flag("server-address", address),
        path("tls-cert-file", &files.serving.certificate),
        path("tls-private-key-file", &files.serving.key),
    ]
}
