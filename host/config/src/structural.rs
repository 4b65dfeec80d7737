//! The schema of a guest in the form that a CustomResourceDefinition wants: structural, so with one type for each field, with
//! neither references nor alternatives of different types.
//! <https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#specifying-a-structural-schema>

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use crate::spec::GuestSpec;

/// The JSON schema of [`GuestSpec`] as the schema of a field of a CustomResourceDefinition; `structural-schema.json` of this
/// crate is a copy. It takes what [`GuestSpec`] takes, except that unknown fields are the API server's to drop or, under
/// strict validation, to refuse.
#[must_use]
pub fn structural_schema() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    });
    let mut schema = settings.into_generator().into_root_schema_for::<GuestSpec>().to_value();
    rewrite(&mut schema);
    schema
}

fn rewrite(schema: &mut Value) {
    let Some(fields) = schema.as_object_mut() else { return };
    fields.remove("title");
    // Unknown fields are dropped in any case, and Kubernetes forbids to say so beside `properties`.
    if fields.get("additionalProperties") == Some(&Value::Bool(false)) {
        fields.remove("additionalProperties");
    }
    // Kubernetes knows no formats of unsigned numbers; `minimum` says the same.
    if fields.get("format").and_then(Value::as_str).is_some_and(|format| format.starts_with("uint")) {
        fields.remove("format");
    }
    if let Some(alternatives) = fields.remove("oneOf").or_else(|| fields.remove("anyOf")) {
        merge(fields, alternatives);
    }
    if let Some(Value::Array(types)) = fields.get_mut("type") {
        types.retain(|name| name != "null");
        let only = types.pop().unwrap_or_default();
        fields.insert("type".to_owned(), only);
        fields.insert("nullable".to_owned(), Value::Bool(true));
    }
    if let Some(Value::Object(properties)) = fields.get_mut("properties") {
        properties.values_mut().for_each(rewrite);
    }
    if let Some(items) = fields.get_mut("items") {
        rewrite(items);
    }
}

/// Writes alternatives as one schema: words, something or null, or a list or a text.
fn merge(fields: &mut Map<String, Value>, alternatives: Value) {
    let Value::Array(mut alternatives) = alternatives else { return };
    let all = alternatives.len();
    alternatives.retain(|one| one.get("type").is_none_or(|name| name != "null"));
    if alternatives.len() < all {
        fields.insert("nullable".to_owned(), Value::Bool(true));
    }
    let words: Vec<Value> = alternatives.iter().filter_map(|one| one.get("const").cloned()).collect();
    if !words.is_empty() {
        fields.insert("type".to_owned(), json!("string"));
        fields.insert("enum".to_owned(), Value::Array(words));
        return;
    }
    if alternatives.len() > 1 {
        let untyped = close_untyped();
        fields.extend(untyped);
    }
    for alternative in alternatives {
        let Value::Object(mut alternative) = alternative else { continue };
        if fields.contains_key(PRESERVE) {
            alternative.remove("type");
        }
        for (name, value) in alternative {
            fields.entry(name).or_insert(value);
        }
    }
}

const PRESERVE: &str = "x-kubernetes-preserve-unknown-fields";

/// A list or a text has no type of its own in a structural schema, and what has no type may be anything. `items` judges lists
/// only and `pattern` texts only; so here are bounds that no number, no object and no truth value can keep, and that
/// judge nothing else.
fn close_untyped() -> Map<String, Value> {
    let closed = json!({
        PRESERVE: true,
        "minimum": 1, "maximum": 0,
        "minProperties": 1, "maxProperties": 0,
        "not": { "enum": [true, false] },
    });
    match closed {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every schema in a schema, with its path.
    fn walk(path: &str, schema: &Value, visit: &mut dyn FnMut(&str, &Map<String, Value>)) {
        let fields = schema.as_object().unwrap();
        visit(path, fields);
        for (name, property) in fields.get("properties").and_then(Value::as_object).into_iter().flatten() {
            walk(&format!("{path}.{name}"), property, visit);
        }
        if let Some(items) = fields.get("items") {
            walk(&format!("{path}[]"), items, visit);
        }
    }

    #[test]
    fn it_has_only_what_a_structural_schema_may_have() {
        let may =
            "type nullable description default enum format items maxItems maxLength maximum maxProperties minItems \
                   minLength minimum minProperties not pattern properties required"
                .split_whitespace()
                .chain([PRESERVE])
                .collect::<Vec<_>>();
        let mut paths = Vec::new();
        walk("", &structural_schema(), &mut |path, fields| {
            assert!(fields.keys().all(|name| may.contains(&&**name)), "{path}: {fields:?}");
            let typed = fields.get("type").is_some_and(Value::is_string);
            assert_eq!(typed, !fields.contains_key(PRESERVE), "{path}: {fields:?}");
            paths.push(path.to_owned());
        });
        for path in
            [".name", ".permissions", ".permissions[].verbs[]", ".sleep.mode", ".serviceAccount", ".env[].value"]
        {
            assert!(paths.iter().any(|known| known == path), "no {path}");
        }
    }

    #[test]
    fn words_nulls_and_lists_or_texts_keep_their_meaning() {
        let schema = structural_schema();
        let field = |pointer: &str| schema.pointer(pointer).unwrap_or_else(|| panic!("no {pointer}"));
        assert!(field("/properties/sleep/properties/mode/enum").as_array().unwrap().contains(&json!("Never")));
        assert_eq!(field("/properties/serviceAccount/nullable"), &json!(true));
        assert_eq!(field("/properties/serviceAccount/type"), "string");
        assert!(field("/properties/serviceAccount/pattern").is_string());
        assert_eq!(field("/properties/resync/nullable"), &json!(true));
        assert!(field("/properties/permissions/pattern").as_str().unwrap().starts_with("^as-requested"));
        assert_eq!(field("/properties/permissions/items/type"), "object");
        assert_eq!(field("/properties/concurrency/maximum"), &json!(256));
    }
}
