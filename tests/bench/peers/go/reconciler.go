package main

import (
	"context"
	"strconv"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
)

// originAnnotation says where a lap began, so that it ends there: <namespace>/<nonce>.
const originAnnotation = "ring.wasm-operator.dev/origin"

// RingReconciler passes a new nonce on from one namespace to the next.
type RingReconciler struct {
	client.Client
	In, Out string
}

// Reconcile reads both objects from the cache and sends one PUT.
func (r *RingReconciler) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	var object TestResource
	if err := r.Get(ctx, request.NamespacedName, &object); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	origin := originOf(&object)
	if strings.HasPrefix(origin, r.Out+"/") {
		return ctrl.Result{}, nil
	}
	var target TestResource
	err := r.Get(ctx, client.ObjectKey{Namespace: r.Out, Name: object.Name}, &target)
	if apierrors.IsNotFound(err) {
		target.ObjectMeta = metav1.ObjectMeta{Namespace: r.Out, Name: object.Name}
		pass(&object, &target, origin)
		return ctrl.Result{}, r.Create(ctx, &target)
	}
	if err != nil {
		return ctrl.Result{}, err
	}
	if target.Spec.Nonce > object.Spec.Nonce ||
		target.Spec == object.Spec && target.Annotations[originAnnotation] == origin {
		return ctrl.Result{}, nil
	}
	pass(&object, &target, origin)
	return ctrl.Result{}, r.Update(ctx, &target)
}

func originOf(object *TestResource) string {
	nonce := strconv.FormatInt(object.Spec.Nonce, 10)
	if carried := object.Annotations[originAnnotation]; strings.HasSuffix(carried, "/"+nonce) {
		return carried
	}
	return object.Namespace + "/" + nonce
}

func pass(object, target *TestResource, origin string) {
	if target.Annotations == nil {
		target.Annotations = map[string]string{}
	}
	target.Annotations[originAnnotation] = origin
	target.Spec = object.Spec
}

// SetupWithManager registers the controller.
func (r *RingReconciler) SetupWithManager(mgr ctrl.Manager) error {
	mine := predicate.NewPredicateFuncs(func(object client.Object) bool { return object.GetNamespace() == r.In })
	return ctrl.NewControllerManagedBy(mgr).
		Named(r.In).
		For(&TestResource{}, builder.WithPredicates(mine, predicate.GenerationChangedPredicate{})).
		Complete(r)
}
