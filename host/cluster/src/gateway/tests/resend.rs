//! When a request is sent again.

use super::*;

#[tokio::test(start_paused = true)]
async fn flow_control_is_waited_out_for_any_method() {
    let mut turn = 0;
    let world = World::new(move |_| {
        turn += 1;
        if turn < 3 {
            Reply::Text(
                429,
                &[("content-type", "text/plain; charset=utf-8"), ("retry-after", "1")],
                "Too many requests",
            )
        } else {
            Reply::Json(201, map("x", "u", 5, ""))
        }
    });
    let started = Instant::now();
    assert_eq!(world.send(request("POST", MAPS, "{}")).await.0, 201);
    assert_eq!(world.server.received().len(), 3);
    assert!(started.elapsed() >= Duration::from_secs(2), "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_429_of_an_eviction_is_an_answer() {
    let world = World::new(|_| Reply::Json(429, r#"{"kind":"Status","code":429}"#.into()));
    let path = "/api/v1/namespaces/a/pods/x/eviction";
    assert_eq!(world.send(request("POST", path, "{}")).await.0, 429);
    assert_eq!(world.server.received().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_post_is_never_sent_twice_after_an_unknown_outcome() {
    for broken in [|| Reply::Break, || Reply::Never, || Reply::Json(504, "{}".into()), || Reply::Json(503, "{}".into())]
    {
        let world = World::new(move |_| broken());
        let (code, _, _) = world.send(request("POST", MAPS, r#"{"metadata":{"generateName":"x-"}}"#)).await;
        assert!(code == 504 || code == 503, "{code}");
        assert_eq!(world.server.received().len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_safe_is_sent_again_after_a_lost_answer() {
    for sent in [
        || request("GET", MAP, ""),
        || apply(MAP),
        || request("PUT", MAP, r#"{"metadata":{"resourceVersion":"4"}}"#),
        || request("DELETE", MAP, r#"{"preconditions":{"uid":"u"}}"#),
    ] {
        let mut turn = 0;
        let world = World::new(move |_| {
            turn += 1;
            if turn == 1 { Reply::Break } else { ok(map("x", "u", 5, "")) }
        });
        assert_eq!(world.send(sent()).await.0, 200);
        assert_eq!(world.server.received().len(), 2);
    }
    for sent in [
        || request("PATCH", MAP, "{}"),
        || request("PUT", MAP, "{}"),
        || request("DELETE", MAP, "{}"),
        || request("DELETE", MAPS, ""),
    ] {
        let world = World::new(|_| Reply::Break);
        let status = world.status(sent()).await;
        assert_eq!(status["code"], 504);
        assert!(status["message"].as_str().unwrap().contains("outcome is unknown"), "{status}");
        assert_eq!(world.server.received().len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_conflict_with_its_own_lost_success_is_an_unknown_outcome() {
    for code in [409, 404] {
        let mut turn = 0;
        let world = World::new(move |_| {
            turn += 1;
            if turn == 1 { Reply::Break } else { Reply::Json(code, r#"{"kind":"Status"}"#.into()) }
        });
        let status = world.status(request("PUT", MAP, r#"{"metadata":{"resourceVersion":"4"}}"#)).await;
        assert_eq!(status["code"], 504);
        assert!(status["message"].as_str().unwrap().contains("read again"));
    }
}

#[tokio::test]
async fn a_conflict_is_handed_on_and_never_resent() {
    let world = World::new(|_| Reply::Json(409, r#"{"kind":"Status","code":409}"#.into()));
    assert_eq!(world.send(request("PUT", MAP, r#"{"metadata":{"resourceVersion":"4"}}"#)).await.0, 409);
    assert_eq!(world.server.received().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn no_answer_in_time_is_a_504() {
    let world = World::new(|_| Reply::Never);
    let started = Instant::now();
    assert_eq!(world.status(request("GET", MAP, "")).await["code"], 504);
    assert_eq!(started.elapsed().as_secs(), Limits::default().request_milliseconds / 1_000);
    let started = Instant::now();
    let soon = world.guest.send(request("GET", MAP, ""), Duration::from_millis(100)).await.unwrap();
    assert_eq!(soon.status(), 504);
    assert!(started.elapsed() < Duration::from_millis(200));
}
