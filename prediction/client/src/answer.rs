//! What is believed of an answer.

use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;

use crate::refused::Refused;

/// How far ahead of the last event a prediction may be. A guest that sleeps for a week has nothing to gain from one.
pub const MAX_AHEAD: Duration = Duration::from_secs(7 * 24 * 3600);

#[derive(Deserialize)]
struct Answer {
    prediction: String,
}

/// The time from the last event to the predicted one.
pub(crate) fn read(body: &[u8], last: Timestamp) -> Result<Duration, Refused> {
    let answer: Answer = serde_json::from_slice(body)
        .map_err(|error| if error.is_data() { Refused::NoPrediction } else { Refused::NotJson })?;
    let moment: Timestamp = answer.prediction.parse().map_err(|_| Refused::NotATime)?;
    let ahead = Duration::try_from(moment.duration_since(last)).map_err(|_| Refused::Past)?;
    if ahead.is_zero() {
        return Err(Refused::Past);
    }
    if ahead > MAX_AHEAD {
        return Err(Refused::FarFuture);
    }
    Ok(ahead)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LAST: &str = "2023-01-23T13:04:03.182471956Z";

    fn answer(body: &str) -> Result<Duration, Refused> {
        read(body.as_bytes(), LAST.parse().unwrap())
    }

    #[test]
    fn a_prediction_is_read_as_the_time_from_the_last_event() {
        let body = r#"{"prediction": "2023-01-23T13:04:08.401234Z"}"#;
        assert_eq!(answer(body), Ok(Duration::from_nanos(5_218_762_044)));
        let body = r#"{"prediction":"2023-01-23T15:04:08.401234+02:00","model":"SES"}"#;
        assert_eq!(answer(body), Ok(Duration::from_nanos(5_218_762_044)));
    }

    #[test]
    fn nonsense_is_told_apart() {
        for (body, reason) in [
            ("", Refused::NotJson),
            ("tomorrow", Refused::NotJson),
            ("<html>", Refused::NotJson),
            (r#"{"prediction": NaN}"#, Refused::NotJson),
            (r#"{"prediction": "2023-01-23T13:04:08Z""#, Refused::NotJson),
            (r#"{"prediction": "2023-01-23T13:04:08Z"} {}"#, Refused::NotJson),
            ("null", Refused::NoPrediction),
            (r#""2023-01-23T13:04:08Z""#, Refused::NoPrediction),
            (r#"{"error": "function does not exist"}"#, Refused::NoPrediction),
            (r#"{"prediction": 1674479048}"#, Refused::NoPrediction),
            (r#"{"prediction": null}"#, Refused::NoPrediction),
            (r#"{"prediction": "NaN"}"#, Refused::NotATime),
            (r#"{"prediction": ""}"#, Refused::NotATime),
            (r#"{"prediction": "2023-01-23T13:04:08"}"#, Refused::NotATime),
            (r#"{"prediction": "99999-01-23T13:04:08Z"}"#, Refused::NotATime),
            (r#"{"prediction": "2023-01-23T13:04:03.182471956Z"}"#, Refused::Past),
            (r#"{"prediction": "-009999-01-02T01:59:59Z"}"#, Refused::Past),
            (r#"{"prediction": "2023-01-30T13:04:03.182471957Z"}"#, Refused::FarFuture),
            (r#"{"prediction": "9999-12-30T22:00:00Z"}"#, Refused::FarFuture),
        ] {
            assert_eq!(answer(body), Err(reason), "{body}");
        }
        assert_eq!(answer(r#"{"prediction": "2023-01-30T13:04:03.182471956Z"}"#), Ok(MAX_AHEAD));
    }

    #[test]
    fn deep_nesting_is_harmless() {
        assert!(answer(&"[".repeat(4096)).is_err());
        assert!(answer(&format!(r#"{{"a": {}"#, "[".repeat(4000))).is_err());
    }

    proptest! {
        #[test]
        fn whatever_comes_a_forecast_is_within_bounds(body in prop::collection::vec(any::<u8>(), 0..64), moment in ".*") {
            let last = LAST.parse().unwrap();
            for body in [body, format!(r#"{{"prediction": "{moment}"}}"#).into_bytes()] {
                if let Ok(ahead) = read(&body, last) {
                    prop_assert!(!ahead.is_zero() && ahead <= MAX_AHEAD);
                }
            }
        }
    }
}
