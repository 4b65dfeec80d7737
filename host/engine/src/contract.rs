//! The world that a guest must fit, as far as it can be read off its imports and exports.

use wasmtime::Engine;
use wasmtime::component::types::Component as ComponentType;

use crate::error::LoadError;

/// The version of `wasm-operator:controller` that this host serves. Before 1.0 the second number tells incompatible
/// versions apart.
pub(crate) const SERVED: &str = "0.1";
const PACKAGE: &str = "wasm-operator:controller/";
const EXPORTS: [&str; 2] = ["describe", "reconcile"];
/// What the linker offers.
const PROVIDED: [&str; 7] =
    ["wasi:cli/", "wasi:clocks/", "wasi:filesystem/", "wasi:http/", "wasi:io/", "wasi:random/", "wasi:sockets/"];
const WASI_VERSION: &str = "0.2.";
/// The export of guests that serve requests.
const HANDLER: &str = "wasi:http/incoming-handler@";

/// The export of a program.
const RUN: &str = "wasi:cli/run@";

/// Which of the contract's worlds a component is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum World {
    /// It exports `describe` and `reconcile`, and is called when there is work.
    Controller,
    /// It exports `wasi:cli/run`, and runs a loop of its own.
    Operator,
}

impl World {
    /// By its exports: what is no program is taken for a controller, and told what it lacks.
    pub(crate) fn of(exports: &[String]) -> Self {
        let runs = exports.iter().any(|name| name.starts_with(RUN) && version(name).starts_with(WASI_VERSION));
        let controls = exports.iter().any(|name| EXPORTS.contains(&name.as_str()));
        if runs && !controls { Self::Operator } else { Self::Controller }
    }

    /// What it is called in the contract and to people.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Controller => "controller",
            Self::Operator => "operator",
        }
    }
}

/// What a component imports and exports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Names such as `wasi:http/outgoing-handler@0.2.9`.
    pub imports: Vec<String>,
    /// Names such as `reconcile`.
    pub exports: Vec<String>,
}

impl Interface {
    pub(crate) fn of(component: &ComponentType, engine: &Engine) -> Self {
        Self {
            imports: component.imports(engine).map(|(name, _)| name.to_owned()).collect(),
            exports: component.exports(engine).map(|(name, _)| name.to_owned()).collect(),
        }
    }

    /// The world that it is made for.
    #[must_use]
    pub fn world(&self) -> World {
        World::of(&self.exports)
    }

    /// Whether it serves HTTP requests: it exports `wasi:http/incoming-handler` 0.2.
    #[must_use]
    pub fn serves_requests(&self) -> bool {
        let is_handler = |name: &String| name.starts_with(HANDLER) && version(name).starts_with(WASI_VERSION);
        self.exports.iter().any(is_handler)
    }

    /// The reasons that a person can act on, before wasmtime gives its own.
    pub(crate) fn check(&self) -> Result<(), LoadError> {
        for name in self.imports.iter().chain(&self.exports) {
            if name.starts_with(PACKAGE) && !is_served(name) {
                return Err(LoadError::Version { found: name.clone() });
            }
        }
        let missing: Vec<_> = EXPORTS
            .into_iter()
            .filter(|export| !self.exports.iter().any(|found| found == export))
            .map(str::to_owned)
            .collect();
        if self.world() == World::Controller && !missing.is_empty() {
            return Err(LoadError::MissingExports { missing, found: self.exports.clone() });
        }
        let unknown: Vec<_> = self.imports.iter().filter(|name| !is_provided(name)).cloned().collect();
        if !unknown.is_empty() {
            return Err(LoadError::UnknownImports { imports: unknown });
        }
        Ok(())
    }
}

fn version(name: &str) -> &str {
    name.split_once('@').map_or("", |(_, version)| version)
}

fn is_served(name: &str) -> bool {
    version(name).strip_prefix(SERVED).is_some_and(|rest| rest.starts_with('.'))
}

fn is_provided(name: &str) -> bool {
    if name.starts_with(PACKAGE) {
        return is_served(name);
    }
    PROVIDED.iter().any(|package| name.starts_with(package)) && version(name).starts_with(WASI_VERSION)
}

/// Names for a message.
pub(crate) fn quoted(names: &[String]) -> String {
    if names.is_empty() {
        return "nothing".into();
    }
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(imports: &[&str], exports: &[&str]) -> Interface {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Interface { imports: owned(imports), exports: owned(exports) }
    }

    #[test]
    fn every_wasi_0_2_is_provided() {
        let imports = [
            "wasm-operator:controller/types@0.1.7",
            "wasi:http/types@0.2.0",
            "wasi:cli/environment@0.2.9",
            "wasi:io/poll@0.2.12",
        ];
        interface(&imports, &EXPORTS).check().unwrap();
    }

    #[test]
    fn another_version_of_the_world_is_named() {
        for found in [
            "wasm-operator:controller/types@0.2.0",
            "wasm-operator:controller/types@0.10.0",
            "wasm-operator:controller/types",
        ] {
            let error = interface(&[found], &EXPORTS).check().unwrap_err();
            assert!(error.to_string().contains(found) && error.to_string().contains("@0.1"), "{error}");
        }
    }

    #[test]
    fn a_handler_of_wasi_0_2_serves_requests() {
        let serves = |export| interface(&[], &["describe", "reconcile", export]).serves_requests();
        assert!(serves("wasi:http/incoming-handler@0.2.0") && serves("wasi:http/incoming-handler@0.2.12"));
        for other in ["wasi:http/handler@0.3.0", "wasi:http/incoming-handler@0.3.0", "wasi:http/incoming-handler", "x"]
        {
            assert!(!serves(other), "{other}");
        }
    }

    #[test]
    fn a_program_is_told_from_a_controller_by_its_exports() {
        let world = |exports: &[&str]| interface(&[], exports).world();
        assert_eq!(world(&["wasi:cli/run@0.2.12"]), World::Operator);
        interface(&["wasi:sockets/tcp@0.2.9"], &["wasi:cli/run@0.2.9"]).check().unwrap();
        let others: [&[&str]; 6] = [
            &[],
            &["describe", "reconcile"],
            &["describe", "reconcile", "wasi:cli/run@0.2.3"],
            &["wasi:cli/run@0.3.0"],
            &["wasi:cli/run"],
            &["run"],
        ];
        for other in others {
            assert_eq!(world(other), World::Controller, "{other:?}");
        }
    }

    #[test]
    fn missing_exports_are_named() {
        let error = interface(&[], &["describe", "wasi:cli/run@0.2.3"]).check().unwrap_err();
        let text = error.to_string();
        assert!(text.contains("does not export `reconcile`") && text.contains("`wasi:cli/run@0.2.3`"), "{text}");
    }

    #[test]
    fn unknown_imports_are_named() {
        let imports = ["wasi:http/types@0.3.0", "wasi:cli/environment@0.2.3", "acme:db/query@1.0.0"];
        let error = interface(&imports, &EXPORTS).check().unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("`wasi:http/types@0.3.0`, `acme:db/query@1.0.0`") && !text.contains("environment"),
            "{text}"
        );
    }
}
