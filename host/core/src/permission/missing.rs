//! What a guest asks for and was not granted.

use std::collections::{BTreeMap, BTreeSet};

use super::{ANY, Rule};
use crate::request::Verb;

/// Combinations of one asked rule that are compared one by one; a larger rule is reported as a whole. 4,096: a rule of
/// eight verbs on sixteen resources in thirty namespaces.
const MAX_CELLS: usize = 4_096;

/// One combination of an asked rule. None stands for "every".
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Cell {
    group: String,
    resource: String,
    verb: String,
    namespace: Option<String>,
    name: Option<String>,
}

/// The part of `asked` that `granted` does not cover, as few rules as can be read easily. Empty: all is granted.
pub fn missing(asked: &[Rule], granted: &[Rule]) -> Vec<Rule> {
    let mut whole = Vec::new();
    let mut cells = BTreeSet::new();
    for rule in asked {
        match split(rule) {
            Some(all) => cells.extend(all.into_iter().filter(|cell| !granted.iter().any(|g| covers(g, cell)))),
            None if granted.contains(rule) => {}
            None => whole.push(rule.clone()),
        }
    }
    whole.extend(join(cells));
    whole
}

fn split(rule: &Rule) -> Option<Vec<Cell>> {
    let verbs: Vec<&str> = if rule.verbs.iter().any(|v| v == ANY) {
        Verb::ALL.iter().map(|verb| verb.as_str()).collect()
    } else {
        rule.verbs.iter().map(String::as_str).collect()
    };
    let every = |values: &[String]| -> Vec<Option<String>> {
        if values.is_empty() { vec![None] } else { values.iter().cloned().map(Some).collect() }
    };
    let (namespaces, names) = (every(&rule.namespaces), every(&rule.resource_names));
    let count = [rule.api_groups.len(), rule.resources.len(), verbs.len(), namespaces.len(), names.len()]
        .iter()
        .try_fold(1_usize, |product, length| product.checked_mul(*length))?;
    if count > MAX_CELLS {
        return None;
    }
    let mut cells = Vec::with_capacity(count);
    for group in &rule.api_groups {
        for resource in &rule.resources {
            for verb in &verbs {
                for namespace in &namespaces {
                    for name in &names {
                        cells.push(Cell {
                            group: group.clone(),
                            resource: resource.clone(),
                            verb: (*verb).to_owned(),
                            namespace: namespace.clone(),
                            name: name.clone(),
                        });
                    }
                }
            }
        }
    }
    Some(cells)
}

fn covers(granted: &Rule, cell: &Cell) -> bool {
    let has = |values: &[String], value: &str| values.iter().any(|v| v == value);
    let any = |values: &[String]| has(values, ANY);
    let within = |values: &[String], value: &Option<String>| {
        values.is_empty() || value.as_ref().is_some_and(|value| has(values, value))
    };
    let resource = has(&granted.resources, &cell.resource) || any(&granted.resources) && !cell.resource.contains('/');
    resource
        && (any(&granted.api_groups) || has(&granted.api_groups, &cell.group))
        && (any(&granted.verbs) || has(&granted.verbs, &cell.verb))
        && within(&granted.namespaces, &cell.namespace)
        && within(&granted.resource_names, &cell.name)
}

/// Each field of a rule as a set; None in namespaces and names stays alone, as "every" is not one of a list.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Block {
    verbs: BTreeSet<String>,
    names: BTreeSet<Option<String>>,
    namespaces: BTreeSet<Option<String>>,
    resources: BTreeSet<String>,
    groups: BTreeSet<String>,
}

fn join(cells: BTreeSet<Cell>) -> Vec<Rule> {
    let mut blocks: Vec<Block> = cells
        .into_iter()
        .map(|cell| Block {
            verbs: [cell.verb].into(),
            names: [cell.name].into(),
            namespaces: [cell.namespace].into(),
            resources: [cell.resource].into(),
            groups: [cell.group].into(),
        })
        .collect();
    // Verbs first, as people read rules: what may be done with a resource.
    merge(&mut blocks, |block| std::mem::take(&mut block.verbs), |block, verbs| block.verbs.extend(verbs));
    merge(&mut blocks, |block| take_listed(&mut block.names), |block, names| block.names.extend(names));
    merge(&mut blocks, |block| take_listed(&mut block.namespaces), |block, all| block.namespaces.extend(all));
    merge(&mut blocks, |block| std::mem::take(&mut block.resources), |block, all| block.resources.extend(all));
    merge(&mut blocks, |block| std::mem::take(&mut block.groups), |block, all| block.groups.extend(all));
    blocks.into_iter().map(into_rule).collect()
}

fn take_listed(values: &mut BTreeSet<Option<String>>) -> BTreeSet<Option<String>> {
    if values.contains(&None) { BTreeSet::new() } else { std::mem::take(values) }
}

/// Joins blocks that differ in one field only. `take` empties that field, so that the rest can serve as a key.
fn merge<T>(blocks: &mut Vec<Block>, take: impl Fn(&mut Block) -> T, put: impl Fn(&mut Block, T)) {
    let mut joined: BTreeMap<Block, Vec<T>> = BTreeMap::new();
    for mut block in blocks.drain(..) {
        let field = take(&mut block);
        joined.entry(block).or_default().push(field);
    }
    blocks.extend(joined.into_iter().map(|(mut block, fields)| {
        fields.into_iter().for_each(|field| put(&mut block, field));
        block
    }));
}

fn into_rule(block: Block) -> Rule {
    let order = |verb: &String| Verb::parse(verb).map_or(usize::MAX, |v| v as usize);
    let mut verbs: Vec<String> = block.verbs.into_iter().collect();
    verbs.sort_by_key(order);
    Rule {
        api_groups: block.groups.into_iter().collect(),
        resources: block.resources.into_iter().collect(),
        verbs,
        resource_names: block.names.into_iter().flatten().collect(),
        namespaces: block.namespaces.into_iter().flatten().collect(),
    }
}
