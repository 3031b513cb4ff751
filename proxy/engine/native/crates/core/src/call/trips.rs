//! The machine that runs a circuit breaker's `trip`; its programs are described in `policies/rules/trip.py`. Kept in step with
//! `proxy/engine/portable/trips.py` by `tests/vectors/breakers.json`.

use std::cmp::Ordering;

/// Of attempts, in the order of `Counts` in `proxy/contract/breakers.py`.
pub type Counters = [i64; 5];

/// `Error`: what can't be computed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    Int(i64),
    Double(f64),
    Bool(bool),
    Error,
}

use Value::{Bool, Double, Error, Int};

/// An operand as it crosses from Python.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Operand {
    Int(i64),
    Double(f64),
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Push(Value),
    Counter(usize),
    One(fn(Value) -> Value),
    Two(fn(Value, Value) -> Value),
    If,
}

/// Steps of which each finds what it takes on the stack, and the last leaves one value.
#[derive(Clone, Debug)]
pub struct Program(Vec<Step>);

impl Program {
    /// By the names of its steps.
    pub fn parse<'a>(steps: impl IntoIterator<Item = (&'a str, Operand)>) -> Result<Self, String> {
        let mut depth = 0_usize;
        let mut program = Vec::new();
        for (name, operand) in steps {
            let step = step(name, operand).ok_or_else(|| format!("unknown step of a trip: {name} {operand:?}"))?;
            let takes = match step {
                Step::Push(_) | Step::Counter(_) => 0,
                Step::One(_) => 1,
                Step::Two(_) => 2,
                Step::If => 3,
            };
            depth = depth.checked_sub(takes).ok_or_else(|| format!("a trip's {name} finds too little"))? + 1;
            program.push(step);
        }
        if depth == 1 { Ok(Self(program)) } else { Err(format!("a trip leaves {depth} values")) }
    }

    /// Whether it comes to true.
    pub fn is_true(&self, counters: &Counters) -> bool {
        self.run(counters) == Bool(true)
    }

    fn run(&self, counters: &Counters) -> Value {
        let mut stack = Vec::with_capacity(8);
        for step in &self.0 {
            let value = match *step {
                Step::Push(value) => value,
                Step::Counter(place) => Int(counters[place]),
                Step::One(compute) => compute(pop(&mut stack)),
                Step::Two(compute) => {
                    let right = pop(&mut stack);
                    compute(pop(&mut stack), right)
                }
                Step::If => {
                    let (that, this) = (pop(&mut stack), pop(&mut stack));
                    match pop(&mut stack) {
                        Bool(true) => this,
                        Bool(false) => that,
                        _ => Error,
                    }
                }
            };
            stack.push(value);
        }
        pop(&mut stack)
    }
}

fn pop(stack: &mut Vec<Value>) -> Value {
    stack.pop().unwrap_or(Error)
}

fn step(name: &str, operand: Operand) -> Option<Step> {
    Some(match (name, operand) {
        ("counter", Operand::Int(place @ 0..=4)) => Step::Counter(place as usize),
        ("int", Operand::Int(number)) => Step::Push(Int(number)),
        ("double", Operand::Double(number)) => Step::Push(Double(number)),
        ("bool", Operand::Int(number)) => Step::Push(Bool(number != 0)),
        ("to-double", _) => Step::One(to_double),
        ("to-int", _) => Step::One(to_int),
        ("neg", _) => Step::One(neg),
        ("not", _) => Step::One(|value| if let Bool(value) = value { Bool(!value) } else { Error }),
        ("add", _) => Step::Two(|left, right| compute(left, right, i64::checked_add, |left, right| left + right)),
        ("sub", _) => Step::Two(|left, right| compute(left, right, i64::checked_sub, |left, right| left - right)),
        ("mul", _) => Step::Two(|left, right| compute(left, right, i64::checked_mul, |left, right| left * right)),
        ("div", _) => Step::Two(|left, right| compute(left, right, i64::checked_div, |left, right| left / right)),
        ("mod", _) => Step::Two(|left, right| compute(left, right, i64::checked_rem, |_, _| f64::NAN)),
        ("lt", _) => Step::Two(|left, right| ordered(left, right, Ordering::is_lt)),
        ("le", _) => Step::Two(|left, right| ordered(left, right, Ordering::is_le)),
        ("gt", _) => Step::Two(|left, right| ordered(left, right, Ordering::is_gt)),
        ("ge", _) => Step::Two(|left, right| ordered(left, right, Ordering::is_ge)),
        ("eq", _) => Step::Two(|left, right| equal(left, right, true)),
        ("ne", _) => Step::Two(|left, right| equal(left, right, false)),
        ("and", _) => Step::Two(|left, right| logic(left, right, false)),
        ("or", _) => Step::Two(|left, right| logic(left, right, true)),
        ("if", _) => Step::If,
        _ => return None,
    })
}

fn to_double(value: Value) -> Value {
    match value {
        Int(number) => Double(number as f64),
        other => other,
    }
}

fn to_int(value: Value) -> Value {
    const MOST: f64 = 9_223_372_036_854_775_808.0;
    match value {
        Double(number) if (-MOST..MOST).contains(&number) => Int(number as i64),
        Double(_) => Error,
        other => other,
    }
}

fn neg(value: Value) -> Value {
    match value {
        Int(number) => number.checked_neg().map_or(Error, Int),
        Double(number) => Double(-number),
        _ => Error,
    }
}

fn compute(left: Value, right: Value, whole: fn(i64, i64) -> Option<i64>, real: fn(f64, f64) -> f64) -> Value {
    match (left, right) {
        (Int(left), Int(right)) => whole(left, right).map_or(Error, Int),
        (Double(left), Double(right)) => Double(real(left, right)),
        _ => Error,
    }
}

/// What is not a number stands in no order.
fn ordered(left: Value, right: Value, holds: fn(Ordering) -> bool) -> Value {
    let found = match (left, right) {
        (Int(left), Int(right)) => Some(left.cmp(&right)),
        (Double(left), Double(right)) => left.partial_cmp(&right),
        _ => None,
    };
    found.map_or(Error, |found| Bool(holds(found)))
}

fn equal(left: Value, right: Value, wanted: bool) -> Value {
    if left == Error || right == Error { Error } else { Bool((left == right) == wanted) }
}

/// Or, for which true is decisive, and and, for which false is: whatever the other side is, an error too.
fn logic(left: Value, right: Value, decisive: bool) -> Value {
    if left == Bool(decisive) || right == Bool(decisive) {
        return Bool(decisive);
    }
    if left == Error || right == Error { Error } else { Bool(!decisive) }
}

#[cfg(test)]
pub(crate) mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::vectors;

    #[derive(Clone, Copy, Debug, Deserialize)]
    #[serde(untagged)]
    pub enum Number {
        Int(i64),
        Double(f64),
    }

    pub fn program(steps: &[(String, Number)]) -> Program {
        let operand = |number| match number {
            Number::Int(number) => Operand::Int(number),
            Number::Double(number) => Operand::Double(number),
        };
        Program::parse(steps.iter().map(|(name, number)| (&**name, operand(*number)))).unwrap()
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Case {
        why: String,
        #[serde(rename = "trip")]
        _trip: String,
        program: Vec<(String, Number)>,
        counters: Counters,
        is_true: bool,
    }

    #[test]
    fn programs_come_to_what_their_expressions_mean() {
        for case in vectors::read::<Case>("breakers", "trips") {
            assert_eq!(program(&case.program).is_true(&case.counters), case.is_true, "{}", case.why);
        }
    }

    #[test]
    fn programs_that_would_not_run_are_refused() {
        for steps in [&[][..], &["int"], &["counter", "counter"], &["counter", "gt"], &["jump"], &["counter", "counter", "if"]] {
            assert!(Program::parse(steps.iter().map(|name| (*name, Operand::Double(7.0)))).is_err(), "{steps:?}");
        }
    }
}
