//! What is compared.

use harness::{Result, bail};
use serde::Serialize;
use serde_json::{Value, json};

use crate::stage::Shape;

/// What all controllers of a run are given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Setting {
    /// Who watches whom.
    pub(crate) shape: Shape,
    /// What each controller's heap holds besides, in bytes.
    pub(crate) heap_bytes: u64,
    /// Objects in each namespace, of which one travels.
    pub(crate) objects: usize,
}

impl Default for Setting {
    /// A ring with nothing but what travels.
    fn default() -> Self {
        Self { shape: Shape::Ring, heap_bytes: 0, objects: 1 }
    }
}

/// Controllers per process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// A process for each controller.
    Each,
    /// One process for all, which share a cache.
    Shared,
}

/// When guests sleep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sleep {
    Never,
    Immediately,
    /// After some idle time: the host's default of it.
    Fixed,
    Predicted,
}

impl Sleep {
    /// All modes.
    pub(crate) const ALL: [Self; 4] = [Self::Never, Self::Immediately, Self::Fixed, Self::Predicted];

    /// `sleep:` of a guest's configuration.
    pub(crate) fn configuration(self) -> Value {
        json!({ "mode": self.name() })
    }

    /// The mode's name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Never => "Never",
            Self::Immediately => "Immediately",
            Self::Fixed => "Fixed",
            Self::Predicted => "Predicted",
        }
    }
}

/// Which components the guests have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Components {
    /// All guests have the same one.
    One,
    /// Each has its own, which differs in a string of its data.
    Distinct,
}

/// The program under test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Go with controller-runtime.
    Go(Form),
    /// Rust with kube-rs.
    KubeRs(Form),
    /// A bare watch and PUT loop in Rust.
    Floor,
    /// Guests of wasm-operator.
    Guests(Sleep, Components),
    /// The plain kube-rs program that [`Kind::Programs`] are, as a process for each controller.
    NativeProgram,
    /// Guests that are plain kube-rs programs.
    Programs(Sleep),
}

/// One line of the results.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Variant {
    /// By which it is chosen on the command line and found in the results.
    pub(crate) id: &'static str,
    /// For people.
    pub(crate) title: &'static str,
    /// What runs.
    pub(crate) kind: Kind,
}

/// All of them, in the order of the results.
pub(crate) const ALL: [Variant; 14] = [
    variant("go-each", "Go controller-runtime, one process each", Kind::Go(Form::Each)),
    variant("go-shared", "Go controller-runtime, one process", Kind::Go(Form::Shared)),
    variant("kube-rs-each", "kube-rs, one process each", Kind::KubeRs(Form::Each)),
    variant("kube-rs-shared", "kube-rs, one process", Kind::KubeRs(Form::Shared)),
    variant("floor", "bare watch and PUT loop, one process", Kind::Floor),
    variant("never", "wasm-operator, never asleep", Kind::Guests(Sleep::Never, Components::One)),
    variant(
        "never-distinct",
        "wasm-operator, never asleep, distinct",
        Kind::Guests(Sleep::Never, Components::Distinct),
    ),
    variant("asleep", "wasm-operator, asleep at once", Kind::Guests(Sleep::Immediately, Components::One)),
    variant(
        "asleep-distinct",
        "wasm-operator, asleep at once, distinct",
        Kind::Guests(Sleep::Immediately, Components::Distinct),
    ),
    variant("predicted", "wasm-operator, predicted", Kind::Guests(Sleep::Predicted, Components::One)),
    variant(
        "predicted-distinct",
        "wasm-operator, predicted, distinct",
        Kind::Guests(Sleep::Predicted, Components::Distinct),
    ),
    variant("program-native", "kube-rs program, one process each", Kind::NativeProgram),
    variant("program-never", "wasm-operator, the same program, never asleep", Kind::Programs(Sleep::Never)),
    variant(
        "program-asleep",
        "wasm-operator, the same program, hibernated at once",
        Kind::Programs(Sleep::Immediately),
    ),
];

const fn variant(id: &'static str, title: &'static str, kind: Kind) -> Variant {
    Variant { id, title, kind }
}

impl Variant {
    /// The variant of this id.
    pub(crate) fn parse(id: &str) -> Result<Self, String> {
        ALL.into_iter().find(|variant| variant.id == id).ok_or_else(|| {
            let known: Vec<_> = ALL.iter().map(|variant| variant.id).collect();
            format!("no variant `{id}`; there are {}", known.join(", "))
        })
    }

    /// Whether it is ours.
    pub(crate) fn is_ours(self) -> bool {
        matches!(self.kind, Kind::Guests(..) | Kind::Programs(..))
    }

    /// Whether a quick run has time for it.
    pub(crate) fn is_in_quick_run(self) -> bool {
        !matches!(self.kind, Kind::Guests(Sleep::Never | Sleep::Predicted, Components::Distinct))
    }

    /// Whether it is run with so many controllers: beyond `PEERS_MOST` only ours are.
    pub(crate) fn runs_with(self, controllers: usize) -> bool {
        self.is_ours() || controllers <= PEERS_MOST
    }

    /// Why it cannot be measured in this setting, if it cannot.
    pub(crate) fn obstacle(self, setting: &Setting) -> Option<&'static str> {
        let for_all = matches!(self.kind, Kind::Go(Form::Shared) | Kind::KubeRs(Form::Shared) | Kind::Floor);
        if setting.shape == Shape::Star && for_all {
            Some("is one process that knows only the ring; leave it out with --star")
        } else if setting.heap_bytes > 0 && !self.is_ours() && self.kind != Kind::NativeProgram {
            Some("cannot be told to hold a heap; leave it out with --heap-mib")
        } else if setting.objects > 1 && self.kind == Kind::Floor {
            Some("knows one object in each namespace; leave it out with --objects")
        } else {
            None
        }
    }
}

/// A thousand Go processes need 28 GiB.
const PEERS_MOST: usize = 100;

/// The number of controllers of a ring: at least one, and what a namespace's number can hold.
pub(crate) fn controllers(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count @ 1..=MOST_CONTROLLERS) => Ok(count),
        _ => Err(format!("a number from 1 to {MOST_CONTROLLERS}")),
    }
}

/// More namespaces than this were never tried.
const MOST_CONTROLLERS: usize = 2_000;

/// Fails when a list names nothing to do, or what cannot be done.
pub(crate) fn ensure_some(variants: &[Variant], sizes: &[usize], setting: &Setting) -> Result<()> {
    for variant in variants {
        if let Some(obstacle) = variant.obstacle(setting) {
            bail!("`{}` {obstacle}", variant.id);
        }
    }
    if !sizes.iter().any(|size| variants.iter().any(|variant| variant.runs_with(*size))) {
        bail!("nothing to measure: beyond {PEERS_MOST} controllers only variants of wasm-operator are run");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_unique_and_found() {
        for variant in ALL {
            assert_eq!(Variant::parse(variant.id), Ok(variant));
        }
        assert!(Variant::parse("python").unwrap_err().contains("kube-rs-each"));
    }

    #[test]
    fn peers_end_where_the_machine_does() {
        let go = Variant::parse("go-each").unwrap();
        assert!(go.runs_with(100) && !go.runs_with(500));
        assert!(Variant::parse("asleep").unwrap().runs_with(1_000));
        assert!(ensure_some(&[go], &[500], &Setting::default()).is_err());
        assert!(ensure_some(&[go], &[500, 10], &Setting::default()).is_ok());
    }

    #[test]
    fn a_variant_that_a_setting_does_not_suit_is_named() {
        let [go, native, guest, floor] =
            ["go-each", "program-native", "asleep", "floor"].map(|id| Variant::parse(id).unwrap());
        let refused =
            |variants: &[Variant], setting| ensure_some(variants, &[10], &setting).err().map(|e| e.to_string());
        let heap = Setting { heap_bytes: 1 << 20, ..Setting::default() };
        assert_eq!(refused(&[native, guest], heap), None);
        assert!(refused(&[native, go], heap).unwrap().contains("`go-each` cannot be told to hold a heap"));
        let star = Setting { shape: Shape::Star, ..Setting::default() };
        assert_eq!(refused(&[go, native, guest], star), None);
        assert!(refused(&[guest, floor], star).unwrap().contains("`floor` is one process"));
        let objects = Setting { objects: 20, ..Setting::default() };
        assert_eq!(refused(&[go, native, guest], objects), None);
        assert!(refused(&[guest, floor], objects).unwrap().contains("`floor` knows one object"));
    }

    #[test]
    fn a_ring_has_controllers() {
        assert_eq!(controllers("10"), Ok(10));
        for bad in ["0", "-1", "ten", "1e9", ""] {
            assert!(controllers(bad).is_err(), "{bad}");
        }
    }
}
