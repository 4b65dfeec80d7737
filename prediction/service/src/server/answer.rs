//! The answer: `{"prediction": "2023-01-23T13:04:08.401234Z"}`, or `{"error": "..."}`.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use jiff::{SignedDuration, Timestamp};

use super::request::Request;
use crate::forecast::next_gap;

/// What a history of less than two events is answered with, after the event or after now. The original's figure.
const UNKNOWN_GAP: SignedDuration = SignedDuration::from_secs(3);

/// When the next event is expected: after the last of the history, or at the same moment if all of them were.
pub(crate) fn predict(request: &Request, now: Timestamp) -> Timestamp {
    let Some(last) = request.history.last() else { return after(now, UNKNOWN_GAP) };
    let gaps: Vec<f64> = request
        .history
        .windows(2)
        .filter_map(|pair| match pair {
            [one, other] => Some(other.duration_since(*one).as_secs_f64()),
            _ => None,
        })
        .collect();
    let gap = match next_gap(request.function, &gaps) {
        None => UNKNOWN_GAP,
        Some(gap) => SignedDuration::try_from_secs_f64(gap).unwrap_or(SignedDuration::MAX),
    };
    after(*last, gap)
}

/// At most the last moment that a timestamp can name, in the year 9999.
fn after(moment: Timestamp, gap: SignedDuration) -> Timestamp {
    moment.checked_add(gap).unwrap_or(Timestamp::MAX)
}

/// Microseconds as in the original, nanoseconds where there are some.
pub(crate) fn prediction(moment: Timestamp) -> Response {
    let moment = if moment.subsec_nanosecond() % 1000 == 0 { format!("{moment:.6}") } else { format!("{moment:.9}") };
    json(StatusCode::OK, format!(r#"{{"prediction": "{moment}"}}"#))
}

pub(crate) fn error(status: StatusCode, message: &str) -> Response {
    json(status, format!(r#"{{"error": {}}}"#, serde_json::Value::from(message)))
}

fn json(status: StatusCode, body: String) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forecast::Function;

    fn request(history: &[&str], function: Function) -> Request {
        Request { history: history.iter().map(|event| event.parse().unwrap()).collect(), function }
    }

    const NOW: &str = "2030-01-01T00:00:00Z";

    fn answer(history: &[&str]) -> String {
        predict(&request(history, Function::Simple), NOW.parse().unwrap()).to_string()
    }

    #[test]
    fn no_event_and_one_event_are_answered_with_three_seconds() {
        assert_eq!(answer(&[]), "2030-01-01T00:00:03Z");
        assert_eq!(answer(&["2023-01-23T13:04:03.182471956Z"]), "2023-01-23T13:04:06.182471956Z");
    }

    #[test]
    fn two_events_are_answered_with_their_gap() {
        assert_eq!(answer(&["2023-01-23T13:04:03Z", "2023-01-23T14:04:08+01:00"]), "2023-01-23T13:04:13Z");
    }

    #[test]
    fn the_end_of_time_is_not_passed() {
        let end = Timestamp::MAX.to_string();
        assert_eq!(answer(&[&end]), end);
        let beginning = Timestamp::MIN.to_string();
        for function in Function::ALL {
            let answer =
                predict(&request(&[&beginning, "1000-01-01T00:00:00Z", &end, &end], function), Timestamp::UNIX_EPOCH);
            assert_eq!(answer, Timestamp::MAX);
        }
    }

    #[test]
    fn events_at_one_moment_are_expected_again_at_that_moment() {
        assert_eq!(answer(&["2023-01-23T13:04:03Z"; 9]), "2023-01-23T13:04:03Z");
    }
}
