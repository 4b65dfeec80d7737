//! `compile`: ahead of time, and in the child process of `run`, which trusts what this writes.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

#[derive(Debug, Args)]
pub(super) struct Compile {
    /// The component, a `.wasm` file
    component: PathBuf,
    /// The file to write
    #[arg(value_name = "OUTPUT", required_unless_present = "out", conflicts_with = "out")]
    output: Option<PathBuf>,
    /// The SHA-256 that the component must have, in hexadecimal digits
    #[arg(value_name = "SHA256")]
    digest: Option<String>,
    /// The file to write
    #[arg(short, long = "output", value_name = "OUTPUT")]
    out: Option<PathBuf>,
}

impl Compile {
    pub(super) fn execute(self) -> anyhow::Result<ExitCode> {
        let Self { component, output, digest, out } = self;
        let output = out.or(output).ok_or_else(|| anyhow::anyhow!("name the file to write with `-o`"))?;
        wasm_operator_engine::compile(&component, &output, digest.as_deref())?;
        Ok(ExitCode::SUCCESS)
    }
}
