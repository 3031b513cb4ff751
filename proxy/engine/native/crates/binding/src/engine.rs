//! The engine as Python holds it.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io::{Read, Write};
use std::num::NonZeroUsize;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::HeaderName;
use postern_core::call::breakers::{Glance, Turn};
use postern_core::call::gates::GateSpec;
use postern_core::call::not_retried::NotRetried;
use postern_core::call::outliers::EndpointTurn;
use postern_core::connection::tls::Identity;
use postern_core::decision::plan::ReleasedTokens;
use postern_core::decision::trace::{RuleSampler, Sampler, SamplingRules};
use postern_core::engine::Engine;
use postern_core::limits::Limits;
use postern_core::seam::ask::{Attempt, Notice, Outcome};
use postern_core::seam::commands::Command;
use postern_core::seam::inboxes::Inboxes;
use postern_core::seam::news::Watch;
use postern_core::seam::tally::{Bounds, HttpPaths, Kind, Tally};
use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyTuple};

use crate::convert::{
    self, BoundsParts, BreakerParts, ClusterParts, IdentityParts, ShapeParts, SpansParts, WantedParts, invalid,
};
use crate::news;
use crate::question::Question;

/// address, calls in flight, latency, how long it is left alone, whether it is proven, why its answers keep it out
type LoadParts = (String, u32, f64, f64, bool, &'static str);
/// name, inside, waiting, how often what it let through ended: by the cause's name, empty for well
/// inside, waiting, left, refused, limit
type GateParts = (String, usize, usize, Counted, Counted, Option<usize>);
type Counted = HashMap<&'static str, u64>;
type GateSpecParts = (String, HashMap<String, f64>, HashMap<String, String>);

const STATUS_WAIT: Duration = Duration::from_secs(1);

/// One engine with its threads. Every method is quick; none waits for the network.
#[pyclass(frozen)]
pub(crate) struct NativeEngine {
    engine: Engine,
    released: ReleasedTokens,
    bell: UnixStream,
}

/// Sums on their way to Python, each made into Python's objects when it is its turn: together they are megabytes.
#[pyclass(frozen)]
pub(crate) struct Tallies {
    left: Mutex<std::vec::IntoIter<(Kind, Tally)>>,
}

#[pymethods]
impl Tallies {
    /// How many are left.
    fn __len__(&self) -> usize {
        self.left.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    fn __iter__(this: PyRef<'_, Self>) -> PyRef<'_, Self> {
        this
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyTuple>>> {
        let next = self.left.lock().unwrap_or_else(PoisonError::into_inner).next();
        next.map(|(kind, tally)| convert::tally(py, &kind, tally)).transpose()
    }
}

fn limits(given: &Bound<'_, PyDict>) -> PyResult<Limits> {
    fn get<'py, T: for<'a> FromPyObject<'a>>(given: &Bound<'py, PyDict>, name: &str) -> PyResult<T> {
        given.get_item(name)?.ok_or_else(|| invalid(format!("no limit {name}")))?.extract()
    }
    let length = |name: &str| -> PyResult<Duration> { Duration::try_from_secs_f64(get(given, name)?).map_err(invalid) };
    Ok(Limits {
        head_bytes: get(given, "head_bytes")?,
        header_count: get(given, "header_count")?,
        head: length("head_s")?,
        handshake: length("handshake_s")?,
        idle: length("idle_s")?,
        rest: length("rest_s")?,
        stall: length("stall_s")?,
        stall_bytes: get(given, "stall_bytes")?,
        ping: length("ping_s")?,
        pong: length("pong_s")?,
        connections: get(given, "connections")?,
        streams: get(given, "streams")?,
        window_bytes: get(given, "window_bytes")?,
        connection_window_bytes: get(given, "connection_window_bytes")?,
        resets_per_s: get(given, "resets_per_s")?,
        resets_burst: get(given, "resets_burst")?,
        control_per_s: get(given, "control_per_s")?,
        control_burst: get(given, "control_burst")?,
        own_app_factor: get(given, "own_app_factor")?,
        continuations: get(given, "continuations")?,
        replay_bytes: get(given, "replay_bytes")?,
        expiry_lead: length("expiry_lead_s")?,
        expiry_skew: length("expiry_skew_s")?,
    })
}

impl NativeEngine {
    fn command(&self, make: impl Fn() -> Command) {
        self.engine.commands.send(make);
    }
}

#[pymethods]
impl NativeEngine {
    /// Start so many threads. `limits`: the fields of `proxy.contract.engine.Limits`. `prompt`: the bell rings for reports too.
    #[new]
    fn new(limits_given: &Bound<'_, PyDict>, prompt: bool, threads: NonZeroUsize) -> PyResult<Self> {
        let (bell, ringer) = UnixStream::pair()?;
        bell.set_nonblocking(true)?;
        ringer.set_nonblocking(true)?;
        let ringer = Mutex::new(ringer);
        let bell_rope = Box::new(move || {
            // A full pipe has rung already.
            drop(ringer.lock().unwrap_or_else(PoisonError::into_inner).write(b"!"));
        });
        let engine = Engine::start(&limits(limits_given)?, Inboxes::new(threads.get(), bell_rope, prompt))?;
        let released = Arc::new(Mutex::new(VecDeque::new()));
        Ok(Self { engine, released, bell })
    }

    /// The descriptor that becomes readable when there are questions.
    fn bell(&self) -> i32 {
        self.bell.as_raw_fd()
    }

    /// Take what rang; to be followed by `next_question` until there is none.
    fn clear_wakeup(&self) {
        let mut taken = [0; 64];
        while (&self.bell).read(&mut taken).is_ok_and(|count| count == taken.len()) {}
    }

    /// The oldest question, as a tuple that begins with its kind.
    fn next_question<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyTuple>>> {
        let Some(asked) = self.engine.inboxes.next_question() else { return Ok(None) };
        let engine = &self.engine;
        Question::tuple(py, asked, self.released.clone(), engine.commands.clone(), engine.budgets.clone()).map(Some)
    }

    fn listen(&self, name: &str, address: &str, mesh: bool) -> PyResult<String> {
        self.engine.listen(name, address, mesh).map_err(|error| match error.raw_os_error() {
            Some(code) => PyOSError::new_err((code, error.to_string())),
            None => PyOSError::new_err(error.to_string()),
        })
    }

    fn unlisten(&self, name: &str) {
        self.engine.unlisten(name);
    }

    /// upstreams: (address, weight, rank).
    fn set_cluster(&self, parts: ClusterParts) -> PyResult<()> {
        self.engine.set_cluster(&convert::cluster(parts, &self.engine.verified)?);
        Ok(())
    }

    fn drop_cluster(&self, key: &str) {
        self.engine.drop_cluster(key);
    }

    fn wake(&self, key: String) {
        self.command(|| Command::Wake(key.clone()));
    }

    /// The kind of `shape`: `out-paths`, `services`, `access`, or `opaque` for a table that only Python can read.
    fn set_paths(&self, number: u32, shape: ShapeParts) -> PyResult<()> {
        let table = convert::path_table(shape)?;
        self.command(|| Command::SetPaths(number, table.clone()));
        Ok(())
    }

    /// Begin spans here, by this rate; `None`: ask for each. `b3`: whether those headers are read. `rules`: rate, and how many in a second
    /// at most, of those that decisions name.
    fn set_sampling(&self, rate: Option<f64>, b3: bool, rules: Vec<(f64, Option<f64>)>) {
        let rules = rules.into_iter().map(|(rate, per_s)| RuleSampler::new(rate, per_s)).collect();
        let rules = Arc::new(SamplingRules::new(rules));
        self.command(|| Command::SetSampler(rate.map(|rate| Sampler::new(rate, b3)), rules.clone()));
    }

    /// Add finished calls up, in buckets with these upper bounds (seconds, milliseconds, bytes), HTTP's by path `none`, `first` or `all`;
    /// those that are slow are worth keeping. `None`: tell of each.
    fn set_measures(&self, bounds: Option<BoundsParts>) {
        let bounds = bounds.map(|(duration_s, latency_ms, size_bytes, paths, slow_ns)| {
            let http_paths = match paths.as_str() {
                "first" => HttpPaths::First,
                "all" => HttpPaths::All,
                _ => HttpPaths::None,
            };
            Bounds { duration_s, latency_ms, size_bytes, http_paths, slow_ns }
        });
        self.engine.inboxes.set_bounds(bounds.as_ref());
    }

    /// Write a line for each call whose decision has pieces for one, or none.
    fn set_lines(&self, wanted: Option<WantedParts>) {
        self.engine.inboxes.set_lines(wanted.map(convert::wanted));
    }

    /// The lines since this was last asked, and how many were lost.
    fn take_lines<'py>(&self, py: Python<'py>) -> (Bound<'py, PyBytes>, u64) {
        let (text, lost) = self.engine.inboxes.take_lines();
        (PyBytes::new(py, &text), lost)
    }

    /// Take spans of sampled calls that are added up: write them, or remember the calls alone. `None`: tell of each.
    fn set_spans(&self, wanted: Option<SpansParts>) -> PyResult<()> {
        self.engine.inboxes.set_spans(wanted.map(convert::spans_wanted).transpose()?);
        Ok(())
    }

    /// Spans written since this was last asked, oldest first: (objects of JSON with commas between, how many).
    fn take_written<'py>(&self, py: Python<'py>) -> Vec<(Bound<'py, PyBytes>, u32)> {
        let pieces = self.engine.inboxes.take_written().into_iter();
        pieces.map(|piece| (PyBytes::new(py, &piece.text), piece.spans)).collect()
    }

    /// At most `most` of the sampled calls whose spans were taken, oldest first, as tuples; heads without their headers.
    fn take_recent<'py>(&self, py: Python<'py>, most: usize) -> PyResult<Vec<Bound<'py, PyTuple>>> {
        self.engine.inboxes.take_recent(most).iter().map(|outcome| outcome_tuple(py, outcome, false)).collect()
    }

    fn set_members(&self, number: u32, members: Vec<Vec<u8>>) {
        let members: Arc<HashSet<Box<[u8]>>> = Arc::new(members.into_iter().map(Vec::into_boxed_slice).collect());
        self.command(|| Command::SetMembers(number, members.clone()));
    }

    /// spec: the name of the kind, its numbers and its texts.
    fn set_gate(&self, name: &str, spec: Option<GateSpecParts>) -> PyResult<()> {
        let parse = |(kind, numbers, texts): GateSpecParts| GateSpec::parse(&kind, &numbers, &texts).map_err(invalid);
        let spec = spec.map(parse).transpose()?;
        self.engine.set_gate(name, spec.as_ref());
        Ok(())
    }

    /// A glance at each gate, for status.
    fn gates(&self) -> Vec<GateParts> {
        let gates = self.engine.gates().into_iter();
        gates
            .map(|(name, state)| {
                let (left, refused) = (state.left.by_name().collect(), state.refused.into_iter().collect());
                (name, state.inside, state.waiting, left, refused, state.limit)
            })
            .collect()
    }

    /// Set circuit breakers anew, or remove them.
    fn set_breaker(&self, name: &str, spec: Option<BreakerParts>) -> PyResult<()> {
        self.engine.set_breakers(name, spec.map(convert::breaker).transpose()?);
        Ok(())
    }

    /// The circuit breakers that have been asked: name, target, method, state, counters, how long it stays open.
    fn breakers<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyTuple>>> {
        let glance = |glance: &Glance| {
            let Glance { breaker, state, counters, left } = glance;
            let counters = PyTuple::new(py, counters)?;
            (&*breaker.name, &*breaker.target, &*breaker.method, state.name(), counters, left.as_secs_f64()).into_pyobject(py)
        };
        self.engine.breakers().iter().map(glance).collect()
    }

    /// The budgets of retries that calls had: target, kind, what is left, of how much.
    fn budgets(&self) -> Vec<(String, &'static str, f64, f64)> {
        self.engine.budgets.glances()
    }

    /// Raises `ValueError` where the material is unusable; the identity in force stays then.
    fn set_identity(&self, material: Option<IdentityParts>) -> PyResult<()> {
        let made = material
            .map(|(chain, key, roots, ends_at)| Identity::new(&chain, &key, &roots, convert::moment(ends_at)?).map_err(invalid));
        let identity = made.transpose()?;
        self.engine.set_identity(identity);
        Ok(())
    }

    fn invalidate(&self, scope: String) {
        self.command(|| Command::Invalidate(scope.clone()));
    }

    fn redecide_open(&self) {
        self.command(|| Command::RedecideOpen);
    }

    /// Drain the listeners' connections; `done(count)` is called from an engine's thread once their calls ended or were cut.
    fn drain(&self, names: Vec<String>, within_s: f64, done: Py<PyAny>) -> PyResult<()> {
        let within = Duration::try_from_secs_f64(within_s.max(0.0)).map_err(invalid)?;
        let cut = Box::new(move |count: usize| {
            // The one place where an engine's thread takes the GIL: at shutdown, once.
            Python::attach(|py| {
                if let Err(error) = done.call1(py, (count,)) {
                    error.write_unraisable(py, None);
                }
            });
        });
        self.engine.drain(&names, within, cut);
        Ok(())
    }

    /// (address, in flight, rtt in seconds, ejected for so many seconds) of each endpoint.
    fn loads(&self, py: Python<'_>, key: &str) -> Vec<LoadParts> {
        let loads = py.detach(|| self.engine.loads(key, STATUS_WAIT));
        loads
            .into_iter()
            .map(|load| {
                let (rtt_s, ejected_s) = (load.rtt.as_secs_f64(), load.ejected_for.as_secs_f64());
                (load.address.to_string(), load.in_flight, rtt_s, ejected_s, load.is_proven, load.outlier)
            })
            .collect()
    }

    /// (connections, calls in flight, Plans kept, upstream connections).
    fn stats(&self) -> (i64, i64, i64, i64) {
        let sums = &self.engine.inboxes;
        (sums.sum(|of| &of.connections), sums.sum(|of| &of.calls), sums.sum(|of| &of.plans), sums.sum(|of| &of.upstream))
    }

    /// (calls being carried by their decisions' tokens, streams in, streams out, bytes of request bodies held, a thread's worst lag in seconds).
    fn open_work(&self, py: Python<'_>) -> (Vec<(u64, usize)>, usize, usize, usize, f64) {
        let work = py.detach(|| self.engine.open_work(STATUS_WAIT));
        (work.calls.into_iter().collect(), work.streams_in, work.streams_out, work.replay_bytes, work.lag.as_secs_f64())
    }

    /// Since this was last asked: (heads that a kept decision covered, that none did, reports lost, spans lost).
    fn take_counts(&self) -> (u64, u64, u64, u64) {
        let sums = &self.engine.inboxes;
        let take = (sums.take_sum(|of| &of.hits), sums.take_sum(|of| &of.misses));
        (take.0, take.1, sums.take_sum(|of| &of.dropped), sums.take_sum(|of| &of.spans_lost))
    }

    /// Sums of the calls that were added up since this was last asked.
    fn take_tallies(&self) -> Tallies {
        Tallies { left: Mutex::new(self.engine.inboxes.take_tallies().into_iter()) }
    }

    /// At most `most` calls that are in the sums and whose spans are to be recorded, oldest first; heads without their headers.
    fn take_spans<'py>(&self, py: Python<'py>, most: usize) -> PyResult<Vec<Bound<'py, PyTuple>>> {
        self.engine.inboxes.take_spans(most).iter().map(|outcome| outcome_tuple(py, outcome, false)).collect()
    }

    /// At most `most` outcomes, oldest first, as tuples.
    fn take_outcomes<'py>(&self, py: Python<'py>, most: usize) -> PyResult<Vec<Bound<'py, PyTuple>>> {
        self.engine.inboxes.take_outcomes(most).iter().map(|outcome| outcome_tuple(py, outcome, true)).collect()
    }

    /// Tell of calls as they go on, with the values of these fields; `None`: nobody looks.
    fn watch(&self, fields: Option<Vec<Vec<u8>>>) -> PyResult<()> {
        let names = |fields: Vec<Vec<u8>>| {
            fields.iter().map(|name| HeaderName::from_bytes(name).map_err(invalid)).collect::<PyResult<Box<[_]>>>()
        };
        let watch = fields.map(names).transpose()?.map(|fields| Arc::new(Watch { fields }));
        self.command(|| Command::SetWatch(watch.clone()));
        Ok(())
    }

    /// News of calls, oldest first of each thread, as tuples that begin with their kind, and how many were lost.
    fn take_news<'py>(&self, py: Python<'py>) -> PyResult<(Vec<Bound<'py, PyTuple>>, u64)> {
        let (all, lost) = self.engine.inboxes.take_news();
        Ok((all.iter().map(|one| news::news(py, one)).collect::<PyResult<_>>()?, lost))
    }

    /// All news of connections, oldest first, as tuples that begin with their kind.
    fn take_notices<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyTuple>>> {
        self.engine.inboxes.take_notices().iter().map(|notice| notice_tuple(py, notice)).collect()
    }

    /// Tokens of decisions that nothing holds any more.
    fn take_dead(&self) -> Vec<u64> {
        self.released.lock().unwrap_or_else(PoisonError::into_inner).drain(..).collect()
    }

    /// End every call and connection, and wait for the threads.
    fn stop(&self, py: Python<'_>) {
        py.detach(|| self.engine.stop());
    }
}

fn outcome_tuple<'py>(py: Python<'py>, outcome: &Outcome, with_headers: bool) -> PyResult<Bound<'py, PyTuple>> {
    let attempt = |attempt: &Attempt| {
        let cause = attempt.cause.map(postern_core::call::cause::Cause::name);
        let times = (attempt.started_ns, attempt.head_ns, attempt.ended_ns);
        let said = attempt.said.map(postern_core::call::cause::Cause::name);
        let answer = (attempt.status, attempt.grpc_code, attempt.detail.as_str());
        let said = (said, &*attempt.fault);
        let made = (&*attempt.endpoint, times.0, times.1, times.2, cause, answer.0, answer.1, answer.2, said, attempt.sent_ns)
            .into_pyobject(py)?;
        made.add((attempt.queue_ns,))?.downcast_into::<PyTuple>().map_err(PyErr::from)
    };
    let attempts = outcome.attempts.iter().map(attempt).collect::<PyResult<Vec<_>>>()?;
    (
        convert::head(py, &outcome.head, with_headers)?,
        outcome.decision.as_ref().map(|token| token.id),
        convert::span(py, outcome.span.as_ref())?,
        outcome.started_ns,
        outcome.head_ns,
        outcome.ended_ns,
        outcome.status,
        outcome.grpc_code,
        outcome.cause.map(postern_core::call::cause::Cause::name),
        attempts,
        (outcome.up_bytes, outcome.down_bytes),
        (outcome.breaker.map(|(found, left)| (found.name(), left.name())), outcome.not_retried.map(NotRetried::name)),
    )
        .into_pyobject(py)?
        .add(((outcome.resolve_ns, outcome.queue_ns, outcome.authorize_ns), outcome.number))?
        .downcast_into::<PyTuple>()
        .map_err(PyErr::from)
}

/// What is news, by the names that Python knows: those of the Observer's methods.
pub(crate) const NOTICES: [&str; 8] = [
    "connection",
    "refused_frames",
    "refused_peer",
    "upstream_failed",
    "upstream_connected",
    "phased",
    "breaker_turned",
    "endpoint_turned",
];

fn notice_tuple<'py>(py: Python<'py>, notice: &Notice) -> PyResult<Bound<'py, PyTuple>> {
    match notice {
        Notice::Connection { listener, change } => (NOTICES[0], &**listener, *change).into_pyobject(py),
        Notice::RefusedFrames { kind, who } => (NOTICES[1], *kind, &**who).into_pyobject(py),
        Notice::RefusedPeer { listener, refusal, address } => {
            (NOTICES[2], &**listener, &*refusal.reason, refusal.detail.as_str(), &**address).into_pyobject(py)
        }
        Notice::UpstreamFailed { cluster, address, reason } => {
            (NOTICES[3], &**cluster, &**address, reason.as_str()).into_pyobject(py)
        }
        Notice::UpstreamConnected { cluster, connect, tls } => {
            (NOTICES[4], &**cluster, connect.as_secs_f64(), tls.as_secs_f64()).into_pyobject(py)
        }
        Notice::Phased { token, phases } => {
            (NOTICES[5], token.id, PyTuple::new(py, phases.map(|phase| phase.map(|took| took.as_secs_f64())))?).into_pyobject(py)
        }
        Notice::BreakerTurned(Turn { breaker, before, after, counters }) => {
            let of = (&*breaker.name, &*breaker.target, &*breaker.method);
            (NOTICES[6], of.0, of.1, of.2, before.name(), after.name(), PyTuple::new(py, counters)?).into_pyobject(py)
        }
        Notice::EndpointTurned(EndpointTurn { cluster, address, put_out, times }) => {
            let (cluster, address): (&str, &str) = (cluster, address);
            let (reason, length) = put_out.map_or(("", Duration::ZERO), |(why, length)| (why.name(), length));
            (NOTICES[7], cluster, address, reason, length.as_secs_f64(), *times).into_pyobject(py)
        }
    }
}
