//! Leaves `metadata.managedFields` out of JSON while it streams through.
//!
//! Guests never see managed fields: they are half of an object's bytes, and a PUT without the key keeps the managers
//! while one with `[]` erases them. The server has no option for it, and a list of 20 MB is too dear to be parsed, so a
//! byte-wise automaton follows only as much of the structure as it must: it finds the key in the object's own metadata,
//! in items of lists, in watch events and in rows of tables, and nowhere else.

/// `"managedFields"` without quotes. A longer key cannot be it, so no more of a key is kept.
const KEY: &[u8] = b"managedFields";

/// Where in the structure the automaton is, as far as it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Context {
    /// The outermost object: an object, a list, a table or a watch event.
    Root,
    /// An object inside of one of those.
    Holder,
    /// `items`
    Items,
    /// `rows`
    Rows,
    /// An element of `rows`.
    Row,
    /// `metadata` of [`Context::Root`] or [`Context::Holder`].
    Metadata,
}

/// The automaton. Feed it chunks in order.
#[derive(Debug, Default)]
pub(crate) struct ManagedFieldsFilter {
    stack: Vec<Context>,
    /// Containers below the innermost that matters.
    other: u64,
    in_string: bool,
    escaped: bool,
    is_key: bool,
    expects_key: bool,
    /// The last key of the innermost context; longer than [`KEY`] when it is no key of interest.
    key: Vec<u8>,
    /// What came since the last member of a metadata object ended: it is let go when the next key is known.
    held: Vec<u8>,
    holding: bool,
    /// Members of the current metadata object that were let through.
    members: bool,
    /// Inside of the dropped value, with the containers open in it.
    dropping: Option<u64>,
}

impl ManagedFieldsFilter {
    /// Appends to `out` what is left of `input`.
    pub(crate) fn push(&mut self, input: &[u8], out: &mut Vec<u8>) {
        out.reserve(input.len());
        for &byte in input {
            if self.in_string {
                self.string_byte(byte, out);
            } else {
                self.plain_byte(byte, out);
            }
        }
    }

    /// Appends what is still held back when the input has ended (in the middle, if it was cut).
    pub(crate) fn finish(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.held);
    }

    fn emit(&mut self, byte: u8, out: &mut Vec<u8>) {
        if self.dropping.is_some() {
        } else if self.holding {
            self.held.push(byte);
        } else {
            out.push(byte);
        }
    }

    fn string_byte(&mut self, byte: u8, out: &mut Vec<u8>) {
        self.emit(byte, out);
        if self.escaped {
            self.escaped = false;
        } else if byte == b'"' {
            self.in_string = false;
            if self.is_key {
                self.end_of_key(out);
            }
            return;
        } else if byte == b'\\' {
            self.escaped = true;
        }
        if self.is_key {
            if self.key.len() <= KEY.len() {
                self.key.push(byte);
            } else {
                self.release(out);
            }
        }
    }

    fn end_of_key(&mut self, out: &mut Vec<u8>) {
        self.is_key = false;
        self.expects_key = false;
        if self.stack.last() != Some(&Context::Metadata) {
            return;
        }
        if self.key == KEY {
            self.held.clear();
            self.holding = false;
            self.dropping = Some(0);
        } else {
            self.release(out);
        }
    }

    /// Lets a member of the metadata through; the first one needs no comma before it.
    fn release(&mut self, out: &mut Vec<u8>) {
        if !self.holding {
            return;
        }
        self.holding = false;
        if !self.members
            && let Some(comma) = self.held.iter().position(|byte| *byte == b',')
        {
            self.held.remove(comma);
        }
        self.members = true;
        out.append(&mut self.held);
    }

    fn plain_byte(&mut self, byte: u8, out: &mut Vec<u8>) {
        if let Some(depth) = self.dropping {
            match byte {
                b'"' => self.in_string = true,
                b'{' | b'[' => self.dropping = Some(depth.saturating_add(1)),
                b'}' | b']' | b',' if depth == 0 => self.dropping = None,
                b'}' | b']' => self.dropping = Some(depth - 1),
                _ => {}
            }
            if self.dropping.is_some() {
                return;
            }
        }
        match byte {
            b'"' => {
                self.in_string = true;
                self.is_key = self.other == 0 && self.expects_key;
                if self.is_key {
                    self.key.clear();
                }
                self.emit(byte, out);
            }
            b'{' | b'[' => {
                self.emit(byte, out);
                self.open(byte == b'{');
            }
            b'}' | b']' => {
                if self.other > 0 {
                    self.other -= 1;
                } else if self.stack.pop() == Some(Context::Metadata) && self.holding {
                    self.holding = false;
                    out.append(&mut self.held);
                }
                self.expects_key = false;
                self.emit(byte, out);
            }
            b',' => {
                if self.other == 0 {
                    self.expects_key = !matches!(self.stack.last(), None | Some(Context::Items | Context::Rows));
                    self.holding |= self.stack.last() == Some(&Context::Metadata);
                }
                self.emit(byte, out);
            }
            _ => self.emit(byte, out),
        }
    }

    fn open(&mut self, object: bool) {
        if self.other > 0 {
            self.other = self.other.saturating_add(1);
            return;
        }
        let inner = match (self.stack.last(), self.key.as_slice(), object) {
            (None, _, true) => Some(Context::Root),
            (Some(Context::Root | Context::Holder), b"metadata", true) => Some(Context::Metadata),
            (Some(Context::Root), b"items", false) => Some(Context::Items),
            (Some(Context::Root), b"rows", false) => Some(Context::Rows),
            (Some(Context::Root | Context::Row), b"object", true) | (Some(Context::Items), _, true) => {
                Some(Context::Holder)
            }
            (Some(Context::Rows), _, true) => Some(Context::Row),
            _ => None,
        };
        match inner {
            None => self.other = 1,
            Some(inner) => {
                self.stack.push(inner);
                self.expects_key = object;
                self.key.clear();
                if inner == Context::Metadata {
                    self.holding = true;
                    self.members = false;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn filtered(chunks: &[&[u8]]) -> Vec<u8> {
        let mut filter = ManagedFieldsFilter::default();
        let mut out = Vec::new();
        for chunk in chunks {
            filter.push(chunk, &mut out);
        }
        filter.finish(&mut out);
        out
    }

    fn text(input: &str) -> String {
        String::from_utf8(filtered(&[input.as_bytes()])).unwrap()
    }

    /// The same on a tree of values.
    fn reference(mut value: Value) -> Value {
        fn strip(object: Option<&mut Value>) {
            if let Some(metadata) = object.and_then(|o| o.get_mut("metadata")).and_then(Value::as_object_mut) {
                metadata.remove("managedFields");
            }
        }
        strip(Some(&mut value));
        strip(value.get_mut("object"));
        for item in value.get_mut("items").and_then(Value::as_array_mut).into_iter().flatten() {
            strip(Some(item));
        }
        for row in value.get_mut("rows").and_then(Value::as_array_mut).into_iter().flatten() {
            strip(row.get_mut("object"));
        }
        value
    }

    #[test]
    fn the_key_is_left_out_wherever_it_stands() {
        for (input, output) in [
            (r#"{"metadata":{"managedFields":[{"a":"]}"}],"name":"x"}}"#, r#"{"metadata":{"name":"x"}}"#),
            (r#"{"metadata":{"name":"x","managedFields":[]}}"#, r#"{"metadata":{"name":"x"}}"#),
            (r#"{"metadata":{"name":"x","managedFields":null,"uid":"u"}}"#, r#"{"metadata":{"name":"x","uid":"u"}}"#),
            (r#"{"metadata":{"managedFields":[[],{}]}}"#, r#"{"metadata":{}}"#),
            (r#"{"metadata":{}}"#, r#"{"metadata":{}}"#),
            (r#"{"items":[{"metadata":{"managedFields":1,"n":2}},{}]}"#, r#"{"items":[{"metadata":{"n":2}},{}]}"#),
            (
                "{\"type\":\"ADDED\",\"object\":{\"metadata\":{\"managedFields\":\"\\\"\"}}}\n{}\n",
                "{\"type\":\"ADDED\",\"object\":{\"metadata\":{}}}\n{}\n",
            ),
        ] {
            assert_eq!(text(input), output);
        }
    }

    #[test]
    fn the_same_word_elsewhere_stays() {
        for input in [
            r#"{"managedFields":[1],"spec":{"managedFields":[1],"metadata":{"managedFields":[1]}}}"#,
            r#"{"metadata":{"labels":{"managedFields":"x"},"managedFieldsX":1,"managedField":2}}"#,
            r#"{"metadata":{"name":"\"managedFields\":[]"}}"#,
            r#"{"spec":{"template":{"metadata":{"managedFields":[1]}}},"data":{"metadata":"managedFields"}}"#,
            r#"{"items":[[{"metadata":{"managedFields":[1]}}],"metadata"]}"#,
            "not json, \"managedFields\"",
            "]]}}{{",
        ] {
            assert_eq!(text(input), input);
        }
    }

    #[test]
    fn white_space_is_no_obstacle() {
        let input = "{ \"metadata\" : { \"a\" : 1 , \"managedFields\" : [ 1 , 2 ] , \"b\" : 2 } }";
        assert_eq!(serde_json::from_str::<Value>(&text(input)).unwrap(), json!({"metadata": {"a": 1, "b": 2}}));
        let input = "{ \"metadata\" : { \"managedFields\" : [ 1 , 2 ] , \"b\" : 2 } }";
        assert_eq!(serde_json::from_str::<Value>(&text(input)).unwrap(), json!({"metadata": {"b": 2}}));
    }

    #[test]
    fn deep_nesting_costs_no_memory() {
        let mut input = vec![b'['; 1 << 20];
        input.extend(vec![b'{'; 1 << 20]);
        let mut filter = ManagedFieldsFilter::default();
        filter.push(&input, &mut Vec::new());
        assert!(filter.stack.len() <= 1 && filter.held.is_empty());
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            prop::sample::select(vec!["x", "\"", "\\", "{", "]", "managedFields", "é,:"]).prop_map(Value::from),
        ];
        let key = prop::sample::select(vec![
            "metadata",
            "items",
            "rows",
            "object",
            "managedFields",
            "name",
            "a\"b",
            "managedFieldsTwo",
        ]);
        leaf.prop_recursive(6, 64, 5, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::hash_map(key.clone().prop_map(str::to_owned), inner, 0..5)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000))]

        #[test]
        fn it_agrees_with_a_tree_of_values_however_the_bytes_are_cut(value in value(), cut in 1_usize..9, pretty: bool) {
            let bytes = if pretty { serde_json::to_vec_pretty(&value) } else { serde_json::to_vec(&value) }.unwrap();
            let chunks: Vec<&[u8]> = bytes.chunks(cut).collect();
            let out: Value = serde_json::from_slice(&filtered(&chunks)).unwrap();
            prop_assert_eq!(out, reference(value));
        }

        #[test]
        fn any_bytes_pass_without_panic(bytes in prop::collection::vec(prop::sample::select(b"{}[]\",:\\ametadata".to_vec()), 0..200)) {
            filtered(&[&bytes]);
        }
    }
}
