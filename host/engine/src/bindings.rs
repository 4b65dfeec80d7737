//! Generated from `wit/controller.wit`.

#![allow(missing_docs, unreachable_pub, clippy::all, reason = "generated code")]

wasmtime::component::bindgen!({
    path: "../../wit",
    world: "controller",
    exports: { default: async },
    // Requests are passed by reference: an object may have megabytes.
    ownership: Borrowing { duplicate_if_necessary: true },
});
