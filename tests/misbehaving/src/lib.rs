//! Small guests for the end-to-end tests.
//!
//! Each file in `programs` is a component: one way to misbehave, or a well-behaved probe (`probe`, `recorder`,
//! `requester`, `timer`, `observer`). They are built on the SDK's thin level with
//!
//! ```sh
//! cargo build --profile guest --target wasm32-wasip2 -p misbehaving --examples --features programs
//! ```
//!
//! into `target/wasm32-wasip2/guest/examples/<program>.wasm`. The README lists what each does.
//!
//! On the build machine this crate is the list of programs. A suite with one test function per program, each named
//! after it, fails to compile when a program has no test:
//!
//! ```ignore
//! macro_rules! assert_test_exists {
//!     ($program:ident) => {
//!         #[expect(unused_imports, reason = "the import is the check")]
//!         use self::$program as _;
//!     };
//! }
//! misbehaving::foreach_program!(assert_test_exists);
//! ```

#[cfg(target_os = "wasi")]
pub mod guest;

/// Waits for ever, as a controller does that has nothing to do.
#[cfg(target_os = "wasi")]
pub fn wait_for_ever() -> ! {
    loop {
        std::thread::sleep(std::time::Duration::from_secs(3600));
    }
}

/// Waits for ever if the environment says `BEHAVE=well`, and says so. For programs of the world `operator`.
#[cfg(target_os = "wasi")]
pub fn unless_well_behaved() {
    if std::env::var("BEHAVE").is_ok_and(|how| how == "well") {
        println!("behaves well");
        wait_for_ever();
    }
}

include!(concat!(env!("OUT_DIR"), "/programs.rs"));

/// The label by which each program finds its ConfigMaps; its value is the program's name.
pub const LABEL: &str = "misbehaving.wasm-operator.dev/program";

/// Where the components are, below the target directory.
pub const DIRECTORY: &str = "wasm32-wasip2/guest/examples";

#[cfg(all(test, not(target_os = "wasi")))]
mod tests {
    use super::*;

    macro_rules! count {
        ($program:ident) => {
            assert!(PROGRAMS.contains(&stringify!($program)));
        };
    }

    #[test]
    fn the_macro_and_the_list_name_the_same_programs() {
        foreach_program!(count);
        assert!(PROGRAMS.len() > 10);
    }

    #[test]
    fn the_wrong_version_is_the_only_difference_of_its_contract() {
        let right = include_str!("../../../wit/controller.wit");
        let wrong = include_str!("../wit/controller.wit");
        let (_, version) = right.split_once("package wasm-operator:controller@").unwrap();
        let (version, _) = version.split_once(';').unwrap();

        assert_eq!(wrong, right.replacen(&format!("@{version};"), "@9.9.0;", 1), "copy wit/controller.wit again");
    }
}
