//! The limits of a guest: named, with default, unit and reason.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What one guest may use. Every field has a default; a guest that breaks a limit is reported and restarted with backoff.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Limits {
    /// Linear memory of one instance in bytes, summed over all its memories. Default 256 MiB.
    pub memory_bytes: u64,
    /// Elements of all tables of one instance. Default 100,000: ten times what a large Rust guest uses.
    pub table_elements: u64,
    /// CPU time of one call in milliseconds. Default 1,000.
    pub cpu_milliseconds: u64,
    /// Wall time of one reconcile in milliseconds, waiting for HTTP included. Default 30,000.
    pub reconcile_milliseconds: u64,
    /// Wall time of one HTTP request in milliseconds. Default 10,000.
    pub request_milliseconds: u64,
    /// Body of one request in bytes. Default 3 MiB: what the API server itself accepts.
    pub request_bytes: u64,
    /// Body of one response in bytes. Default 32 MiB.
    pub response_bytes: u64,
    /// HTTP requests in flight at once. Default 16.
    pub requests_in_flight: u32,
    /// HTTP requests in one call. Default 1,000: a loop that never ends is cut.
    pub requests_per_call: u32,
    /// Log lines per second, averaged; bursts of twice as many pass. Default 100.
    pub log_lines_per_second: u32,
    /// Bytes of one log line; the rest is cut. Default 8 KiB.
    pub log_line_bytes: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_bytes: 256 << 20,
            table_elements: 100_000,
            cpu_milliseconds: 1_000,
            reconcile_milliseconds: 30_000,
            request_milliseconds: 10_000,
            request_bytes: 3 << 20,
            response_bytes: 32 << 20,
            requests_in_flight: 16,
            requests_per_call: 1_000,
            log_lines_per_second: 100,
            log_line_bytes: 8 << 10,
        }
    }
}
