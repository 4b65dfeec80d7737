//! The options of a DELETE, read from where the server reads them.

use serde::Deserialize;

use super::{Query, Refusal};

/// What a DELETE asks for. A body makes the server ignore the query: `DELETE ?dryRun=All` with any body deletes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DeleteOptions {
    /// Nothing is deleted.
    pub dry_run: bool,
    /// The object's uid is a precondition, so that a second DELETE cannot hit a successor of the same name.
    pub has_uid: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Body {
    #[serde(default)]
    dry_run: Option<Vec<String>>,
    #[serde(default)]
    preconditions: Option<Preconditions>,
}

#[derive(Deserialize)]
struct Preconditions {
    #[serde(default)]
    uid: Option<String>,
}

impl DeleteOptions {
    /// Reads the options from the body when there is one, else from the query.
    pub fn parse(query: &Query, body: &[u8]) -> Result<Self, Refusal> {
        if body.is_empty() {
            return Ok(Self { dry_run: query.dry_run, has_uid: false });
        }
        if query.has_delete_options() {
            return Err(Refusal::bad_request(
                "a `DELETE` with a body takes its options from the body only: the server ignores those in the query",
            ));
        }
        let not_options =
            |why: &str| Refusal::bad_request(format!("the body of the `DELETE` is not `DeleteOptions` in JSON: {why}"));
        // serde would read a struct from an array as well.
        if body.trim_ascii_start().first() != Some(&b'{') {
            return Err(not_options("it is not an object"));
        }
        let body: Body = serde_json::from_slice(body).map_err(|error| not_options(&error.to_string()))?;
        Ok(Self {
            dry_run: body.dry_run.is_some_and(|all| !all.is_empty()),
            has_uid: body.preconditions.and_then(|p| p.uid).is_some_and(|uid| !uid.is_empty()),
        })
    }
}
