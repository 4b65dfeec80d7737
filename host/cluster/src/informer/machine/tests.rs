use super::*;

const LONG: Run = Run { heard: true, lasted: Duration::from_secs(300) };
const SHORT: Run = Run { heard: true, lasted: Duration::from_millis(10) };
const UNHEARD: Run = Run { heard: false, lasted: Duration::from_secs(75) };

fn version() -> ResourceVersion {
    ResourceVersion::new("7")
}

fn watching() -> Machine {
    let mut machine = Machine::new();
    machine.advance(version());
    machine
}

fn failed() -> End {
    End::Failed("reset".into())
}

#[test]
fn a_watch_that_ends_in_time_is_resumed_at_once_where_it_was() {
    let mut machine = watching();
    assert_eq!(machine.ended(&End::Ended, LONG), Step { tell: Tell::Nothing, wait: None });
    assert_eq!(*machine.phase(), Phase::Watching(version()));
}

#[test]
fn a_server_that_ends_every_watch_at_once_is_asked_less_and_less_often() {
    let mut machine = watching();
    let waits: Vec<_> = (0..3).map(|_| machine.ended(&End::Ended, SHORT).wait.map(|(failures, _)| failures)).collect();
    assert_eq!(waits, [Some(0), Some(1), Some(2)]);
}

#[test]
fn failures_resume_with_backoff_until_one_request_was_healthy() {
    let mut machine = watching();
    for failures in 0..4 {
        assert_eq!(
            machine.ended(&failed(), SHORT),
            Step { tell: Tell::Restarting, wait: Some((failures, LONGEST_WAIT)) }
        );
    }
    assert_eq!(*machine.phase(), Phase::Watching(version()));
    assert_eq!(machine.ended(&failed(), LONG).wait, Some((0, LONGEST_WAIT)));
}

#[test]
fn an_old_version_means_listing_at_once_but_not_in_a_tight_loop() {
    let mut machine = watching();
    assert_eq!(machine.ended(&End::Expired, SHORT), Step { tell: Tell::Nothing, wait: None });
    assert_eq!(*machine.phase(), Phase::StreamingList);
    machine.advance(version());
    assert_eq!(machine.ended(&End::Expired, SHORT).wait, Some((1, LONGEST_WAIT)));
}

#[test]
fn a_server_without_streaming_lists_is_asked_for_pages_from_then_on() {
    let mut machine = Machine::new();
    let unsupported = End::Unsupported("sendInitialEvents".into());
    assert_eq!(machine.ended(&unsupported, SHORT), Step { tell: Tell::Nothing, wait: None });
    assert_eq!(*machine.phase(), Phase::PagedList);
    machine.advance(version());
    machine.ended(&End::Expired, LONG);
    assert_eq!(*machine.phase(), Phase::PagedList);
    assert!(machine.ended(&unsupported, SHORT).wait.is_some(), "what is refused as pages too is no question of pages");
}

#[test]
fn silence_after_something_was_heard_resumes_and_silence_from_the_start_lists() {
    let silent = End::Silent(Duration::from_secs(75));
    let mut machine = watching();
    assert_eq!(machine.ended(&silent, LONG), Step { tell: Tell::Restarting, wait: None });
    assert_eq!(*machine.phase(), Phase::Watching(version()));
    machine.ended(&silent, UNHEARD);
    assert_eq!(*machine.phase(), Phase::StreamingList);
}

#[test]
fn a_refused_watch_waits_and_keeps_its_place() {
    let mut machine = watching();
    let parked = Tell::Parked(ParkReason::HostForbidden);
    for failures in 0..5 {
        let step = machine.ended(&End::Forbidden("no".into()), SHORT);
        assert_eq!(step, Step { tell: parked, wait: Some((failures, LONGEST_WAIT_FOR_RIGHT)) });
    }
    assert_eq!(*machine.phase(), Phase::Watching(version()));
}

#[test]
fn a_kind_is_gone_once_when_its_absence_lasts() {
    let mut machine = watching();
    let tells: Vec<_> = (0..5).map(|_| machine.ended(&End::NotServed, SHORT).tell).collect();
    let parked = Tell::Parked(ParkReason::NotServed);
    assert_eq!(tells, [parked, parked, Tell::Gone, parked, parked]);
    assert_eq!(*machine.phase(), Phase::StreamingList);
}

#[test]
fn a_kind_that_is_absent_for_a_moment_is_not_gone() {
    let mut machine = watching();
    for _ in 0..2 {
        machine.ended(&End::NotServed, SHORT);
    }
    machine.ended(&failed(), SHORT);
    for _ in 0..2 {
        assert_ne!(machine.ended(&End::NotServed, SHORT).tell, Tell::Gone);
    }
    assert_eq!(*machine.phase(), Phase::Watching(version()));
}

#[test]
fn what_cannot_be_read_is_listed_again_with_backoff() {
    let mut machine = watching();
    let step = machine.ended(&End::Unreadable(ObjectError::Missing("uid")), SHORT);
    assert_eq!(step, Step { tell: Tell::Restarting, wait: Some((0, LONGEST_WAIT)) });
    assert_eq!(*machine.phase(), Phase::StreamingList);
}

#[test]
fn status_codes_mean_what_the_server_means() {
    for (code, cause) in [
        (410, "expired"),
        (403, "forbidden"),
        (404, "not-served"),
        (405, "not-served"),
        (422, "unsupported"),
        (400, "unsupported"),
        (401, "failed"),
        (429, "failed"),
        (500, "failed"),
        (504, "failed"),
    ] {
        assert_eq!(End::of_status(code, String::new()).cause(), cause, "{code}");
    }
}
