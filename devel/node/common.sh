# Sourced by `up`, `down` and `load`: what the node is called and where it keeps its things.

state=/var/lib/wasm-operator-node # open to root only; `down` removes it
logs=$state/log
bridge=wasm-operator0
# What pods need is on the bridge and nowhere else: the gateway of their network, and the address of the Service `kubernetes`, which kube-apiserver itself
# listens on. So there is neither kube-proxy nor any packet filter rule.
pod_network=10.244.0.0/24
gateway=10.244.0.1
apiserver=10.96.0.1
node=node
socket=$state/containerd.sock
# Below the root of each hierarchy: pods, and the processes that containerd runs beside them.
pods_cgroup=kubepods
shims_cgroup=wasm-operator-shims
# What a kubelet changes of the machine.
kernel_settings="kernel.panic kernel.panic_on_oops vm.overcommit_memory vm.panic_on_oom kernel.keys.root_maxkeys kernel.keys.root_maxbytes net.ipv4.ip_forward"

# Where kubelet, containerd and CNI leave things wherever they are told to be. `down` removes those that were not there before.
fixed_directories="/var/lib/kubelet /var/lib/cni /run/containerd"

fail() {
    echo "error: $*" >&2
    exit 1
}

need_root() {
    [ "$(id -u)" = 0 ] || fail "a node needs root: it makes network devices, cgroups and mounts. Run this with sudo"
}

containers() { # arguments of ctr
    ctr --address "$socket" --namespace k8s.io "$@"
}

# The hierarchies that processes are accounted in: the one of version 2, or that of memory in version 1.
memory_hierarchy() {
    if [ -f /sys/fs/cgroup/cgroup.controllers ]; then echo /sys/fs/cgroup; else echo /sys/fs/cgroup/memory; fi
}
