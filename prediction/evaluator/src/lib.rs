//! Replays traces of events through every sleep policy in virtual time: what each would have cost, as a table and a
//! picture.

mod percentile;
mod picture;
mod replay;
mod table;
mod trace;

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use bytesize::ByteSize;
use jiff::SignedDuration;
use wasm_operator_policy::{Costs, DEFAULT_DELAY_PRICE, DEFAULT_WORK_PRICE, Price};

use crate::replay::{Replayed, Setting};
use crate::trace::Trace;

/// The command `evaluate`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// CSV files with one event time per line, in seconds or RFC 3339, and optionally the guest in a second column
    #[arg(required = true, value_name = "TRACE")]
    traces: Vec<PathBuf>,
    /// How long an event waits for a guest that is not resident
    #[arg(long, default_value = "100ms", value_parser = duration)]
    wake: Duration,
    /// How long an event waits for a guest that is resident
    #[arg(long, default_value = "0s", value_parser = duration)]
    warm_wake: Duration,
    /// Memory that a resident guest holds
    #[arg(long, default_value = "10MiB")]
    bytes: ByteSize,
    /// Memory that may be held for one second to avoid one second of delay
    #[arg(long, default_value_t = ByteSize(DEFAULT_DELAY_PRICE))]
    price: ByteSize,
    /// Memory that may be held for one second to avoid one second of work on a reload
    #[arg(long, default_value_t = ByteSize(DEFAULT_WORK_PRICE))]
    work_price: ByteSize,
    /// Writes a picture per guest into this folder: its gaps, and when each policy kept it resident
    #[arg(long, value_name = "FOLDER")]
    svg: Option<PathBuf>,
}

fn duration(text: &str) -> Result<Duration, String> {
    let duration: SignedDuration = text.parse().map_err(|error: jiff::Error| error.to_string())?;
    duration.try_into().map_err(|_| "must not be negative".to_owned())
}

/// Runs the command.
///
/// # Errors
/// When a trace cannot be read or is not a trace, or output cannot be written.
pub fn run(args: &Args) -> anyhow::Result<()> {
    write(args, &mut io::stdout().lock())
}

fn write(args: &Args, out: &mut impl Write) -> anyhow::Result<()> {
    let setting = Setting {
        costs: Costs::new(args.wake, args.warm_wake, args.bytes.as_u64()),
        price: Price { delay: args.price.as_u64(), work: args.work_price.as_u64() },
    };
    // All traces first: a fault in the last one shows before minutes of replay.
    let traces: Vec<Trace> = args.traces.iter().map(|path| Trace::read(path)).collect::<Result<_, _>>()?;
    table::head(out, &setting)?;
    let mut pictures = BTreeSet::new();
    for trace in &traces {
        let replayed = replay::replay(trace, &setting);
        for guest in &replayed {
            table::guest(out, &trace.path, guest)?;
            if let Some(folder) = &args.svg {
                let path = picture_path(folder, &trace.path, guest);
                anyhow::ensure!(
                    pictures.insert(path.clone()),
                    "`{}` would be written twice: rename one of the traces or guests",
                    path.display()
                );
                save(&path, guest)?;
            }
        }
        if replayed.len() > 1 {
            table::total(out, &trace.path, &replayed)?;
        }
        if trace.skipped > 0 {
            writeln!(out, "Left out: {} guests with a single event.\n", trace.skipped)?;
        }
    }
    Ok(())
}

fn picture_path(folder: &Path, trace: &Path, guest: &Replayed) -> PathBuf {
    let mut name = trace.file_stem().map_or_else(|| "trace".to_owned(), |stem| stem.to_string_lossy().into_owned());
    if let Some(guest) = &guest.guest {
        name.push('.');
        name.extend(guest.chars().map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' }));
    }
    folder.join(name + ".svg")
}

fn save(path: &Path, guest: &Replayed) -> anyhow::Result<()> {
    let title = path.file_stem().unwrap_or_default().to_string_lossy();
    let picture = picture::svg(&title, guest).with_context(|| format!("cannot draw `{}`", path.display()))?;
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make the folder `{}`", folder.display()))?;
    }
    std::fs::write(path, picture).with_context(|| format!("cannot write `{}`", path.display()))
}

#[cfg(test)]
mod tests;
