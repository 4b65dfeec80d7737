//! The request: `{"history": ["2023-01-23T13:04:03.182471956Z", ...], "function": "SES"}`.

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::error::Category;
use serde_json::value::RawValue;

use super::limits::MAX_EVENTS;
use crate::forecast::{Function, UnknownFunction};

/// Characters of a value that are repeated in a message about it.
const MAX_QUOTED: usize = 64;
/// Shown to who sent something else.
const EXAMPLE: &str = r#"{"history": ["2023-01-23T13:04:03.182471956Z"], "function": "SES"}"#;

/// Events in the order in which they happened, and how to forecast the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) history: Vec<Timestamp>,
    pub(crate) function: Function,
}

/// What is wrong with a body. All of it is for the client to mend; trying again does not help.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum BadRequest {
    #[error("the body is not JSON: {0}; send such as `{EXAMPLE}`")]
    NotJson(String),
    #[error("the body is not a request: {0}; send such as `{EXAMPLE}`")]
    NotRequest(String),
    #[error("`function` must be a string, not `{0}`")]
    FunctionType(String),
    #[error(transparent)]
    Function(#[from] UnknownFunction),
    #[error("`history` holds {0} events, at most {MAX_EVENTS} are allowed: send the latest")]
    TooManyEvents(usize),
    #[error("`history[{at}]` must be a string with a time such as `2023-01-23T13:04:03.182471956Z`, not `{found}`")]
    EventType { at: usize, found: String },
    #[error(
        "`history[{at}]` is `{found}`, which is no RFC 3339 time such as `2023-01-23T13:04:03.182471956Z`: {cause}"
    )]
    Event { at: usize, found: String, cause: String },
    #[error("`history[{at}]` is before `history[{}]`: sort the events, the oldest first", at - 1)]
    NotAscending { at: usize },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body<'a> {
    #[serde(borrow)]
    history: Vec<&'a RawValue>,
    function: Option<&'a RawValue>,
}

impl Request {
    pub(crate) fn parse(body: &[u8]) -> Result<Self, BadRequest> {
        let body: Body<'_> = serde_json::from_slice(body).map_err(|error| match error.classify() {
            Category::Data => BadRequest::NotRequest(error.to_string()),
            Category::Syntax | Category::Eof | Category::Io => BadRequest::NotJson(error.to_string()),
        })?;
        let function = match body.function {
            None => Function::default(),
            Some(raw) => text(raw).ok_or_else(|| BadRequest::FunctionType(quoted(raw.get())))?.parse()?,
        };
        if body.history.len() > MAX_EVENTS {
            return Err(BadRequest::TooManyEvents(body.history.len()));
        }
        let mut history: Vec<Timestamp> = Vec::with_capacity(body.history.len());
        for (at, raw) in body.history.into_iter().enumerate() {
            let text = text(raw).ok_or_else(|| BadRequest::EventType { at, found: quoted(raw.get()) })?;
            let event = text.parse().map_err(|error: jiff::Error| BadRequest::Event {
                at,
                found: quoted(&text),
                cause: error.to_string(),
            })?;
            if history.last().is_some_and(|before| event < *before) {
                return Err(BadRequest::NotAscending { at });
            }
            history.push(event);
        }
        Ok(Self { history, function })
    }
}

fn text(raw: &RawValue) -> Option<String> {
    serde_json::from_str(raw.get()).ok()
}

fn quoted(text: &str) -> String {
    let mut quoted: String = text.chars().take(MAX_QUOTED).collect();
    if quoted.len() < text.len() {
        quoted.push('…');
    }
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(body: &str) -> String {
        Request::parse(body.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn times_with_nanoseconds_and_offsets_are_read() {
        let body =
            br#"{"history": ["2023-01-23T13:04:03.182471956Z", "2023-01-23T15:04:04.5+02:00"], "function": "SES"}"#;
        let request = Request::parse(body).unwrap();
        assert_eq!(request.function, Function::Simple);
        let [first, second] = request.history[..] else { panic!("{request:?}") };
        assert_eq!(first.subsec_nanosecond(), 182_471_956);
        assert_eq!(second.duration_since(first).as_nanos(), 1_317_528_044);
    }

    #[test]
    fn the_function_may_be_left_out() {
        for body in [r#"{"history": []}"#, r#"{"history": [], "function": null}"#] {
            assert_eq!(Request::parse(body.as_bytes()).unwrap().function, Function::AutoRegression);
        }
    }

    #[test]
    fn events_at_the_same_moment_are_in_order() {
        assert!(Request::parse(br#"{"history": ["2023-01-23T13:04:03Z", "2023-01-23T13:04:03Z"]}"#).is_ok());
    }

    #[test]
    fn messages_say_what_is_wrong_and_where() {
        for (body, expected) in [
            ("", "the body is not JSON: EOF while parsing a value at line 1 column 0"),
            ("{\"history\": [\n\"2023\",", "the body is not JSON: EOF while parsing a value at line 2 column 7"),
            ("{\"history\": [NaN]}", "the body is not JSON: expected value at line 1 column 14"),
            ("[]", "the body is not a request: "),
            ("{}", "the body is not a request: missing field `history` at line 1 column 2"),
            (r#"{"history": "now"}"#, "the body is not a request: invalid type: string \"now\", expected a sequence"),
            (r#"{"history": [], "fuction": "SES"}"#, "unknown field `fuction`, expected `history` or `function`"),
            (r#"{"history": [], "history": []}"#, "duplicate field `history`"),
            (r#"{"history": [], "function": 3}"#, "`function` must be a string, not `3`"),
            (r#"{"history": [], "function": "Prophet"}"#, "function does not exist"),
            (r#"{"history": ["2023-01-23T13:04:03Z", 5]}"#, "`history[1]` must be a string with a time"),
            (r#"{"history": ["yesterday"]}"#, "`history[0]` is `yesterday`, which is no RFC 3339 time"),
            (r#"{"history": ["2023-01-23T13:04:03"]}"#, "`history[0]` is `2023-01-23T13:04:03`"),
            (r#"{"history": ["2023-02-30T13:04:03Z"]}"#, "`history[0]` is `2023-02-30T13:04:03Z`"),
            (r#"{"history": ["99999-01-01T00:00:00Z"]}"#, "`history[0]` is `99999-01-01T00:00:00Z`"),
            (
                r#"{"history": ["2023-01-23T13:04:03Z", "2023-01-23T13:04:02Z"]}"#,
                "`history[1]` is before `history[0]`: sort the events, the oldest first",
            ),
        ] {
            let message = message(body);
            assert!(message.contains(expected), "{body} gives {message}");
        }
    }

    #[test]
    fn long_values_are_not_repeated_in_full() {
        let long = message(&format!(r#"{{"history": ["{}"]}}"#, "ä".repeat(10_000)));
        assert!(long.len() < 1024 && long.contains('…'), "{long}");
    }

    #[test]
    fn text_that_is_not_unicode_is_refused() {
        assert!(matches!(Request::parse(b"{\"history\": [\"\xff\"]}"), Err(BadRequest::NotJson(_))));
    }

    #[test]
    fn the_number_of_events_is_bounded() {
        let history = |count| format!(r#"{{"history": [{}]}}"#, vec![r#""2023-01-23T13:04:03Z""#; count].join(","));
        assert_eq!(Request::parse(history(MAX_EVENTS).as_bytes()).unwrap().history.len(), MAX_EVENTS);
        assert_eq!(
            message(&history(MAX_EVENTS + 1)),
            "`history` holds 4097 events, at most 4096 are allowed: send the latest"
        );
    }
}
