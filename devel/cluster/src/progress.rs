//! What a person sees on standard error while something takes long.

use std::future::Future;
use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use tokio::time::Instant;

/// In a terminal the line with the seconds is rewritten this often.
const TERMINAL_INTERVAL: Duration = Duration::from_secs(1);
/// In a log file each sign of life is a line of its own.
const LOG_INTERVAL: Duration = Duration::from_secs(15);

/// Reports long steps on standard error: what runs, for how long, and how long it took.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    terminal: bool,
}

impl Default for Progress {
    fn default() -> Self {
        Self { terminal: std::io::stderr().is_terminal() }
    }
}

impl Progress {
    /// Writes one line. Standard error that cannot be written is no reason to fail.
    pub fn line(self, text: &str) {
        let _ = writeln!(std::io::stderr(), "{text}");
    }

    /// Runs `step`, showing that it runs and at the end how long it took.
    pub async fn during<T>(self, name: &str, step: impl Future<Output = T>) -> T {
        let start = Instant::now();
        let interval = if self.terminal { TERMINAL_INTERVAL } else { LOG_INTERVAL };
        self.show(name, "...");
        let mut ticks = tokio::time::interval_at(start + interval, interval);
        let mut step = std::pin::pin!(step);
        loop {
            tokio::select! {
                result = &mut step => {
                    self.show(name, &format!("{:.1} s", start.elapsed().as_secs_f32()));
                    if self.terminal {
                        self.line("");
                    }
                    return result;
                }
                _ = ticks.tick() => self.show(name, &format!("... {} s", start.elapsed().as_secs())),
            }
        }
    }

    fn show(self, name: &str, state: &str) {
        let mut stderr = std::io::stderr();
        let _ = if self.terminal {
            // Return, clear the line, write it anew.
            write!(stderr, "\r\x1b[K  {name}: {state}").and_then(|()| stderr.flush())
        } else {
            writeln!(stderr, "  {name}: {state}")
        };
    }
}
