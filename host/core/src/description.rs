//! What a guest says of itself: controllers, watches, and the permissions that it asks for.
//!
//! The shapes mirror `wit/controller.wit`, where each field is documented.

use serde::{Deserialize, Serialize};

use crate::permission::Rule;
use crate::watch::Watch;

/// The answer of a guest's `describe`. Kept as JSON beside the compiled component. Empty for a program, which is not asked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    /// At least one; names are unique.
    pub controllers: Vec<Controller>,
    /// What the guest asks for; the administrator grants.
    pub permissions: Vec<Rule>,
}

/// One controller of a guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Controller {
    /// A DNS label, unique in the guest.
    pub name: String,
    /// The kind that is reconciled.
    pub primary: Watch,
    /// Kinds whose changes lead to a primary.
    pub watches: Vec<Watch>,
}
