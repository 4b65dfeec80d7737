package main

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// TestResource is what travels round the ring; guests/ring/crd.yaml is its definition.
type TestResource struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              TestResourceSpec `json:"spec"`
}

// TestResourceSpec is the part that is passed on.
type TestResourceSpec struct {
	Nonce     int64  `json:"nonce"`
	UpdatedAt string `json:"updatedAt,omitempty"`
}

// TestResourceList is the answer to a list.
type TestResourceList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []TestResource `json:"items"`
}

// AddToScheme registers the types.
func AddToScheme(scheme *runtime.Scheme) error {
	version := schema.GroupVersion{Group: "ring.wasm-operator.dev", Version: "v1"}
	scheme.AddKnownTypes(version, &TestResource{}, &TestResourceList{})
	metav1.AddToGroupVersion(scheme, version)
	return nil
}

// DeepCopyInto is what controller-gen would generate.
func (in *TestResource) DeepCopyInto(out *TestResource) {
	*out = *in
	in.ObjectMeta.DeepCopyInto(&out.ObjectMeta)
}

// DeepCopyObject implements runtime.Object.
func (in *TestResource) DeepCopyObject() runtime.Object {
	out := new(TestResource)
	in.DeepCopyInto(out)
	return out
}

// DeepCopyObject implements runtime.Object.
func (in *TestResourceList) DeepCopyObject() runtime.Object {
	out := new(TestResourceList)
	*out = *in
	in.ListMeta.DeepCopyInto(&out.ListMeta)
	out.Items = make([]TestResource, len(in.Items))
	for i := range in.Items {
		in.Items[i].DeepCopyInto(&out.Items[i])
	}
	return out
}
