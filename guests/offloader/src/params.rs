//! The action's parameters: merged, and kept where there is room for them.

use serde_json::{Map, Value};

use crate::api::OffloadedActionSpec;

/// The parameter with the activation, by which the action knows its VM.
const VM_ID: &str = "_VIM_VM_ID";
/// What Linux takes as one argument of a program: 32 pages of 4 KiB, with the zero at its end (`MAX_ARG_STRLEN`).
const MAX_ARGUMENT: usize = 131_072 - 1;

/// Where the text of the parameters is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In the Job.
    Job,
    /// In a ConfigMap, since they are large.
    ConfigMap,
    /// In the Secret, since a part of them came from one.
    Secret,
}

/// The parameters of one Job.
#[derive(Clone, PartialEq, Eq)]
pub struct Params {
    /// One JSON object.
    pub text: String,
    /// Where it is kept.
    pub place: Place,
}

/// Parameters from another object.
#[derive(Clone, PartialEq, Default)]
pub struct Source {
    /// What it holds.
    pub values: Map<String, Value>,
    /// Whether it is a Secret.
    pub secret: bool,
}

/// No program could be started with these parameters. The user has to make them smaller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the parameters are {0} bytes of JSON; an action takes at most {MAX_ARGUMENT}")]
pub struct TooLarge(usize);

impl std::fmt::Debug for Params {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Params").field("bytes", &self.text.len()).field("place", &self.place).finish()
    }
}

/// Merges: later sources over earlier ones, `params` of the spec over all, and the activation over that.
///
/// # Errors
/// When the result is too large for an argument.
pub fn merge(spec: &OffloadedActionSpec, sources: Vec<Source>, large_bytes: usize) -> Result<Params, TooLarge> {
    let secret = sources.iter().any(|source| source.secret);
    let mut all = Map::new();
    for source in sources {
        all.extend(source.values);
    }
    all.extend(spec.params.clone());
    all.insert(VM_ID.to_owned(), Value::String(spec.activation_id.clone()));
    let text = Value::Object(all).to_string();
    if text.len() > MAX_ARGUMENT {
        return Err(TooLarge(text.len()));
    }
    let place = match (secret, text.len() > large_bytes) {
        (true, _) => Place::Secret,
        (false, true) => Place::ConfigMap,
        (false, false) => Place::Job,
    };
    Ok(Params { text, place })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn spec(params: Value) -> OffloadedActionSpec {
        serde_json::from_value(json!({"action": "a", "image": "i", "activationID": "a1", "params": params})).unwrap()
    }

    fn source(values: Value, secret: bool) -> Source {
        Source { values: values.as_object().cloned().unwrap(), secret }
    }

    #[test]
    fn the_activation_is_a_parameter() {
        let params = merge(&spec(json!({"Name": "P", "_VIM_VM_ID": "forged"})), vec![], 32_768).unwrap();
        assert_eq!(serde_json::from_str::<Value>(&params.text).unwrap(), json!({"Name": "P", "_VIM_VM_ID": "a1"}));
        assert_eq!(params.place, Place::Job);
    }

    #[test]
    fn later_sources_win_and_the_spec_wins_over_all() {
        let sources = vec![source(json!({"a": 1, "b": 1, "c": 1}), false), source(json!({"b": 2, "c": 2}), false)];
        let params = merge(&spec(json!({"c": 3})), sources, 32_768).unwrap();
        assert_eq!(
            serde_json::from_str::<Value>(&params.text).unwrap(),
            json!({"a": 1, "b": 2, "c": 3, "_VIM_VM_ID": "a1"})
        );
    }

    #[test]
    fn large_parameters_and_secret_ones_leave_the_job() {
        let large = spec(json!({"x": "y".repeat(40_000)}));
        assert_eq!(merge(&large, vec![], 32_768).unwrap().place, Place::ConfigMap);
        let sources = vec![source(json!({"password": "p"}), true)];
        assert_eq!(merge(&spec(json!({})), sources, 32_768).unwrap().place, Place::Secret);
    }

    #[test]
    fn what_no_program_can_be_given_is_refused() {
        let error = merge(&spec(json!({"x": "y".repeat(140_000)})), vec![], 32_768).unwrap_err();
        assert!(error.to_string().contains("131071"), "{error}");
    }
}
