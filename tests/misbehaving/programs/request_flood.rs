//! Sends as many requests as it can in one reconcile: first a hundred at once, then one after the other without end.

use misbehaving::guest::{Answer, Object};
use wasip2::http::outgoing_handler;
use wasip2::http::types::{Fields, OutgoingRequest, Scheme};

fn reconcile(object: Object) -> Answer {
    let path = format!("{}/{}", object.collection(), object.name);
    let start = || {
        let request = OutgoingRequest::new(Fields::new());
        let _ = request.set_scheme(Some(&Scheme::Https));
        let _ = request.set_authority(Some("kubernetes.default.svc"));
        let _ = request.set_path_with_query(Some(&path));
        outgoing_handler::handle(request, None)
    };
    drop((0..100).map(|_| start()).collect::<Vec<_>>());
    loop {
        if let Ok(answer) = start() {
            answer.subscribe().block();
        }
    }
}

misbehaving::program!(reconcile);
