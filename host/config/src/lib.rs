//! The configuration of guests: `wasm_config.yaml`, multi-document YAML with one document per guest.
//!
//! [`read`] turns a file into [`Parsed`]: one result per document, so that one bad document does not take down the
//! others, and every mistake with its position. [`Parsed::changes`] compares it with what runs, and [`Reload`] says when
//! to read again. [`GuestSpec`] knows nothing of files and will be the spec of a custom resource as well.

pub mod approval;
mod check;
mod diagnostic;
mod diff;
mod documents;
mod duration;
mod fault;
mod file;
mod grants;
mod names;
mod node;
mod parse;
mod reader;
pub mod reload;
mod serve;
mod service_account;
mod spec;
mod structural;
mod suggest;

pub use approval::{Approval, ApprovalError, Approvals};
pub use check::{Problem, Segment};
pub use diagnostic::{Diagnostic, Position, Severity};
pub use diff::{Change, diff};
pub use file::{MAX_FILE_BYTES, read};
pub use grants::{GrantError, Grants};
pub use parse::{DocumentError, GuestDocument, Parsed, parse};
pub use reload::Reload;
pub use serve::{Listener, Serve};
pub use service_account::ServiceAccount;
pub use spec::{EnvVar, GuestSpec, Sleep, SleepMode, json_schema};
pub use structural::structural_schema;
