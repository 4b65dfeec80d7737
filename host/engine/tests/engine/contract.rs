//! Components that are no controllers of this version, and what is read off one.

use wasm_operator_core::limits::Limits;
use wasm_operator_engine::{GuestLogs, LoadError};

use crate::guests::{Guest, component};
use crate::support::{Host, instance, nothing, request, settings};

const TWO_EXPORTS: &str = r#"(module
  (memory (export "memory") 1)
  (func (export "describe") (result i32) (i32.const 0)) (func (export "reconcile") (result i32) (i32.const 0)))"#;

async fn refusal(component: &[u8]) -> LoadError {
    let host = Host::new();
    let artifact = host.prepare(component).await;
    host.engine.load(&artifact).err().unwrap()
}

#[tokio::test]
async fn another_version_of_the_contract_is_refused_by_name() {
    let error = refusal(&component("later", TWO_EXPORTS)).await;
    assert!(
        matches!(&error, LoadError::Version { found } if found == "wasm-operator:controller/types@0.2.0"),
        "{error}"
    );
}

#[tokio::test]
async fn a_component_without_the_exports_is_refused() {
    let error = refusal(&component("command", r#"(module (func (export "run")))"#)).await;
    assert!(matches!(error, LoadError::MissingExports { .. }), "{error}");
    assert!(error.to_string().contains("`describe`, `reconcile`; it exports `run`"), "{error}");
}

#[tokio::test]
async fn exports_of_another_type_are_refused() {
    let error = refusal(&component("wrong-signature", TWO_EXPORTS)).await;
    assert!(matches!(error, LoadError::Link(_)), "{error}");
}

#[tokio::test]
async fn imports_that_nobody_provides_are_refused_by_name() {
    let guest = Guest { imports: r#"(import "$root" "query" (func))"#, ..Guest::default() };
    let error = refusal(&guest.build_for("foreign-import")).await;
    assert!(matches!(&error, LoadError::UnknownImports { imports } if imports == &["query"]), "{error}");
}

#[tokio::test]
async fn a_component_tells_its_imports_and_exports() {
    let interface = Host::new().load(&crate::guests::http("", "(call $exchange)")).await.interface().clone();
    assert!(interface.imports.contains(&"wasi:http/outgoing-handler@0.2.9".to_owned()), "{interface:?}");
    assert_eq!(interface.exports, ["describe", "reconcile"]);
}

#[tokio::test]
async fn the_whole_content_of_an_object_crosses() {
    // Sums the bytes of the content, which is larger than a host call may carry in the other direction.
    let guest = Guest {
        items: r#"(func $sum (param $at i32) (param $length i32) (result i64) (local $sum i64)
          (loop $more
            (local.set $sum (i64.add (local.get $sum) (i64.load8_u (local.get $at))))
            (local.set $at (i32.add (local.get $at) (i32.const 1)))
            (local.set $length (i32.sub (local.get $length) (i32.const 1)))
            (br_if $more (local.get $length)))
          (local.get $sum))"#,
        reconcile: "(call $requeue (call $sum (i32.load (i32.add (local.get $request) (i32.const 32)))
            (i32.load (i32.add (local.get $request) (i32.const 36)))))",
        ..Guest::default()
    };
    let host = Host::new();
    let component = host.load(&guest.build()).await;
    let mut request = request();
    request.content = Some(vec![3; 8 << 20].into());
    let answer = instance(&component, Limits::default(), nothing()).await.reconcile(&request).await;
    assert_eq!(crate::support::number(answer), 3 * (8 << 20));
}

#[tokio::test]
async fn a_description_without_bounds_is_refused() {
    // A list of 100 controllers, all zeroes: empty names.
    let guest = Guest {
        pages: 2,
        describe: "(i32.store (i32.const 1028) (i32.const 16384)) (i32.store (i32.const 1032) (i32.const 100))
            (i32.const 1024)",
        ..Guest::default()
    };
    let component = Host::new().load(&guest.build()).await;
    let error = component.describe(&settings(Limits::default()), &GuestLogs::discard()).await.unwrap_err();
    assert!(error.to_string().contains("100 controllers, at most 64"), "{error}");
    assert_eq!(error.kind(), "describe");
}

#[tokio::test]
async fn an_empty_description_is_taken_as_it_is() {
    let component = Host::new().load(&Guest::default().build()).await;
    let description = component.describe(&settings(Limits::default()), &GuestLogs::discard()).await.unwrap();
    assert!(description.controllers.is_empty() && description.permissions.is_empty());
}
