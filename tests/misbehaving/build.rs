//! Lists the programs of the folder `programs`, so that the end-to-end tests can demand a test for each of them.

use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs};

fn main() {
    println!("cargo:rerun-if-changed=programs");
    println!("cargo:rerun-if-changed=Cargo.toml");
    let manifest = fs::read_to_string("Cargo.toml").unwrap();
    let mut programs: Vec<String> = fs::read_dir("programs")
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    programs.sort();
    for program in &programs {
        assert!(
            manifest.contains(&format!("name = \"{program}\"\npath = \"programs/{program}.rs\"\n")),
            "tests/misbehaving/Cargo.toml has no [[example]] for programs/{program}.rs"
        );
    }
    let mut code = String::new();
    let names: Vec<String> = programs.iter().map(|program| format!("    {program:?},")).collect();
    writeln!(code, "/// Every program, by the name of its file.").unwrap();
    writeln!(code, "pub const PROGRAMS: &[&str] = &[\n{}\n];", names.join("\n")).unwrap();
    let calls: Vec<String> = programs.iter().map(|program| format!("        $macro!({program});")).collect();
    writeln!(code, "/// Calls `$macro!(program)` with the identifier of each program.").unwrap();
    writeln!(code, "#[macro_export]\nmacro_rules! foreach_program {{").unwrap();
    writeln!(code, "    ($macro:ident) => {{\n{}\n    }};\n}}", calls.join("\n")).unwrap();
    fs::write(Path::new(&env::var("OUT_DIR").unwrap()).join("programs.rs"), code).unwrap();
}
