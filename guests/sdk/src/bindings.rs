//! Generated from `wit/controller.wit`, where each type and function is documented.
#![allow(missing_docs, unreachable_pub, unsafe_code, clippy::all, clippy::pedantic, clippy::restriction)]

wit_bindgen::generate!({
    path: "../../wit",
    world: "controller",
    generate_all,
    pub_export_macro: true,
    default_bindings_module: "wasm_operator_sdk::bindings",
    additional_derives: [PartialEq],
});
