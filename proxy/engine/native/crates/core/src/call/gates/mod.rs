//! Gates: what stands before calls and attempts, over all workers. A kind of gate is a file here; see `proxy/contract/gates.py`.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use http::{HeaderName, HeaderValue};
use tokio::time::{Sleep, sleep};

use crate::call::cause::{CAUSES, Cause};
use crate::call::gates::concurrency::{Bounds, Concurrency};
use crate::call::gates::each::Each;
use crate::call::gates::fault::{Fault, FaultSpec, Harm, Hit};
use crate::call::gates::gradient::Gradient;
use crate::call::gates::lag::Lag;
use crate::call::gates::rate::{Rate, RateSpec};
use crate::call::gates::throttle::Throttle;
use crate::shared::Shared;

pub(crate) mod concurrency;
pub(crate) mod each;
pub(crate) mod fault;
pub(crate) mod gradient;
pub(crate) mod lag;
pub(crate) mod rate;
pub(crate) mod throttle;

/// One gate of some kind. Only what passes a gate meets its lock, held for a few instructions and never while somebody is told.
pub trait Gate: fmt::Debug + Send + Sync {
    /// Ask to be let in. `chance`: in [0, 1). `who`: the peer's proven id, else its address.
    fn enter(self: Arc<Self>, now: Instant, chance: f64, who: &str) -> Entered;

    /// The same of an attempt beside others, which comes in only where there is room: nobody who has none waits for longer.
    fn enter_at_once(self: Arc<Self>, now: Instant, chance: f64, who: &str) -> Entered {
        self.enter(now, chance, who)
    }

    /// Take over a spec of the same kind, by which who waits may come in; false where it is of another.
    fn change(self: Arc<Self>, spec: &GateSpec) -> bool;

    /// It is taken down: who waits comes in. What is inside leaves it as before.
    fn open(self: Arc<Self>);

    /// A glance, for status.
    fn state(&self) -> GateState;

    /// How late a worker ran a timer that is due once a second.
    fn note_lag(&self, _worker: usize, _lag: Duration) {}
}

/// What comes of asking to be let in.
pub enum Entered {
    Passed(Pass),
    Wait(Wait),
    /// Let through, after so long.
    Delayed(Duration, Pass),
    Refused(Refusal),
}

/// Until the gate says more, or the clock does. Dropped, nobody waits any more.
pub type Wait = Pin<Box<dyn Future<Output = Result<Pass, Refusal>>>>;

/// Nobody is let in: the attempt or the call fails by this.
#[derive(Debug)]
pub struct Refusal {
    pub cause: Cause,
    pub detail: String,
    pub told: Option<Box<Told>>,
}

impl Refusal {
    /// One of which its caller is told no more than that.
    pub fn new(cause: Cause, detail: impl Into<String>) -> Self {
        Self { cause, detail: detail.into(), told: None }
    }
}

/// What whoever is refused is told beside the ready-made answer: fields, and how long to stay away, where that would help.
#[derive(Debug)]
pub struct Told {
    pub headers: Vec<(HeaderName, HeaderValue)>,
    pub again: Option<Duration>,
}

/// What a gate let through, until it leaves; dropped without a word, its caller has left.
pub struct Pass {
    leave: Option<Leave>,
    hit: Option<Hit>,
}

/// Is told how what was let through ended.
type Leave = Box<dyn FnOnce(Exit) + Send>;

/// How what was let through ended, and when: well, or failed by a cause.
#[derive(Clone, Copy, Debug)]
pub struct Exit {
    pub outcome: Option<Cause>,
    pub now: Instant,
    pub begun: Begun,
}

/// When an answer began, less what its request took to come.
#[derive(Clone, Copy, Debug, Default)]
pub enum Begun {
    #[default]
    Never,
    At(Instant),
    /// Before its request was whole.
    Streaming,
}

impl Pass {
    /// `leave` is told how it ended.
    pub fn new(leave: impl FnOnce(Exit) + Send + 'static) -> Self {
        Self { leave: Some(Box::new(leave)), hit: None }
    }

    /// Nobody came in by it: the gate takes it back without a word.
    pub fn unused(mut self) {
        self.leave = None;
    }

    /// The same to which harm was done.
    #[must_use]
    pub fn harmed(mut self, hit: Hit) -> Self {
        self.hit = Some(hit);
        self
    }

    /// It ended: well, or failed by a cause. `Status`, `Shed`: the app's answer is a failure, or says that it had no room.
    pub fn leave(self, outcome: Option<Cause>, now: Instant) {
        self.exit(Exit { outcome, now, begun: Begun::Never });
    }

    /// The same of what was answered.
    pub fn exit(mut self, exit: Exit) {
        if let Some(leave) = self.leave.take() {
            leave(exit);
        }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if let Some(leave) = self.leave.take() {
            leave(Exit { outcome: Some(Cause::CallerLeft), now: Instant::now(), begun: Begun::Never });
        }
    }
}

impl fmt::Debug for Pass {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Pass")
    }
}

/// The way through a list of gates, one after the other. Dropped, it leaves those that it passed, and waits no more.
#[derive(Default)]
pub struct Passage {
    at_once: bool,
    passed: Vec<Pass>,
    /// How many are behind it, those that stand open too.
    behind: usize,
    wait: Option<Wait>,
    delayed: Option<(Pin<Box<Sleep>>, Pass)>,
}

impl Passage {
    /// `at_once`: of an attempt beside others.
    pub fn new(at_once: bool) -> Self {
        Self { at_once, ..Self::default() }
    }

    /// Enter the gates ahead, until one refuses or makes us wait. `who` calls.
    pub fn poll(&mut self, cx: &mut Context<'_>, shared: &Shared, names: &[Arc<str>], who: &str) -> Poll<Result<(), Refusal>> {
        while let Some(name) = names.get(self.behind) {
            let found = if let Some(wait) = &mut self.wait {
                Some(ready!(wait.as_mut().poll(cx)))
            } else if let Some((timer, _)) = &mut self.delayed {
                ready!(timer.as_mut().poll(cx));
                self.delayed.take().map(|(_, pass)| Ok(pass))
            } else {
                let (now, chance) = (Instant::now(), fastrand::f64());
                let enter = |gate: Arc<dyn Gate>| {
                    if self.at_once { gate.enter_at_once(now, chance, who) } else { gate.enter(now, chance, who) }
                };
                match shared.gate(name).map(enter) {
                    None => None,
                    Some(Entered::Passed(pass)) => Some(Ok(pass)),
                    Some(Entered::Refused(refusal)) => Some(Err(refusal)),
                    Some(Entered::Wait(wait)) => {
                        self.wait = Some(wait);
                        continue;
                    }
                    Some(Entered::Delayed(delay, pass)) => {
                        self.delayed = Some((Box::pin(sleep(delay)), pass));
                        continue;
                    }
                }
            };
            self.wait = None;
            self.passed.extend(found.transpose()?);
            self.behind += 1;
        }
        Poll::Ready(Ok(()))
    }

    /// The harm that was done on the way, also what still holds it up.
    pub fn hits(&self) -> Vec<Hit> {
        self.passed.iter().chain(self.delayed.iter().map(|(_, pass)| pass)).filter_map(|pass| pass.hit.clone()).collect()
    }

    /// What was let through has ended, or needs to go on no more. `begun`: when its answer did.
    pub fn leave(&mut self, outcome: Option<Cause>, begun: Begun) {
        self.wait = None;
        self.passed.extend(self.delayed.take().map(|(_, pass)| pass));
        if !self.passed.is_empty() {
            let now = Instant::now();
            self.passed.drain(..).for_each(|pass| pass.exit(Exit { outcome, now, begun }));
        }
    }
}

/// A glance at a gate. `left`: how often what it let through ended; the first is well, the others by `CAUSES`. `refused`: how often it let
/// nobody in, by the reason; of a fault gate how often it did harm, by its kind. `limit`: that of an adaptive gate.
#[derive(Debug, Default)]
pub struct GateState {
    pub inside: usize,
    pub waiting: usize,
    pub left: Left,
    pub refused: Vec<(&'static str, u64)>,
    pub limit: Option<usize>,
}

/// Reasons that came up, with how often.
fn counted(refused: &[(&'static str, u64)]) -> Vec<(&'static str, u64)> {
    refused.iter().copied().filter(|(_, times)| *times > 0).collect()
}

/// How often what a gate let through ended, well or by a cause.
#[derive(Clone, Copy, Debug)]
pub struct Left([u64; 1 + CAUSES.len()]);

impl Default for Left {
    fn default() -> Self {
        Self([0; 1 + CAUSES.len()])
    }
}

impl Left {
    /// One more.
    pub fn count(&mut self, outcome: Option<Cause>) {
        self.0[outcome.map_or(0, |cause| 1 + cause as usize)] += 1;
    }

    /// By the cause's name, empty for well; without those that never came.
    pub fn by_name(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let names = [""].into_iter().chain(CAUSES.iter().map(|(_, name)| *name));
        names.zip(self.0).filter(|(_, count)| *count > 0)
    }
}

/// A gate of any kind, as pushed.
#[derive(Clone, Debug)]
pub enum GateSpec {
    /// The limit, and what it is between where it adapts.
    Concurrency(Bounds),
    Rate(RateSpec),
    /// Requests to accepted ones, and the window.
    Throttle(f64, Duration),
    /// How late, and for how long.
    Lag(Duration, Duration),
    Each(usize),
    Fault(FaultSpec),
}

impl GateSpec {
    /// By the name of its kind, its numbers and its texts.
    pub fn parse(kind: &str, numbers: &HashMap<String, f64>, texts: &HashMap<String, String>) -> Result<Self, String> {
        let number = |name: &str| numbers.get(name).copied().ok_or_else(|| format!("a {kind} gate needs {name}"));
        let length = |name: &str| Duration::try_from_secs_f64(number(name)?).map_err(|error| format!("{name}: {error}"));
        let text = |name: &str| texts.get(name).cloned().ok_or_else(|| format!("a {kind} gate needs {name}"));
        let bounds = |limit, adapts| {
            let wait = length("wait_s")?;
            Ok::<_, String>(Bounds {
                limit,
                adapts,
                queue: number("queue")? as usize,
                wait: (!wait.is_zero()).then_some(wait),
                newest_first: number("newest_first")? != 0.0,
            })
        };
        match kind {
            "concurrency" => Ok(Self::Concurrency(bounds(number("limit")? as usize, None)?)),
            "adaptive" => {
                let (least, most) = (number("min_limit")? as usize, number("max_limit")? as usize);
                Ok(Self::Concurrency(bounds(0, Some((least, most)))?))
            }
            "rate" => Ok(Self::Rate(RateSpec {
                per_s: number("per_s")?,
                burst: number("burst")?,
                is_shared: number("is_shared")? != 0.0,
                name: text("name")?,
                policy: text("policy")?,
            })),
            "throttle" => Ok(Self::Throttle(number("ratio")?, length("window_s")?)),
            "lag" => Ok(Self::Lag(length("above_s")?, length("for_s")?)),
            "each" => Ok(Self::Each(number("limit")? as usize)),
            "fault" => {
                let (times, seed, bytes) = (number("times")?, number("seed")?, number("bytes")?);
                let (kind, harm) = match text("kind")?.as_str() {
                    "delay" => ("delay", Harm::Delay(length("least_s")?, length("most_s")?)),
                    "abort" => ("abort", Harm::Abort(number("status")? as u16, number("grpc_code")? as u32)),
                    "unavailable" => ("unavailable", Harm::Fail(Cause::Connect)),
                    "reset" => ("reset", Harm::Fail(Cause::ResetEarly)),
                    "reset-late" => ("reset-late", Harm::Cut(None)),
                    "truncate" => ("truncate", Harm::Cut(Some(bytes as u64))),
                    "bandwidth" => ("bandwidth", Harm::Slow(bytes)),
                    other => return Err(format!("unknown kind of fault: {other}")),
                };
                let (times, seed) = ((times > 0.0).then_some(times as u64), (seed >= 0.0).then_some(seed as u64));
                Ok(Self::Fault(FaultSpec { name: text("name")?.into(), kind, share: number("share")?, times, seed, harm }))
            }
            _ => Err(format!("unknown kind of gate: {kind}")),
        }
    }

    fn build(&self) -> Arc<dyn Gate> {
        match self {
            Self::Concurrency(bounds) => {
                let gradient = bounds.adapts.map(|(least, most)| Gradient::new(least, most, Instant::now()));
                Concurrency::new(bounds.clone(), gradient)
            }
            Self::Rate(spec) => Rate::new(spec.clone()),
            Self::Throttle(ratio, window) => Throttle::new(*ratio, *window),
            Self::Lag(above, within) => Lag::new(*above, *within),
            Self::Each(limit) => Each::new(*limit),
            Self::Fault(spec) => Fault::new(spec.clone()),
        }
    }
}

/// The gates that stand, by name.
#[derive(Debug, Default)]
pub struct Gates {
    known: HashMap<String, Arc<dyn Gate>>,
}

impl Gates {
    /// Put a gate up, change the one that stands, or take it down. What is inside leaves the gate that it entered, whatever stands there
    /// by then. Returns what stands there now.
    pub fn set(&mut self, name: &str, spec: Option<&GateSpec>) -> Option<Arc<dyn Gate>> {
        if let (Some(spec), Some(gate)) = (spec, self.known.get(name)) {
            if gate.clone().change(spec) {
                return Some(gate.clone());
            }
        }
        let made = spec.map(GateSpec::build);
        let before = match &made {
            Some(gate) => self.known.insert(name.to_owned(), gate.clone()),
            None => self.known.remove(name),
        };
        if let Some(gate) = before {
            gate.open();
        }
        made
    }

    /// A glance at each, for status.
    pub fn states(&self) -> impl Iterator<Item = (&str, GateState)> {
        self.known.iter().map(|(name, gate)| (&**name, gate.state()))
    }
}
