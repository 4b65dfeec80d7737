//! Makes the host hold things for it: header fields that are never dropped, as large as they may be.

use misbehaving::guest::{Answer, Object, report};
use wasip2::http::types::Fields;

fn reconcile(_: Object) -> Answer {
    let value = vec![b'x'; 16 << 10];
    for number in 0..1_000_000_u32 {
        let fields = Fields::new();
        if fields.append("x-flood", &value).is_err() {
            return report(format!("the host refused header fields {number}"));
        }
        std::mem::forget(fields);
    }
    report("the host holds a million header fields")
}

misbehaving::program!(reconcile);
