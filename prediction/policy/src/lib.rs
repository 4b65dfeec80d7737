//! When an idle guest is kept resident: pure sleep policies without I/O or clocks.
//!
//! A guest that has nothing to do is idle; its *age* is the time since it became so. The host asks [`GuestPolicy::plan`]
//! at which ages the guest is to be resident, and tells [`GuestPolicy::gap`] how long each idle gap was. Several
//! [`Rule`]s plan; on each gap each is charged what its plan would have cost, and the one with the least recent cost
//! rules. [`Correlations`] learns which guest's writes wake which other guest.
//!
//! All costs are in seconds of delay. Memory and work are converted by a [`Price`]:
//!
//! ```text
//! cost of a gap = delay of the event that ended it beyond a warm wake
//!               + reloads × cold wake × price.work / price.delay
//!               + resident seconds × bytes × pressure / price.delay
//! ```
//!
//! Times are ages or times since an arbitrary monotonic start. The crate reads no clock, so no jump of a wall clock can
//! change a decision.

mod autoregressive;
mod correlation;
mod explain;
mod forecast;
mod guest;
mod hazard;
mod histogram;
mod history;
mod hybrid;
mod plan;
mod price;
mod rule;
mod scoreboard;
mod units;

pub use correlation::{CORRELATION_WINDOW, Correlations, Follower, MAX_FOLLOWERS, MAX_LEADERS};
pub use explain::{Explanation, Score};
pub use guest::{End, GuestPolicy, KNOWN_AFTER, Settings};
pub use plan::{Interval, MAX_INTERVALS, Outcome, Plan};
pub use price::{Costs, DEFAULT_DELAY_PRICE, DEFAULT_WORK_PRICE, PREPARE_OVERHEAD, Price};
pub use rule::Rule;
