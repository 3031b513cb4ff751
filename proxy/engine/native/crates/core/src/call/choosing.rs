//! Which endpoint of a cluster the next attempt goes to: `proxy/engine/portable/choosing.py`, with the same numbers, kept in step by
//! `tests/vectors/balance.json`. Clock and chance are passed in.

use std::cell::Cell;
use std::time::Instant;

use http::HeaderName;

use crate::call::balance::Load;
use crate::fields::Headers;

const SAME: f64 = 1.9; // costs nearer than this are noise

/// How a cluster's calls are spread; see `Balancing` in `proxy/contract/balancing.py`.
#[derive(Clone, Debug, Default)]
pub enum Balancing {
    #[default]
    Latency,
    LeastRequests,
    RoundRobin,
    Random,
    /// By the value of a header, or alike for all calls.
    HashOf(HeaderName),
    Hash(u64),
}

impl Balancing {
    /// By which order the endpoint of a call with these headers is chosen.
    pub fn order<'a>(&self, headers: &Headers, rotation: &'a Cell<f64>) -> Order<'a> {
        match self {
            Self::Latency => Order::Latency,
            Self::LeastRequests => Order::LeastRequests,
            Self::RoundRobin => Order::RoundRobin(rotation),
            Self::Random => Order::Random,
            Self::Hash(key) => Order::Hash(*key),
            Self::HashOf(name) => headers.get(name).map_or(Order::Latency, |value| Order::Hash(hash_of(value.as_bytes()))),
        }
    }
}

/// How one of two or more endpoints of the same standing is taken. Round-robin: the turn of the endpoint taken last.
#[derive(Clone, Copy, Debug)]
pub enum Order<'a> {
    Latency,
    LeastRequests,
    RoundRobin(&'a Cell<f64>),
    Random,
    Hash(u64),
}

/// An endpoint to choose from. mark: its address as a number.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    pub load: &'a Load,
    pub mark: u64,
    pub is_tried: bool,
}

/// The place of the endpoint for the next attempt: untried before tried, then by tier; when all are ejected, any. `chance`: in [0, 1).
/// Where more than half are left out for their answers, none is.
pub fn choose(all: &[Candidate<'_>], now: Instant, mut chance: impl FnMut() -> f64, order: Order<'_>) -> Option<usize> {
    if let [_] = all {
        return Some(0);
    }
    let out = all.iter().filter(|one| one.load.standing(now).is_out(now)).count();
    let heeds_answers = 2 * out <= all.len();
    let is_all_tried = all.iter().all(|one| one.is_tried);
    let untried: Vec<usize> = (0..all.len()).filter(|&at| is_all_tried || !all[at].is_tried).collect();
    let tiers: Vec<u8> = untried.iter().map(|&at| all[at].load.tier(now, heeds_answers)).collect();
    let best = tiers.iter().min().copied().unwrap_or_default();
    let pool: Vec<usize> = untried.iter().zip(&tiers).filter(|(_, tier)| **tier == best).map(|(&at, _)| at).collect();
    if pool.len() <= 1 {
        return pool.first().copied();
    }
    match order {
        Order::Latency => Some(by_latency(all, &pool, now, &mut chance)),
        Order::LeastRequests => by_requests(all, &pool, now, &mut chance),
        Order::RoundRobin(turn) => in_turn(all, &pool, now, turn),
        Order::Random => by_chance(all, &pool, now, &mut chance),
        Order::Hash(key) => by_hash(all, &pool, now, key),
    }
}

/// The power of two choices. `chance`: twice to pick two of more, and once between two that cost about the same.
fn by_latency(all: &[Candidate<'_>], pool: &[usize], now: Instant, chance: &mut impl FnMut() -> f64) -> usize {
    let [first, second] = if let [first, second] = *pool {
        [first, second]
    } else {
        let mut below = |count: usize| (chance() * count as f64) as usize;
        let one = below(pool.len());
        let other = (one + 1 + below(pool.len() - 1)) % pool.len();
        [pool[one], pool[other]]
    };
    let (a, b) = (all[first].load, all[second].load);
    let (one, other) = (a.cost(b, now), b.cost(a, now));
    if one.max(other) < SAME * one.min(other) {
        return if chance() < 0.5 { first } else { second };
    }
    if one < other { first } else { second }
}

/// The one with the fewest calls for its weight; chance, once, between those that have as few.
fn by_requests(all: &[Candidate<'_>], pool: &[usize], now: Instant, chance: &mut impl FnMut() -> f64) -> Option<usize> {
    let cost = |at: usize| f64::from(all[at].load.in_flight + 1) / all[at].load.worth(now);
    let least = pool.iter().map(|&at| cost(at)).fold(f64::INFINITY, f64::min);
    let idle: Vec<usize> = pool.iter().copied().filter(|&at| cost(at) <= least).collect();
    match idle[..] {
        [only] => Some(only),
        _ => idle.get((chance() * idle.len() as f64) as usize).copied(),
    }
}

/// Whose turn it is, of more weight more often. Endpoints that were left out for a while do not catch up.
fn in_turn(all: &[Candidate<'_>], pool: &[usize], now: Instant, turn: &Cell<f64>) -> Option<usize> {
    let due = |at: usize| all[at].load.turn.get().max(turn.get());
    let chosen = pool.iter().copied().min_by(|&one, &other| due(one).total_cmp(&due(other)))?;
    turn.set(due(chosen));
    let load = all[chosen].load;
    load.turn.set(turn.get() + 1.0 / load.worth(now));
    Some(chosen)
}

/// Any, of more weight more often.
fn by_chance(all: &[Candidate<'_>], pool: &[usize], now: Instant, chance: &mut impl FnMut() -> f64) -> Option<usize> {
    let weight = |at: usize| all[at].load.worth(now);
    let mut left = chance() * pool.iter().map(|&at| weight(at)).sum::<f64>();
    let mut is_passed = |at: usize| {
        left -= weight(at);
        left < 0.0
    };
    pool.iter().copied().find(|&at| is_passed(at)).or(pool.last().copied())
}

/// The same for the same key. The highest random weight wins: as on a ring, keys of an endpoint that goes move, and no others.
fn by_hash(all: &[Candidate<'_>], pool: &[usize], now: Instant, key: u64) -> Option<usize> {
    let score = |at: usize| all[at].load.worth(now) / -fraction(mixed(key ^ all[at].mark)).ln();
    // Of equals the first, as in Python.
    pool.iter().copied().rev().max_by(|&one, &other| score(one).total_cmp(&score(other)))
}

/// 64 bits, the same in both engines: FNV-1a, mixed so that similar texts share nothing.
pub fn hash_of(data: &[u8]) -> u64 {
    mixed(data.iter().fold(0xcbf2_9ce4_8422_2325, |made: u64, &byte| (made ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)))
}

/// `SplitMix64`'s last steps.
fn mixed(word: u64) -> u64 {
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// In (0, 1).
fn fraction(word: u64) -> f64 {
    ((word >> 11) as f64 + 0.5) / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use http::HeaderValue;
    use serde::Deserialize;

    use super::*;
    use crate::call::balance::Health;
    use crate::call::cause::Cause;
    use crate::vectors;

    const KEY: HeaderName = HeaderName::from_static("key");

    fn one() -> u32 {
        1
    }

    fn yes() -> bool {
        true
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Endpoint {
        #[serde(default = "one")]
        weight: u32,
        #[serde(default)]
        rank: u8,
        #[serde(default = "yes")]
        proven: bool,
    }

    /// What happens to the endpoint `to` at a moment, or is asked: `choose` one, or what is to `see` of it.
    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Step {
        at: f64,
        r#do: String,
        #[serde(default)]
        to: usize,
        #[serde(default)]
        took_s: f64,
        #[serde(default = "one")]
        times: u32,
        #[serde(default)]
        tried: Vec<usize>,
        #[serde(default)]
        chance: Vec<f64>,
        key: Option<String>,
        chosen: Option<usize>,
        ejected_s: Option<f64>,
        rtt_s: Option<f64>,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Choices {
        why: String,
        #[serde(default = "latency")]
        by: String,
        endpoints: Vec<Endpoint>,
        steps: Vec<Step>,
    }

    fn change(load: &mut Load, step: &Step, now: Instant) {
        match &*step.r#do {
            "observe" => load.observe(Duration::from_secs_f64(step.took_s), now),
            "yield_way" => load.yield_way(),
            "avoid" => load.health.avoid(now),
            "eject" => load.eject(now),
            "put_away" => load.lose(Cause::TlsIdentity, true, now),
            "restore" => load.health.restore(),
            "prove" => load.health.prove(),
            "leave_out" => load.health.answers.pretend(Some(now + Duration::from_secs(30)), None),
            "come_back" => load.health.answers.pretend(None, Some(now)),
            "begin" => load.in_flight += 1,
            "end" => load.in_flight -= 1,
            other => panic!("{other}"),
        }
    }

    fn latency() -> String {
        "latency".to_owned()
    }

    fn balancing(by: &str) -> Balancing {
        match by {
            "latency" => Balancing::Latency,
            "least-requests" => Balancing::LeastRequests,
            "round-robin" => Balancing::RoundRobin,
            "random" => Balancing::Random,
            "ring-hash" => Balancing::HashOf(KEY),
            other => panic!("{other}"),
        }
    }

    fn take(loads: &mut [Load], step: &Step, now: Instant, by: &Balancing, turn: &Cell<f64>) {
        if step.r#do == "choose" {
            let candidate = |(place, load)| Candidate {
                load,
                mark: hash_of(format!("{place}").as_bytes()),
                is_tried: step.tried.contains(&place),
            };
            let all: Vec<_> = loads.iter().enumerate().map(candidate).collect();
            let mut chances = step.chance.iter().copied();
            let mut headers = Headers::new();
            if let Some(key) = &step.key {
                headers.append(KEY, HeaderValue::from_str(key).unwrap());
            }
            let order = by.order(&headers, turn);
            assert_eq!(choose(&all, now, || chances.next().unwrap(), order), step.chosen, "{step:?}");
            assert_eq!(chances.next(), None, "{step:?}");
        } else if step.r#do == "see" {
            let is_near = |found: f64, wanted: Option<f64>| wanted.is_none_or(|wanted| (found - wanted).abs() <= 1e-5 * wanted);
            assert!(is_near(loads[step.to].ejected_for(now).as_secs_f64(), step.ejected_s), "{step:?}");
            assert!(is_near(loads[step.to].rtt_s, step.rtt_s), "{step:?}: {}", loads[step.to].rtt_s);
        } else {
            (0..step.times).for_each(|_| change(&mut loads[step.to], step, now));
        }
    }

    #[test]
    fn endpoints_are_chosen_by_what_happened_to_them() {
        let begin = Instant::now();
        for case in vectors::read::<Choices>("balance", "choices") {
            println!("{}", case.why);
            let load = |end: &Endpoint| Load::new(end.weight, end.rank, Arc::new(Health::new(end.proven)));
            let mut loads: Vec<_> = case.endpoints.iter().map(load).collect();
            let (by, turn) = (balancing(&case.by), Cell::new(0.0));
            case.steps.iter().for_each(|step| take(&mut loads, step, begin + Duration::from_secs_f64(step.at), &by, &turn));
        }
    }
}
