use std::path::Path;

use clap::CommandFactory;

use super::*;

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

/// Every help page; `UPDATE_EXPECTED=1` writes them anew.
#[test]
fn the_checked_in_help_is_fresh() {
    let mut command = Cli::command().term_width(100);
    command.build();
    let mut text = command.render_long_help().to_string();
    let names: Vec<String> =
        command.get_subcommands().map(|sub| sub.get_name().to_owned()).filter(|name| name != "help").collect();
    for name in names {
        let sub = command.find_subcommand_mut(&name).unwrap();
        text.push_str(&format!("\n# {name}\n\n{}", sub.render_help()));
    }
    let text: String = text.lines().map(|line| format!("{}\n", line.trim_end())).collect();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("help.txt");
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    assert_eq!(
        std::fs::read_to_string(&path).unwrap_or_default(),
        text,
        "`UPDATE_EXPECTED=1 cargo test -p wasm-operator` renews it"
    );
}

#[test]
fn the_compile_child_is_called_as_the_engine_does() {
    let parse = |args: &[&str]| Cli::try_parse_from(std::iter::once("wasm-operator").chain(args.iter().copied()));
    assert!(parse(&["compile", "a.wasm", "b.cwasm", "00"]).is_ok());
    assert!(parse(&["compile", "a.wasm", "-o", "b.cwasm"]).is_ok());
    assert!(parse(&["compile", "a.wasm"]).is_err());
    assert!(parse(&["compile", "a.wasm", "b", "-o", "c"]).is_err());
}

#[test]
fn a_cause_is_said_once() {
    use anyhow::Context as _;

    let inner = || std::io::Error::other("disk full");
    let error =
        Err::<(), _>(inner()).context(format!("cannot write `x`: {}", inner())).context("guest `a`").unwrap_err();
    assert_eq!(message(&error), "error: guest `a`: cannot write `x`: disk full\n");
    assert_eq!(message(&anyhow::anyhow!("error: no file\n --> x")), "error: no file\n --> x\n");
}

#[test]
fn a_namespace_is_a_dns_label() {
    assert_eq!(namespace("wasm-operator"), Ok("wasm-operator".to_owned()));
    for bad in ["", "A", "a/b", "a:b", "a.b", "a b"] {
        assert!(namespace(bad).is_err(), "{bad}");
    }
}
