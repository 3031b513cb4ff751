//! How many an adaptive gate lets in: a limit that follows how long those inside take. Equal to `proxy/engine/portable/gradient.py`, by
//! `tests/vectors/gradient.json`.

use std::time::{Duration, Instant};

const MIN_RTT_EVERY: Duration = Duration::from_secs(60); // these as in `proxy/contract/gates.py`
const MIN_RTT_JITTER: f64 = 0.15;
const MIN_RTT_CALLS: usize = 50;
const MIN_RTT_FOR: Duration = Duration::from_secs(5);
const SAMPLE: Duration = Duration::from_millis(100);
const HEADROOM: f64 = 0.25;
const START: usize = 10; // the limit after the first measurement: raised soon, and a callee that has no room for more is not drowned meanwhile
const MOST_SAMPLES: usize = 1_024; // of one turn
const STEEPEST: (f64, f64) = (0.5, 2.0); // change by one turn

/// Owns the limit, the lowest round trip, and what ended since the last turn.
///
/// While it measures the lowest round trip, the least limit alone is let in, and only those count that came in since. A limit that is not
/// used is not raised, as nothing shows that it holds.
#[derive(Debug)]
pub struct Gradient {
    least: usize,
    most: usize,
    limit: f64,
    lowest: Duration,
    is_measuring: bool,
    /// Of the measurement or the turn; `None` before anybody came.
    begun_at: Option<Instant>,
    next_at: Instant,
    samples: Vec<Duration>,
    peak: usize,
}

impl Gradient {
    /// Nothing measured yet.
    pub fn new(least: usize, most: usize, now: Instant) -> Self {
        Self {
            least,
            most,
            limit: START.max(least).min(most) as f64,
            lowest: Duration::ZERO,
            is_measuring: true,
            begun_at: None,
            next_at: now,
            samples: Vec::new(),
            peak: 0,
        }
    }

    /// How many may be inside.
    pub fn limit(&self) -> usize {
        if self.is_measuring { self.least } else { self.limit as usize }
    }

    /// Other bounds.
    pub fn bound(&mut self, least: usize, most: usize) {
        (self.least, self.most) = (least, most);
        self.limit = self.limit.max(least as f64).min(most as f64);
    }

    /// One more is inside, which makes so many.
    pub fn entered(&mut self, now: Instant, inside: usize) {
        self.begun_at.get_or_insert(now);
        self.peak = self.peak.max(inside);
    }

    /// One ended that came in then. `took`: what says how busy the callee is, where anything does.
    pub fn left(&mut self, now: Instant, entered_at: Instant, chance: f64, took: Option<Duration>) {
        let begun_at = self.begun_at.unwrap_or(now);
        let is_early = self.is_measuring && entered_at < begun_at;
        self.samples.extend(took.filter(|_| self.samples.len() < MOST_SAMPLES && !is_early));
        let since = now.saturating_duration_since(begun_at);
        if self.is_measuring {
            if self.samples.len() >= MIN_RTT_CALLS || since >= MIN_RTT_FOR {
                self.measured(now, chance);
            }
        } else if now >= self.next_at {
            self.is_measuring = true;
            self.begin(now);
        } else if since >= SAMPLE {
            self.turn(now);
        }
    }

    fn begin(&mut self, now: Instant) {
        (self.begun_at, self.peak) = (Some(now), 0);
        self.samples.clear();
    }

    fn measured(&mut self, now: Instant, chance: f64) {
        if let Some(lowest) = median(&mut self.samples) {
            self.lowest = lowest;
        }
        self.is_measuring = false;
        self.next_at = now + MIN_RTT_EVERY.mul_f64(1.0 + MIN_RTT_JITTER * (2.0 * chance - 1.0));
        self.begin(now);
    }

    fn turn(&mut self, now: Instant) {
        let lowest = self.lowest.as_secs_f64();
        if let (Some(sample), true) = (median(&mut self.samples), lowest > 0.0) {
            let wanted = lowest * (1.0 + HEADROOM) / sample.as_secs_f64().max(1e-6);
            let found = self.limit * wanted.clamp(STEEPEST.0, STEEPEST.1) + self.limit.sqrt();
            if found < self.limit || 2.0 * self.peak as f64 >= self.limit {
                self.limit = found.max(self.least as f64).min(self.most as f64);
            }
        }
        self.begin(now);
    }
}

fn median(samples: &mut [Duration]) -> Option<Duration> {
    let middle = samples.len() / 2;
    (!samples.is_empty()).then(|| *samples.select_nth_unstable(middle).1)
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::vectors;

    /// So many come in and go, one each `every_s`, each taking `took_s`, `inside` at once. Then the limit is `limit`.
    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Step {
        calls: usize,
        every_s: f64,
        took_s: f64,
        inside: usize,
        #[serde(default = "yes")]
        counts: bool,
        limit: usize,
    }

    fn yes() -> bool {
        true
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Course {
        why: String,
        min_limit: usize,
        max_limit: usize,
        steps: Vec<Step>,
    }

    #[test]
    fn limit_follows_how_long_calls_take() {
        for case in vectors::read::<Course>("gradient", "limit") {
            println!("{}", case.why);
            let begin = Instant::now();
            let mut gradient = Gradient::new(case.min_limit, case.max_limit, begin);
            let mut now_s = 0.0;
            for step in &case.steps {
                for _ in 0..step.calls {
                    let at = |s: f64| begin + Duration::from_secs_f64(s);
                    gradient.entered(at(now_s), step.inside);
                    now_s += step.every_s;
                    let entered_at = at((now_s - step.took_s).max(0.0));
                    gradient.left(at(now_s), entered_at, 0.5, step.counts.then(|| at(now_s) - entered_at));
                }
                assert_eq!(gradient.limit(), step.limit, "{step:?}");
            }
        }
    }
}
