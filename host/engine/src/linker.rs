//! What a guest can import.

use wasmtime::component::{Linker, Resource};
use wasmtime::{Engine, Result, StoreContextMut};
use wasmtime_wasi::p2::IoError;
use wasmtime_wasi_http::Error as WasiError;
use wasmtime_wasi_http::p2::bindings::http::types::ErrorCode;

use crate::http::error_code;
use crate::state::State;

/// The interfaces below, with the version that wasmtime 48 writes into its linker. Guests built against another 0.2
/// version find them too.
const IO_ERROR: &str = "wasi:io/error@0.2.12";
const HTTP_TYPES: &str = "wasi:http/types@0.2.12";

/// What an error text may tell a guest.
const MAX_ERROR_TEXT: usize = 1024;

/// All of WASI 0.2 and `wasi:http`. File system and sockets are there, since language runtimes import them, and hold
/// nothing.
pub(crate) fn linker(engine: &Engine) -> Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
    linker.allow_shadowing(true);
    crate::timers::add_to_linker(&mut linker)?;
    // The original hands out the debug form: a stack of causes, and a backtrace of the host where these are on.
    linker.instance(IO_ERROR)?.func_wrap(
        "[method]error.to-debug-string",
        |store: StoreContextMut<'_, State>, (error,): (Resource<IoError>,)| {
            let text = store.data().table.get(&error)?.to_string();
            Ok((text.chars().take(MAX_ERROR_TEXT).collect::<String>(),))
        },
    )?;
    // The original looks for another type than a body's stream stores, so errors in the middle of a body had no code.
    linker.instance(HTTP_TYPES)?.func_wrap(
        "http-error-code",
        |store: StoreContextMut<'_, State>, (error,): (Resource<IoError>,)| {
            let error = store.data().table.get(&error)?;
            let code = error
                .downcast_ref::<ErrorCode>()
                .cloned()
                .or_else(|| error.downcast_ref::<WasiError>().map(error_code));
            Ok((code,))
        },
    )?;
    linker.allow_shadowing(false);
    Ok(linker)
}
