//! Path templates of access policies: which of them a path meets. Kept equal to `policies/rules/templates.py`, which says what they mean, by
//! `tests/vectors/templates.json`.

use std::collections::HashMap;

use crate::decision::path_readings::{is_ambiguous, readings};

const MAX_CLASSES: usize = 8;

/// A node; children are named by their places. `ends`: templates that end here; `rest`: those that go on with anything.
#[derive(Debug, Default)]
struct Node {
    literals: HashMap<String, usize>,
    beginnings: HashMap<String, usize>,
    one: Option<usize>,
    ends: Vec<u32>,
    rest: Vec<u32>,
}

/// The templates of all policies that are in force together, by number.
#[derive(Debug)]
pub struct TemplateTable {
    nodes: Vec<Node>,
}

const EXACT: usize = 0;
const FOLDED: usize = 1;

impl TemplateTable {
    /// Of each template its text, or in lower case where letters are compared so; the other one is empty.
    pub fn new<'a>(templates: impl Iterator<Item = (&'a str, &'a str)>) -> Self {
        let mut table = Self { nodes: vec![Node::default(), Node::default()] };
        for (number, (exact, folded)) in (0..).zip(templates) {
            let (mut at, text) = if exact.is_empty() { (FOLDED, folded) } else { (EXACT, exact) };
            let (text, is_open) = text.strip_suffix("/{**}").map_or((text, false), |text| (text, true));
            for segment in text.split('/').filter(|segment| !segment.is_empty()) {
                at = table.child(at, segment);
            }
            let node = &mut table.nodes[at];
            if is_open { node.rest.push(number) } else { node.ends.push(number) }
        }
        table
    }

    fn child(&mut self, at: usize, segment: &str) -> usize {
        let made = self.nodes.len();
        let node = &mut self.nodes[at];
        let found = if segment == "{*}" {
            *node.one.get_or_insert(made)
        } else if let Some(beginning) = segment.strip_suffix('*') {
            *node.beginnings.entry(beginning.to_owned()).or_insert(made)
        } else {
            *node.literals.entry(segment.to_owned()).or_insert(made)
        };
        if found == made {
            self.nodes.push(Node::default());
        }
        found
    }

    /// What each distinct reading of a path meets, ascending; `None` where they can't be judged, or differ too much.
    pub fn classes(&self, path: &str) -> Option<Vec<Vec<u32>>> {
        if !is_ambiguous(path.as_bytes()) {
            return Some(vec![self.met(path)]);
        }
        let mut classes: Vec<_> = readings(path)?.iter().map(|one| self.met(one)).collect();
        classes.sort_unstable();
        classes.dedup();
        (classes.len() <= MAX_CLASSES).then_some(classes)
    }

    fn met(&self, path: &str) -> Vec<u32> {
        let cut = path.split('/').map(|segment| segment.split(';').next().unwrap_or_default());
        let segments: Vec<&str> = cut.filter(|segment| !segment.is_empty()).collect();
        let mut found = Vec::new();
        self.walk(EXACT, segments.iter().copied(), &mut found);
        let folded: Vec<String> = segments.iter().map(|segment| segment.to_ascii_lowercase()).collect();
        self.walk(FOLDED, folded.iter().map(String::as_str), &mut found);
        found.sort_unstable();
        found.dedup();
        found
    }

    fn walk<'a>(&self, root: usize, segments: impl Iterator<Item = &'a str>, found: &mut Vec<u32>) {
        let mut frontier = vec![root];
        for segment in segments {
            let mut deeper = Vec::new();
            for at in frontier {
                let node = &self.nodes[at];
                found.extend(&node.rest);
                deeper.extend(node.literals.get(segment));
                deeper.extend(node.one);
                if !node.beginnings.is_empty() {
                    let ends = segment.char_indices().map(|(at, _)| at).chain([segment.len()]);
                    deeper.extend(ends.filter_map(|end| node.beginnings.get(&segment[..end])));
                }
            }
            frontier = deeper;
        }
        for at in frontier {
            found.extend(&self.nodes[at].rest);
            found.extend(&self.nodes[at].ends);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::vectors;

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Judged {
        why: String,
        path: String,
        met: Option<Vec<Vec<u32>>>,
        #[serde(default)]
        exact: Vec<String>,
        #[serde(default)]
        folded: Vec<String>,
    }

    #[test]
    fn a_path_meets_the_templates_of_all_its_readings() {
        for case in vectors::read::<Judged>("templates", "classes") {
            let folded: Vec<String> = case.folded.iter().map(|text| text.to_ascii_lowercase()).collect();
            let texts = case.exact.iter().map(|text| (text.as_str(), ""));
            let table = TemplateTable::new(texts.chain(folded.iter().map(|text| ("", text.as_str()))));
            let wanted = case.met.map(|mut met| {
                met.sort_unstable();
                met
            });
            assert_eq!(table.classes(&case.path), wanted, "{}", case.why);
        }
    }

    #[test]
    fn a_path_of_too_many_classes_can_not_be_judged() {
        let path = "/a/../b//c%2Fd%5C..%5Ce";
        let found = readings(path).unwrap();
        assert!(found.len() > MAX_CLASSES);
        assert_eq!(TemplateTable::new(found.iter().map(|one| (one.as_str(), ""))).classes(path), None);
    }
}
