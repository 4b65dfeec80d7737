//! A YAML document as a tree in which every node knows its place.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Location, Spanned};

use crate::check::Segment;
use crate::diagnostic::Position;

/// Nodes of one document. The largest guest that makes sense, with hundreds of rules, has some thousand.
const MAX_NODES: usize = 50_000;
/// Nesting; a guest has four levels.
const MAX_DEPTH: usize = 32;
/// Events that aliases may repeat: enough for a block of rules that twenty guests share, too few for a bomb.
const MAX_REPLAYED: usize = 50_000;

/// Tells the nodes of one document apart.
pub(crate) type NodeId = usize;

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) position: Position,
    pub(crate) value: Value,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Signed(i64),
    Unsigned(u64),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    pub(crate) key: Node,
    pub(crate) value: Node,
}

impl Node {
    /// Reads one document; positions are counted from the beginning of the file.
    pub(crate) fn parse(text: &str, lines_before: usize) -> Result<Self, serde_saphyr::Error> {
        let options = serde_saphyr::options! {
            budget: serde_saphyr::budget! {
                max_nodes: MAX_NODES,
                max_events: MAX_NODES.saturating_mul(2),
                max_depth: MAX_DEPTH,
                flow_nesting_limit: MAX_DEPTH,
                max_documents: 1,
                max_recorded_anchor_events: MAX_REPLAYED,
            },
            alias_limits: serde_saphyr::alias_limits! {
                max_total_replayed_events: MAX_REPLAYED,
                max_replay_stack_depth: MAX_DEPTH,
            },
            // Found by the tree's user, who names both places.
            duplicate_keys: serde_saphyr::options::DuplicateKeyPolicy::PassThrough,
            strict_booleans: true,
            reject_unsupported_tags: true,
            with_snippet: false,
        };
        let raw: Spanned<Raw> = serde_saphyr::from_str_with_options(text, options)?;
        Ok(Builder { lines_before, next: 0 }.node(raw))
    }

    pub(crate) fn text(&self) -> Option<&str> {
        if let Value::Text(text) = &self.value { Some(text) } else { None }
    }

    /// A field's entry.
    pub(crate) fn field(&self, name: &str) -> Option<&Entry> {
        let Value::Map(entries) = &self.value else { return None };
        entries.iter().find(|entry| entry.key.text() == Some(name))
    }

    /// Gives a map a field that it lacks, so that the rest can be read. The result is of no use.
    pub(crate) fn stand_in(&mut self, name: &str) {
        let position = self.position;
        let node = |value| Node { id: NodeId::MAX, position, value };
        let Value::Map(entries) = &mut self.value else { return };
        entries.retain(|entry| entry.key.text() != Some(name));
        let (key, value) = (node(Value::Text(name.to_owned())), node(Value::Text("missing".to_owned())));
        entries.push(Entry { key, value });
    }

    /// The place of what a path leads to, or of the last part of it that exists.
    pub(crate) fn position_of(&self, path: &[Segment]) -> Position {
        let Some((first, rest)) = path.split_first() else { return self.position };
        let next = match (first, &self.value) {
            (Segment::Field(name), _) => self.field(name).map(|entry| &entry.value),
            (Segment::Index(index), Value::List(items)) => items.get(*index),
            _ => None,
        };
        next.map_or(self.position, |node| node.position_of(rest))
    }
}

struct Builder {
    lines_before: usize,
    next: NodeId,
}

impl Builder {
    fn node(&mut self, raw: Spanned<Raw>) -> Node {
        let id = self.next;
        self.next = self.next.saturating_add(1);
        let position = self.position(&raw.referenced);
        let value = match raw.value {
            Raw::Null => Value::Null,
            Raw::Bool(value) => Value::Bool(value),
            Raw::Signed(value) => Value::Signed(value),
            Raw::Unsigned(value) => Value::Unsigned(value),
            Raw::Float(value) => Value::Float(value),
            Raw::Text(value) => Value::Text(value),
            Raw::List(items) => Value::List(items.into_iter().map(|item| self.node(item)).collect()),
            Raw::Map(entries) => Value::Map(
                entries
                    .into_iter()
                    .map(|(key, value)| Entry { key: self.node(key), value: self.node(value) })
                    .collect(),
            ),
        };
        Node { id, position, value }
    }

    fn position(&self, location: &Location) -> Position {
        position(location, self.lines_before)
    }
}

/// A place of the parser in the whole file.
pub(crate) fn position(location: &Location, lines_before: usize) -> Position {
    let number = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
    Position {
        line: number(location.line()).max(1).saturating_add(lines_before),
        column: number(location.column()).max(1),
        length: number(location.span().len()).max(1),
    }
}

/// What the parser hands over.
enum Raw {
    Null,
    Bool(bool),
    Signed(i64),
    Unsigned(u64),
    Float(f64),
    Text(String),
    List(Vec<Spanned<Raw>>),
    Map(Vec<(Spanned<Raw>, Spanned<Raw>)>),
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;

        impl<'de> Visitor<'de> for Any {
            type Value = Raw;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a YAML value")
            }

            fn visit_unit<E: Error>(self) -> Result<Raw, E> {
                Ok(Raw::Null)
            }

            fn visit_none<E: Error>(self) -> Result<Raw, E> {
                Ok(Raw::Null)
            }

            fn visit_bool<E: Error>(self, value: bool) -> Result<Raw, E> {
                Ok(Raw::Bool(value))
            }

            fn visit_i64<E: Error>(self, value: i64) -> Result<Raw, E> {
                Ok(Raw::Signed(value))
            }

            fn visit_u64<E: Error>(self, value: u64) -> Result<Raw, E> {
                Ok(Raw::Unsigned(value))
            }

            // No field takes numbers that large; as a float it is refused with its place.
            #[allow(clippy::cast_precision_loss)]
            fn visit_i128<E: Error>(self, value: i128) -> Result<Raw, E> {
                Ok(Raw::Float(value as f64))
            }

            #[allow(clippy::cast_precision_loss)]
            fn visit_u128<E: Error>(self, value: u128) -> Result<Raw, E> {
                Ok(Raw::Float(value as f64))
            }

            fn visit_f64<E: Error>(self, value: f64) -> Result<Raw, E> {
                Ok(Raw::Float(value))
            }

            fn visit_str<E: Error>(self, value: &str) -> Result<Raw, E> {
                Ok(Raw::Text(value.to_owned()))
            }

            fn visit_string<E: Error>(self, value: String) -> Result<Raw, E> {
                Ok(Raw::Text(value))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Raw, A::Error> {
                let mut list = Vec::new();
                while let Some(item) = items.next_element()? {
                    list.push(item);
                }
                Ok(Raw::List(list))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Raw, A::Error> {
                let mut map = Vec::new();
                while let Some(key) = entries.next_key()? {
                    map.push((key, entries.next_value()?));
                }
                Ok(Raw::Map(map))
            }
        }

        deserializer.deserialize_any(Any)
    }
}
