//! From text to guests, with every mistake that can be found in one go.
//!
//! serde stops at the first fault. So the faulty part is reported, cut out of the tree, and the rest is read again.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use serde_saphyr::localizer::Localizer;
use serde_saphyr::{Error, SnippetMode};

use crate::check::{Problem, Segment};
use crate::diagnostic::{Diagnostic, Position, Severity, printable};
use crate::diff::{Change, diff};
use crate::documents::{self, Chunk};
use crate::fault::{Fault, Kind};
use crate::names::is_label;
use crate::node::{self, Node, NodeId, Value};
use crate::spec::GuestSpec;
use crate::suggest::closest;

/// Mistakes that are reported of one document: more are of no use to a reader.
const MAX_DIAGNOSTICS: usize = 20;

/// Characters of a message.
const MAX_MESSAGE: usize = 1_000;

/// A file, or what could be made of it: one result per document that is not empty, in order.
#[derive(Debug, Clone, Default)]
pub struct Parsed {
    /// The guests, and the documents that are none.
    pub documents: Vec<Result<GuestDocument, DocumentError>>,
}

/// A document that describes a guest.
#[derive(Debug, Clone)]
pub struct GuestDocument {
    /// The guest.
    pub spec: GuestSpec,
    /// What the administrator should know.
    pub warnings: Vec<Diagnostic>,
    source: Source,
    root: Node,
}

/// A document that does not. Mended by the administrator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DocumentError {
    /// The guest's name, if there is one to be read: what runs under this name should go on.
    pub name: Option<String>,
    /// What is wrong, in the order of the file; at least one.
    pub diagnostics: Vec<Diagnostic>,
}

impl GuestDocument {
    /// A diagnostic about a part of this document.
    #[must_use]
    pub fn diagnostic(&self, severity: Severity, path: &[Segment], message: impl Into<String>) -> Diagnostic {
        self.source.diagnostic(severity, self.root.position_of(path), message.into(), None)
    }
}

impl Parsed {
    /// The guests that are well described.
    pub fn guests(&self) -> impl Iterator<Item = &GuestDocument> {
        self.documents.iter().filter_map(|document| document.as_ref().ok())
    }

    /// The documents that are no guests.
    pub fn errors(&self) -> impl Iterator<Item = &DocumentError> {
        self.documents.iter().filter_map(|document| document.as_ref().err())
    }

    /// Errors and warnings in the order of the file.
    pub fn diagnostics(&self) -> impl Iterator<Item = &Diagnostic> {
        self.documents.iter().flat_map(|document| match document {
            Ok(document) => &document.warnings,
            Err(error) => &error.diagnostics,
        })
    }

    /// What to do so that these guests run instead of `old`. A guest whose document is broken now goes on as it was, and
    /// while there is a broken document without a name nobody is removed: it may be anyone's.
    #[must_use]
    pub fn changes(&self, old: &[GuestSpec]) -> Vec<Change> {
        let new: Vec<GuestSpec> = self.guests().map(|document| document.spec.clone()).collect();
        let kept =
            |spec: &GuestSpec| self.errors().any(|error| error.name.as_ref().is_none_or(|name| *name == spec.name));
        let mut changes = diff(old, &new);
        changes.retain(|change| !matches!(change, Change::Removed(spec) if kept(spec)));
        changes
    }
}

/// Reads the text of a configuration. `file` is its name in messages. For `host_namespace` see [`GuestSpec::check`].
#[must_use]
pub fn parse(file: &str, text: &str, host_namespace: Option<&str>) -> Parsed {
    let source = Source { file: file.into(), text: text.into() };
    let mut documents: Vec<_> =
        documents::split(text).into_iter().filter_map(|chunk| document(&source, chunk, host_namespace)).collect();
    refuse_second_of_a_name(&mut documents);
    Parsed { documents: documents.into_iter().map(|document| document.result).collect() }
}

/// A document, and where its name stands.
struct Read {
    name: Option<(String, Position)>,
    source: Source,
    result: Result<GuestDocument, DocumentError>,
}

/// None for a document that is `null`, which is as good as empty.
fn document(source: &Source, chunk: Chunk<'_>, host_namespace: Option<&str>) -> Option<Read> {
    let read = |name: Option<(String, Position)>, result: Result<GuestDocument, Vec<Diagnostic>>| {
        let result = result.map_err(|mut diagnostics| {
            diagnostics.sort_by_key(|diagnostic| diagnostic.position);
            diagnostics.truncate(MAX_DIAGNOSTICS);
            DocumentError { name: name.as_ref().map(|(name, _)| name.clone()), diagnostics }
        });
        Some(Read { name, source: source.clone(), result })
    };
    let mut root = match Node::parse(chunk.text, chunk.lines_before) {
        Ok(root) => root,
        Err(error) => return read(None, Err(vec![syntax(source, &error, chunk.lines_before)])),
    };
    if root.value == Value::Null {
        return None;
    }
    let name = root
        .field("name")
        .and_then(|entry| Some((entry.value.text()?.to_owned(), entry.value.position)))
        .filter(|(name, _)| is_label(name));
    if !matches!(root.value, Value::Map(_)) {
        let message = "a guest is described by fields such as `name: ring` and `wasm: ./ring.wasm`".to_owned();
        return read(name, Err(vec![source.diagnostic(Severity::Error, root.position, message, None)]));
    }
    let mut found = Vec::new();
    drop_unusable_keys(source, &mut root, &mut found);
    let spec = read_all(source, &mut root, &mut found);
    if let Some(spec) = &spec {
        found.extend(spec.check(host_namespace).into_iter().map(|problem| source.problem(&root, problem)));
    }
    let is_sound = !found.iter().any(|diagnostic| diagnostic.severity == Severity::Error);
    match spec {
        Some(spec) if is_sound => read(name, Ok(GuestDocument { spec, warnings: found, source: source.clone(), root })),
        _ => read(name, Err(found)),
    }
}

fn refuse_second_of_a_name(documents: &mut [Read]) {
    let mut first: BTreeMap<String, usize> = BTreeMap::new();
    for document in documents {
        let Some((name, position)) = &document.name else { continue };
        let Some(line) = first.get(name) else {
            first.insert(name.clone(), position.line);
            continue;
        };
        let message = format!("a guest named `{}` is already described in line {line}", printable(name));
        let diagnostic = document.source.diagnostic(Severity::Error, *position, message, None);
        match &mut document.result {
            Err(error) => {
                error.diagnostics.push(diagnostic);
                error.diagnostics.sort_by_key(|diagnostic| diagnostic.position);
            }
            Ok(_) => document.result = Err(DocumentError { name: Some(name.clone()), diagnostics: vec![diagnostic] }),
        }
    }
}

/// Reports repeated keys and keys that are no text, and drops them.
fn drop_unusable_keys(source: &Source, node: &mut Node, found: &mut Vec<Diagnostic>) {
    match &mut node.value {
        Value::List(items) => items.iter_mut().for_each(|item| drop_unusable_keys(source, item, found)),
        Value::Map(entries) => {
            let mut lines: BTreeMap<String, usize> = BTreeMap::new();
            entries.retain(|entry| {
                let message = match entry.key.text() {
                    None => "the name of a field is a word".to_owned(),
                    Some(key) => match lines.get(key) {
                        Some(line) => format!("`{}` is already set in line {line}", printable(key)),
                        None => {
                            lines.insert(key.to_owned(), entry.key.position.line);
                            return true;
                        }
                    },
                };
                if found.len() < MAX_DIAGNOSTICS {
                    found.push(source.diagnostic(Severity::Error, entry.key.position, message, None));
                }
                false
            });
            entries.iter_mut().for_each(|entry| drop_unusable_keys(source, &mut entry.value, found));
        }
        _ => {}
    }
}

/// Reads the tree again and again, without the parts that are faulty. None if nothing is left to read.
fn read_all(source: &Source, root: &mut Node, found: &mut Vec<Diagnostic>) -> Option<GuestSpec> {
    // Fields that are absent only because they were cut out, by the map that they were in.
    let mut cut: Vec<(NodeId, String)> = Vec::new();
    while found.len() < MAX_DIAGNOSTICS {
        let fault = match GuestSpec::deserialize(&*root) {
            Ok(spec) => return Some(spec),
            Err(fault) => fault,
        };
        let node = fault.node.unwrap_or(root.id);
        let is_known = matches!(&fault.kind, Kind::MissingField(name) if cut.iter().any(|(map, field)| *map == node && field == name));
        if !is_known {
            found.push(explain(source, root, node, &fault));
        }
        let meant = match &fault.kind {
            Kind::UnknownField { name, expected } => closest(name, expected.iter().copied()),
            _ => None,
        };
        match fault.kind {
            // Nothing would be left without the document itself.
            Kind::MissingField(name) if node == root.id => root.stand_in(name),
            _ if cut_out(root, node, meant, &mut cut) => {}
            _ => return None,
        }
    }
    None
}

/// Removes the entry or item of this id from the tree; false if it is the root.
fn cut_out(node: &mut Node, id: NodeId, meant: Option<&str>, cut: &mut Vec<(NodeId, String)>) -> bool {
    match &mut node.value {
        Value::List(items) => {
            let before = items.len();
            items.retain(|item| item.id != id);
            items.len() < before || items.iter_mut().any(|item| cut_out(item, id, meant, cut))
        }
        Value::Map(entries) => {
            let is_it = |key: NodeId, value: NodeId| key == id || value == id;
            if let Some(index) = entries.iter().position(|entry| is_it(entry.key.id, entry.value.id)) {
                let entry = entries.remove(index);
                let names = [entry.key.text(), meant].into_iter().flatten();
                cut.extend(names.map(|name| (node.id, name.to_owned())));
                return true;
            }
            entries.iter_mut().any(|entry| cut_out(&mut entry.value, id, meant, cut))
        }
        _ => false,
    }
}

fn find(node: &Node, id: NodeId) -> Option<&Node> {
    if node.id == id {
        return Some(node);
    }
    match &node.value {
        Value::List(items) => items.iter().find_map(|item| find(item, id)),
        Value::Map(entries) => entries.iter().find_map(|entry| find(&entry.key, id).or_else(|| find(&entry.value, id))),
        _ => None,
    }
}

fn explain(source: &Source, root: &Node, id: NodeId, fault: &Fault) -> Diagnostic {
    let node = find(root, id).unwrap_or(root);
    let mut position = node.position;
    let words = |expected: &[&str]| expected.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ");
    let (message, help) = match &fault.kind {
        Kind::UnknownField { name, expected } => match closest(name, expected.iter().copied()) {
            Some(meant) => (format!("unknown field `{name}`"), Some(format!("did you mean `{meant}`?"))),
            None => (format!("unknown field `{name}`"), Some(format!("the fields are {}", words(expected)))),
        },
        Kind::UnknownVariant { name, expected } => (
            format!("`{name}` is not one of {}", words(expected)),
            closest(name, expected.iter().copied()).map(|meant| format!("did you mean `{meant}`?")),
        ),
        Kind::MissingField(name) => match node.field(name) {
            Some(entry) => {
                position = entry.key.position;
                (format!("`{name}` has no value"), None)
            }
            None => (format!("the field `{name}` is missing"), None),
        },
        Kind::Wrong { expected, .. } if expected == "text" => (fault.to_string(), source.quotes(node)),
        _ => (fault.to_string(), None),
    };
    source.diagnostic(Severity::Error, position, message, help)
}

const TOO_MUCH: &str = "the document is too large, nested too deeply, or its aliases repeat too much";

fn is_too_much(error: &Error) -> bool {
    matches!(
        error,
        Error::Budget { .. }
            | Error::AliasReplayLimitExceeded { .. }
            | Error::AliasExpansionLimitExceeded { .. }
            | Error::AliasReplayStackDepthExceeded { .. }
            | Error::AliasReplayCounterOverflow { .. }
    )
}

/// A mistake in the YAML itself.
fn syntax(source: &Source, error: &Error, lines_before: usize) -> Diagnostic {
    struct WithoutPlace;
    impl Localizer for WithoutPlace {
        fn attach_location<'b>(
            &self,
            base: std::borrow::Cow<'b, str>,
            _: serde_saphyr::Location,
        ) -> std::borrow::Cow<'b, str> {
            base
        }
    }
    let formatter = serde_saphyr::DefaultMessageFormatter.with_localizer(&WithoutPlace);
    let options = serde_saphyr::render_options! { formatter: &formatter, snippets: SnippetMode::Off };
    let message = match error.without_snippet() {
        Error::AliasError { error, .. } if is_too_much(error) => TOO_MUCH.to_owned(),
        error if is_too_much(error) => TOO_MUCH.to_owned(),
        error => error.render_with_options(options),
    };
    match error.location() {
        Some(location) => source.diagnostic(Severity::Error, node::position(&location, lines_before), message, None),
        None => Diagnostic::of_file(&*source.file, message),
    }
}

/// Messages repeat what was written, which may be anything.
fn shorten(text: &str) -> String {
    match text.char_indices().nth(MAX_MESSAGE) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

#[derive(Debug, Clone)]
struct Source {
    file: Arc<str>,
    text: Arc<str>,
}

impl Source {
    fn line(&self, line: usize) -> Option<&str> {
        self.text.lines().nth(line.checked_sub(1)?).map(|line| line.trim_start_matches('\u{feff}'))
    }

    fn diagnostic(&self, severity: Severity, position: Position, message: String, help: Option<String>) -> Diagnostic {
        Diagnostic {
            severity,
            file: self.file.to_string(),
            position: Some(position),
            message: shorten(&printable(&message)),
            help: help.map(|help| shorten(&printable(&help))),
            source_line: self.line(position.line).map(str::to_owned),
        }
    }

    fn problem(&self, root: &Node, problem: Problem) -> Diagnostic {
        self.diagnostic(problem.severity, root.position_of(&problem.path), problem.message, problem.help)
    }

    /// A scalar that YAML takes for something else than text becomes text in quotes.
    fn quotes(&self, node: &Node) -> Option<String> {
        if !matches!(node.value, Value::Bool(_) | Value::Signed(_) | Value::Unsigned(_) | Value::Float(_)) {
            return None;
        }
        let Position { line, column, length } = node.position;
        let written: String = self.line(line)?.chars().skip(column.checked_sub(1)?).take(length).collect();
        Some(format!("put it in quotes: \"{}\"", written.trim_end()))
    }
}
