//! Label selectors: `a=b`, `a==b`, `a!=b`, `a in (b,c)`, `a notin (b)`, `a`, `!a`, `a>1`, `a<1`, separated by commas.

use super::SelectorError;
use crate::object::Labels;
use crate::request::path::is_subdomain;

/// What separates words; other white space belongs to them, and makes them invalid.
const SPACES: [char; 4] = [' ', '\t', '\r', '\n'];

/// A parsed label selector: all requirements must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct LabelSelector {
    requirements: Vec<Requirement>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Requirement {
    key: Box<str>,
    operator: Operator,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Operator {
    Exists,
    Missing,
    In(Vec<Box<str>>),
    /// Also holds for objects without the key.
    NotIn(Vec<Box<str>>),
    GreaterThan(i64),
    LessThan(i64),
}

impl LabelSelector {
    /// Parses a selector; an empty text selects everything.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut parser = Parser { rest: text.trim_start_matches(SPACES) };
        let mut requirements = Vec::new();
        let error = |reason: String| SelectorError { selector: text.to_owned(), reason };
        while !parser.rest.is_empty() {
            requirements.push(parser.requirement().map_err(error)?);
            if parser.rest.is_empty() {
                break;
            }
            if !parser.take(",") {
                return Err(error(format!("expected `,` before `{}`", parser.rest)));
            }
            if parser.rest.is_empty() {
                return Err(error("it ends with `,`".to_owned()));
            }
        }
        Ok(Self { requirements })
    }

    /// Whether it selects everything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    /// Whether it selects an object with these labels.
    #[must_use]
    pub fn matches(&self, labels: &Labels) -> bool {
        self.requirements.iter().all(|requirement| requirement.matches(labels))
    }
}

impl Requirement {
    fn matches(&self, labels: &Labels) -> bool {
        let value = labels.get(&self.key);
        let number = || value.and_then(|value| value.parse::<i64>().ok());
        match &self.operator {
            Operator::Exists => value.is_some(),
            Operator::Missing => value.is_none(),
            Operator::In(values) => value.is_some_and(|value| values.contains(value)),
            Operator::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
            Operator::GreaterThan(bound) => number().is_some_and(|number| number > *bound),
            Operator::LessThan(bound) => number().is_some_and(|number| number < *bound),
        }
    }
}

struct Parser<'a> {
    rest: &'a str,
}

impl<'a> Parser<'a> {
    fn requirement(&mut self) -> Result<Requirement, String> {
        if self.take("!") {
            return Ok(Requirement { key: self.key()?, operator: Operator::Missing });
        }
        let key = self.key()?;
        let operator = if self.take("!=") {
            Operator::NotIn(vec![self.value()?])
        } else if self.take("==") || self.take("=") {
            Operator::In(vec![self.value()?])
        } else if self.take(">") {
            Operator::GreaterThan(self.number()?)
        } else if self.take("<") {
            Operator::LessThan(self.number()?)
        } else {
            match self.word() {
                "" => Operator::Exists,
                "in" => Operator::In(self.values()?),
                "notin" => Operator::NotIn(self.values()?),
                other => return Err(format!("`{other}` is not an operator; use `=`, `!=`, `in`, `notin`, `>` or `<`")),
            }
        };
        Ok(Requirement { key, operator })
    }

    fn values(&mut self) -> Result<Vec<Box<str>>, String> {
        if !self.take("(") {
            return Err("expected `(` after `in` or `notin`".to_owned());
        }
        if self.take(")") {
            return Err("`in` and `notin` need at least one value".to_owned());
        }
        let mut values = vec![self.value()?];
        while self.take(",") {
            values.push(self.value()?);
        }
        if self.take(")") { Ok(values) } else { Err("expected `)` after the values".to_owned()) }
    }

    fn key(&mut self) -> Result<Box<str>, String> {
        let key = self.word();
        if is_label_key(key) { Ok(key.into()) } else { Err(format!("`{key}` is not a label key")) }
    }

    fn value(&mut self) -> Result<Box<str>, String> {
        let value = self.word();
        if is_label_text(value) { Ok(value.into()) } else { Err(format!("`{value}` is not a label value")) }
    }

    fn number(&mut self) -> Result<i64, String> {
        let word = self.word();
        // A number is a label value first, so it has no sign.
        word.parse().ok().filter(|_| is_label_text(word)).ok_or_else(|| format!("`{word}` is not a whole number"))
    }

    /// The next word, which may be empty.
    fn word(&mut self) -> &'a str {
        let end = self.rest.find([',', '(', ')', '=', '!', '<', '>', ' ', '\t', '\r', '\n']).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest.trim_start_matches(SPACES);
        word
    }

    fn take(&mut self, token: &str) -> bool {
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest.trim_start_matches(SPACES);
                true
            }
            None => false,
        }
    }
}

/// What the key of a label or annotation may be: a name, or a DNS subdomain, `/` and a name.
pub(crate) fn is_label_key(key: &str) -> bool {
    let (prefix, name) = key.split_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
    prefix.is_none_or(is_subdomain) && !name.is_empty() && is_label_text(name)
}

/// What a label's name or value may be: up to 63 letters, digits, `-`, `_`, `.`, with a letter or digit at both ends.
fn is_label_text(text: &str) -> bool {
    let edge = |byte: Option<&u8>| byte.is_none_or(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    bytes.len() <= 63
        && edge(bytes.first())
        && edge(bytes.last())
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}
