// The ring as its users would write it with controller-runtime: what the benchmark compares guests with.
//
// One controller per process, in the namespaces of IN_NAMESPACE and OUT_NAMESPACE, or with --all N a controller for each of
// the namespaces <prefix>0 to <prefix>N-1 in one process, which then share a cache. The rule by which a nonce travels is that
// of guests/ring.
package main

import (
	"flag"
	"fmt"
	"os"

	"k8s.io/apimachinery/pkg/runtime"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"
)

func main() {
	all := flag.Int("all", 0, "run so many controllers in this process")
	prefix := flag.String("prefix", "ring-", "with --all: what the names of the namespaces begin with")
	flag.Parse()
	ctrl.SetLogger(zap.New())
	if err := run(*all, *prefix); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run(all int, prefix string) error {
	scheme := runtime.NewScheme()
	if err := AddToScheme(scheme); err != nil {
		return err
	}
	pairs, caches, err := namespaces(all, prefix)
	if err != nil {
		return err
	}
	config, err := ctrl.GetConfig()
	if err != nil {
		return err
	}
	mgr, err := ctrl.NewManager(config, manager.Options{
		Scheme: scheme,
		Cache:  caches,
		// Hundreds of processes on one machine cannot all have the default port.
		Metrics: server.Options{BindAddress: "0"},
	})
	if err != nil {
		return err
	}
	for _, pair := range pairs {
		if err := (&RingReconciler{Client: mgr.GetClient(), In: pair.in, Out: pair.out}).SetupWithManager(mgr); err != nil {
			return err
		}
	}
	return mgr.Start(ctrl.SetupSignalHandler())
}

type pair struct{ in, out string }

func namespaces(all int, prefix string) ([]pair, cache.Options, error) {
	if all == 0 {
		only := pair{os.Getenv("IN_NAMESPACE"), os.Getenv("OUT_NAMESPACE")}
		if only.in == "" || only.out == "" {
			return nil, cache.Options{}, fmt.Errorf("set IN_NAMESPACE and OUT_NAMESPACE, or --all")
		}
		// It has rights in these two only.
		scope := map[string]cache.Config{only.in: {}, only.out: {}}
		return []pair{only}, cache.Options{DefaultNamespaces: scope}, nil
	}
	pairs := make([]pair, all)
	// A single controller needs a second namespace to write to.
	count := max(all, 2)
	for i := range pairs {
		pairs[i] = pair{fmt.Sprintf("%s%d", prefix, i), fmt.Sprintf("%s%d", prefix, (i+1)%count)}
	}
	return pairs, cache.Options{}, nil
}
