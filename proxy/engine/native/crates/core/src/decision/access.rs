//! Access tables: which rules of one caller's policy a path meets. What it tells apart is kept equal to
//! `policies/rules/matcher.py`, which says why there are two readings, by `tests/vectors/access.json` and a differential test.

use std::collections::{HashMap, HashSet};

use crate::decision::path_readings::readings;

const LITERAL: u32 = 1 << 20;
const ONE_SEGMENT: u32 = 1;
const MAX_CLASSES: usize = 8;

/// A pattern of the table, once for each reading, in lower case already where case is folded. `verbs`: `*` stands for all.
#[derive(Debug, Clone)]
pub struct Rule {
    pub ordered: String,
    pub open: String,
    pub verbs: HashSet<String>,
}

/// A rule that fits a path in the open reading; see `Candidate` in `policies/rules/matcher.py`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Candidate {
    pub rule: u32,
    pub is_parent: bool,
}

/// Text with `*` inside one segment.
#[derive(Debug)]
struct Glob {
    prefix: String,
    middle: Vec<String>,
    suffix: String,
}

impl Glob {
    fn new(segment: &str) -> Self {
        let mut pieces = segment.split('*');
        let prefix = pieces.next().unwrap_or_default().to_owned();
        let suffix = pieces.next_back().unwrap_or_default().to_owned();
        Self { prefix, middle: pieces.filter(|piece| !piece.is_empty()).map(str::to_owned).collect(), suffix }
    }

    fn fits(&self, segment: &str) -> bool {
        let Some(mut rest) = segment.strip_prefix(self.prefix.as_str()).and_then(|rest| rest.strip_suffix(self.suffix.as_str()))
        else {
            return false;
        };
        for piece in &self.middle {
            let Some(found) = rest.find(piece.as_str()) else { return false };
            rest = &rest[found + piece.len()..];
        }
        true
    }
}

/// The children whose segment holds `*` among other text, by what stands before the first `*`.
#[derive(Debug, Default)]
struct Globs {
    by_prefix: HashMap<String, Vec<(u32, Glob, usize)>>,
    lengths: Vec<usize>,
}

impl Globs {
    fn add(&mut self, order: u32, segment: &str, node: usize) {
        let glob = Glob::new(segment);
        let length = glob.prefix.len();
        self.by_prefix.entry(glob.prefix.clone()).or_default().push((order, glob, node));
        if let Err(place) = self.lengths.binary_search(&length) {
            self.lengths.insert(place, length);
        }
    }

    /// (order, node) of each that fits.
    fn fitting<'a>(&'a self, segment: &'a str) -> impl Iterator<Item = (u32, usize)> + 'a {
        let prefixes = self.lengths.iter().filter_map(|length| segment.get(..*length));
        prefixes
            .filter_map(|prefix| self.by_prefix.get(prefix))
            .flatten()
            .filter(|(_, glob, _)| glob.fits(segment))
            .map(|(order, _, node)| (*order, *node))
    }
}

/// A node of the ordered reading; `order` is the place among siblings.
#[derive(Debug, Default)]
struct Ordered {
    is_star: bool,
    order: u32,
    rule: Option<u32>,
    children: HashMap<String, usize>,
    globs: Globs,
}

/// A node of the open reading; see `_Open` in `policies/rules/matcher.py`.
#[derive(Debug, Default)]
struct Open {
    literals: HashMap<String, usize>,
    by_glob: HashMap<String, usize>,
    globs: Globs,
    one: Option<usize>,
    below: Vec<u32>,
    star: Vec<u32>,
    deep: Vec<u32>,
}

/// The patterns of one caller's policy. Nodes are named by their places; 0 is the root.
#[derive(Debug)]
pub struct AccessTable {
    rules: Vec<Rule>,
    ranks: Vec<Vec<u32>>,
    fold_case: bool,
    ordered: Vec<Ordered>,
    open: Vec<Open>,
}

/// What a path's class stands for.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Its readings can't be judged.
    Unreadable,
    /// The rule that the ordered reading finds, and those that fit in the open one.
    Met(Option<u32>, Vec<Candidate>),
}

impl AccessTable {
    /// A table of patterns that each begin with `/`.
    pub fn new(rules: Vec<Rule>, fold_case: bool) -> Self {
        let (ordered, open) = (vec![Ordered::default()], vec![Open::default()]);
        let mut table = Self { ranks: Vec::with_capacity(rules.len()), fold_case, ordered, open, rules: Vec::new() };
        for (number, rule) in (0..).zip(&rules) {
            table.insert_ordered(&rule.ordered, number);
            let rank = table.insert_open(&rule.open, number);
            table.ranks.push(rank);
        }
        table.rules = rules;
        table
    }

    fn insert_ordered(&mut self, pattern: &str, number: u32) {
        let mut at = 0;
        for segment in pattern.split('/').skip(1) {
            at = if let Some(found) = self.ordered[at].children.get(segment) {
                *found
            } else {
                let (made, order) = (self.ordered.len(), self.ordered[at].children.len() as u32);
                self.ordered[at].children.insert(segment.to_owned(), made);
                if segment.contains('*') && segment != "*" && segment != "**" {
                    self.ordered[at].globs.add(order, segment, made);
                }
                self.ordered.push(Ordered { is_star: segment == "*", order, ..Ordered::default() });
                made
            };
        }
        self.ordered[at].rule.get_or_insert(number);
    }

    /// Returns the rule's rank: a figure per segment, more is more specific.
    fn insert_open(&mut self, pattern: &str, number: u32) -> Vec<u32> {
        let segments: Vec<&str> = pattern.split('/').skip(1).collect();
        let Some((last, before)) = segments.split_last() else { return Vec::new() };
        if before.is_empty() && last.is_empty() {
            self.open[0].below.push(number);
            return Vec::new();
        }
        let mut at = 0;
        for segment in before {
            at = self.open_child(at, segment);
        }
        let mut rank: Vec<u32> = before.iter().map(|segment| segment_rank(segment, false)).collect();
        match *last {
            "**" => {
                self.open[at].deep.push(number);
                return rank;
            }
            "*" => self.open[at].star.push(number),
            last => {
                let child = self.open_child(at, last);
                self.open[child].below.push(number);
            }
        }
        rank.push(segment_rank(last, true));
        rank
    }

    fn open_child(&mut self, at: usize, segment: &str) -> usize {
        let made = self.open.len();
        let node = &mut self.open[at];
        let found = if segment == "**" {
            *node.one.get_or_insert(made)
        } else if segment == "*" || !segment.contains('*') {
            *node.literals.entry(segment.to_owned()).or_insert(made)
        } else if let Some(found) = node.by_glob.get(segment) {
            *found
        } else {
            node.by_glob.insert(segment.to_owned(), made);
            node.globs.add(0, segment, made);
            made
        };
        if found == made {
            self.open.push(Open::default());
        }
        found
    }

    /// The distinct classes of all that apps may read an ambiguous path as; see `PathTable.classes` in `policies/rules/matcher.py`. `None` as
    /// `classify`.
    pub fn classes(&self, path: &str) -> Option<Vec<Class>> {
        let Some(found) = readings(path) else { return Some(vec![Class::Unreadable]) };
        let mut classes = found.iter().map(|one| self.classify(one)).collect::<Option<Vec<_>>>()?;
        classes.sort_unstable();
        classes.dedup();
        Some(if classes.len() > MAX_CLASSES { vec![Class::Unreadable] } else { classes })
    }

    /// The class of one reading; `None` where only the decider can tell (letters beyond ASCII whose case is to be folded: which
    /// those are differs from one edition of Unicode to the next).
    pub fn classify(&self, path: &str) -> Option<Class> {
        if !path.starts_with('/') {
            return Some(Class::Unreadable);
        }
        if !self.fold_case {
            return Some(Class::Met(self.first_fit(path), self.candidates(path)));
        }
        if !path.is_ascii() {
            return None;
        }
        let folded = path.to_ascii_lowercase();
        Some(Class::Met(self.first_fit(&folded), self.candidates(&folded)))
    }

    fn first_fit(&self, path: &str) -> Option<u32> {
        let path = path.trim_end_matches('/');
        let path = if path.is_empty() { "/" } else { path };
        let mut segments = path.split('/').skip(1).peekable();
        let mut at = 0;
        while let Some(segment) = segments.next() {
            let is_last = segments.peek().is_none();
            at = self.ordered_child(at, segment, is_last)?;
            let found = &self.ordered[at];
            if found.rule.is_some() && (is_last || !found.is_star) {
                return found.rule;
            }
            if found.rule.is_none() && is_last {
                return self.ordered[self.ordered_child(at, "*", true)?].rule;
            }
        }
        None
    }

    fn ordered_child(&self, at: usize, segment: &str, is_last: bool) -> Option<usize> {
        let node = &self.ordered[at];
        let exact = node.children.get(segment).copied(); // a `*` in the path is fitted by the same text, wherever it stands
        let star = if is_last { node.children.get("*").copied() } else { None };
        let named = [exact, node.children.get("**").copied(), star].into_iter().flatten();
        named.chain(node.globs.fitting(segment).map(|(_, child)| child)).min_by_key(|child| self.ordered[*child].order)
    }

    fn candidates(&self, path: &str) -> Vec<Candidate> {
        let cut = path.split('/').map(|segment| segment.split(';').next().unwrap_or_default());
        let segments: Vec<&str> = cut.filter(|segment| !segment.is_empty()).collect();
        let mut found = self.fitting(&segments);
        found.sort_unstable();
        if found.len() < 2 {
            return found;
        }
        found.iter().filter(|one| !found.iter().any(|other| self.replaces(*other, **one))).copied().collect()
    }

    fn fitting(&self, segments: &[&str]) -> Vec<Candidate> {
        let (mut found, mut frontier) = (Vec::new(), vec![0]);
        for depth in 0..=segments.len() {
            let left = segments.len() - depth;
            let mut take = |rules: &[u32], is_parent: bool| {
                found.extend(rules.iter().map(|rule| Candidate { rule: *rule, is_parent }));
            };
            let mut deeper = Vec::new();
            for node in &frontier {
                let node: &Open = &self.open[*node];
                // The root's own rules are for the root only, though elsewhere a rule covers all below it.
                if depth > 0 || left == 0 {
                    take(&node.below, false);
                }
                if left <= 1 {
                    take(&node.star, left == 0);
                }
                take(&node.deep, left == 0);
                if let Some(segment) = segments.get(depth) {
                    deeper.extend(node.literals.get(*segment).copied());
                    deeper.extend(node.one);
                    deeper.extend(node.globs.fitting(segment).map(|(_, child)| child));
                }
            }
            if deeper.is_empty() {
                break;
            }
            frontier = deeper;
        }
        found
    }

    fn replaces(&self, one: Candidate, other: Candidate) -> bool {
        let (mine, theirs) = (&self.rules[one.rule as usize].verbs, &self.rules[other.rule as usize].verbs);
        (mine.contains("*") || mine.is_superset(theirs)) && self.is_over(one, other)
    }

    fn is_over(&self, one: Candidate, other: Candidate) -> bool {
        let (left, right) = (self.rank(one), self.rank(other));
        if left.len() < right.len() || left.iter().zip(right).any(|(a, b)| a < b) {
            return false;
        }
        left != right || (other.is_parent && !one.is_parent)
    }

    fn rank(&self, candidate: Candidate) -> &[u32] {
        let rank = &self.ranks[candidate.rule as usize];
        let is_star = candidate.is_parent && !self.rules[candidate.rule as usize].open.ends_with("/**");
        if is_star { &rank[..rank.len().saturating_sub(1)] } else { rank }
    }
}

fn segment_rank(segment: &str, is_last: bool) -> u32 {
    if segment == "**" || (segment == "*" && is_last) {
        return ONE_SEGMENT;
    }
    if segment == "*" || !segment.contains('*') {
        return LITERAL;
    }
    2 + segment.chars().filter(|letter| *letter != '*').count() as u32
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::decision::path_readings::is_ambiguous;
    use crate::vectors;

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Judged {
        why: String,
        patterns: Vec<String>,
        verbs: Option<Vec<HashSet<String>>>,
        #[serde(default)]
        fold_case: bool,
        path: String,
        classes: Vec<Wanted>,
        #[serde(default)]
        asks_python: bool,
    }

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Wanted {
        Unreadable(String),
        Met(Option<u32>, Vec<(u32, bool)>),
    }

    impl Wanted {
        fn class(self) -> Class {
            match self {
                Self::Unreadable(name) if name == "unreadable" => Class::Unreadable,
                Self::Unreadable(name) => panic!("{name}"),
                Self::Met(walked, met) => {
                    Class::Met(walked, met.into_iter().map(|(rule, is_parent)| Candidate { rule, is_parent }).collect())
                }
            }
        }
    }

    impl Judged {
        fn table(&self) -> AccessTable {
            let all = || HashSet::from(["*".to_owned()]);
            let rule = |(number, pattern): (usize, &String)| {
                let text = if self.fold_case { pattern.to_ascii_lowercase() } else { pattern.clone() };
                let verbs = self.verbs.as_ref().map_or_else(all, |verbs| verbs[number].clone());
                Rule { ordered: text.clone(), open: text, verbs }
            };
            AccessTable::new(self.patterns.iter().enumerate().map(rule).collect(), self.fold_case)
        }
    }

    #[test]
    fn a_path_has_the_classes_of_all_its_readings() {
        for case in vectors::read::<Judged>("access", "classes") {
            let table = case.table();
            let found = if is_ambiguous(case.path.as_bytes()) {
                table.classes(&case.path)
            } else {
                table.classify(&case.path).map(|class| vec![class])
            };
            let mut wanted: Vec<_> = case.classes.into_iter().map(Wanted::class).collect();
            wanted.sort_unstable();
            assert_eq!(found, if case.asks_python { None } else { Some(wanted) }, "{}", case.why);
        }
    }

    #[test]
    fn a_path_of_too_many_classes_is_unreadable() {
        let path = "/a/../b//c%2Fd%5C..%5Ce";
        let of = |patterns: &[String]| {
            let rule = |text: &String| Rule { ordered: text.clone(), open: text.clone(), verbs: HashSet::from(["*".to_owned()]) };
            AccessTable::new(patterns.iter().map(rule).collect(), false).classes(path).unwrap()
        };
        let patterns = readings(path).unwrap();
        assert!(patterns.len() > MAX_CLASSES);
        assert_eq!(of(&patterns), [Class::Unreadable]);
        assert_eq!(of(&patterns[..MAX_CLASSES - 1]).len(), MAX_CLASSES);
    }
}
