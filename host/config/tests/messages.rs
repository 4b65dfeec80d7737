//! Every message that a wrong configuration can give, as a person sees it: `cases/*.yaml` against `cases/*.txt`.
//!
//! `UPDATE_EXPECTED=1 cargo test -p wasm-operator-config` writes the expected files anew.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test, its helpers included")]

use std::fmt::Write;
use std::fs;
use std::path::Path;

use wasm_operator_config::{json_schema, parse, structural_schema};

const HOST_NAMESPACE: &str = "wasm-operator";

fn compare(path: &Path, actual: &str) -> bool {
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        fs::write(path, actual).unwrap();
    }
    let expected = fs::read_to_string(path).unwrap_or_default();
    if expected != actual {
        println!("{} is not what was expected; the difference begins here:", path.display());
        let same = expected.lines().zip(actual.lines()).take_while(|(a, b)| a == b).count();
        println!("- {}\n+ {}", expected.lines().nth(same).unwrap_or(""), actual.lines().nth(same).unwrap_or(""));
    }
    expected == actual
}

#[test]
fn messages_say_what_where_and_what_to_do() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut cases: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    cases.sort();
    assert!(cases.len() >= 10);
    let mut all = true;
    for case in cases {
        let name = case.file_name().unwrap().to_str().unwrap();
        let parsed = parse(name, &fs::read_to_string(&case).unwrap(), Some(HOST_NAMESPACE));
        let mut actual = String::new();
        for document in &parsed.documents {
            match document {
                Ok(document) => writeln!(actual, "[{}]", document.spec.name).unwrap(),
                Err(error) => writeln!(actual, "[{}] refused", error.name.as_deref().unwrap_or("?")).unwrap(),
            }
        }
        for diagnostic in parsed.diagnostics() {
            writeln!(actual, "\n{diagnostic}").unwrap();
        }
        all &= compare(&case.with_extension("txt"), &actual);
    }
    assert!(all, "run with UPDATE_EXPECTED=1 and look at the difference");
}

#[test]
fn the_checked_in_schema_is_fresh() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("schema.json");
    assert!(compare(&path, &json_schema()), "`wasm-operator schema > host/config/schema.json` makes it fresh");
    let path = path.with_file_name("structural-schema.json");
    assert!(
        compare(&path, &format!("{:#}\n", structural_schema())),
        "`wasm-operator schema --structural > host/config/structural-schema.json` makes it fresh"
    );
}
