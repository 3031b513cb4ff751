//! The attempts of a call that are under way: one, or several at once. All are driven from the polls of the call's task.

use std::task::{Context, Poll};

use crate::call::attempt::{Ended, OUTRUN, OUTRUN_BY, UpstreamAttempt};
use crate::call::cause::Cause;
use crate::call::ends::Down;
use crate::call::exchange::{Call, Stop};
use crate::decision::plan::Plan;

/// A list in which the usual one costs no allocation.
#[derive(Default)]
pub struct UnderWay {
    one: Option<UpstreamAttempt>,
    others: Vec<UpstreamAttempt>,
}

impl UnderWay {
    /// One more.
    pub fn begin(&mut self, call: &mut Call, plan: &Plan) {
        if self.one.as_ref().is_none_or(UpstreamAttempt::is_over) {
            self.one = Some(UpstreamAttempt::begin(call, plan));
        } else {
            self.others.retain(|known| !known.is_over());
            self.others.push(UpstreamAttempt::begin(call, plan));
        }
    }

    fn end(&mut self, call: &mut Call, cause: Cause, detail: &str) {
        self.each().for_each(|attempt| attempt.end(call, Some(cause), detail));
    }

    fn each(&mut self) -> impl Iterator<Item = &mut UpstreamAttempt> {
        self.one.iter_mut().chain(&mut self.others)
    }

    /// Drive all until the call has something to do: it is answered or stopped, or one has failed and no other is under way. Then all have
    /// ended.
    pub fn poll(&mut self, cx: &mut Context<'_>, call: &mut Call, down: &mut Down, plan: &Plan) -> Poll<Result<Ended, Stop>> {
        let polled = self.poll_each(cx, call, down, plan);
        match &polled {
            Poll::Ready(Ok(_)) if call.under_way > 0 => self.end(call, OUTRUN, OUTRUN_BY),
            Poll::Ready(Err(stop)) => {
                let (cause, detail) = stop.told(call.shared.limits.stall);
                self.end(call, cause, &detail);
            }
            _ => {}
        }
        polled
    }

    fn poll_each(&mut self, cx: &mut Context<'_>, call: &mut Call, down: &mut Down, plan: &Plan) -> Poll<Result<Ended, Stop>> {
        loop {
            let before = call.progress();
            call.up_waits = false;
            for attempt in self.each() {
                match attempt.poll(cx, call, down, plan) {
                    Poll::Ready(Ok(Ended::Whole)) => return Poll::Ready(Ok(Ended::Whole)),
                    Poll::Ready(ended) if ended.is_err() || call.under_way == 0 => return Poll::Ready(ended),
                    _ => {}
                }
            }
            // What one of them read, or that it is the one now, concerns those that were polled before it.
            if self.others.is_empty() || call.progress() == before {
                return call.poll_stop(cx, down).map(Err);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::future::poll_fn;
    use std::rc::Rc;
    use std::sync::Arc;
    use std::time::Duration;

    use bytes::Bytes;
    use h2::Reason;
    use h2::server::SendResponse;
    use http::Response;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::Notify;
    use tokio::task::{LocalSet, spawn_local};
    use tokio::time::timeout;

    use super::*;
    use crate::call::balance::Health;
    use crate::call::choosing::Balancing;
    use crate::clusters::{Cluster, Tls, Upstream, Wire};
    use crate::connection::io::Io;
    use crate::connection::kind::Kind;
    use crate::connection::leaving::Leaving;
    use crate::decision::edits::Edits;
    use crate::decision::plan::{ReleasedTokens, Route, Token};
    use crate::head::{self, Entry};
    use crate::http1::down::{Conn, H1Down};
    use crate::http1::head_scan::scan_request;
    use crate::limits::Limits;
    use crate::seam::ask::Outcome;
    use crate::shared::Shared;

    const HEAD: &[u8] = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n";
    const LIMIT: Duration = Duration::from_secs(30);

    /// What the upstreams saw, by the turn in which they were called. The one of turn `answers` answers once it has all of the request and
    /// may `go` on; the other hints at an answer, and `fails` or says no more.
    struct Seen {
        answers: usize,
        fails: bool,
        go: Notify,
        calls: Cell<usize>,
        bodies: RefCell<[Vec<u8>; 2]>,
        reset: Cell<Option<Reason>>,
        changed: Notify,
    }

    impl Seen {
        async fn until(&self, predicate: impl Fn(&Self) -> bool) {
            while !predicate(self) {
                self.changed.notified().await;
            }
        }

        async fn serve(self: Rc<Self>, listener: TcpListener) {
            let (stream, _) = listener.accept().await.unwrap();
            let mut connection = h2::server::handshake(stream).await.unwrap();
            while let Some(Ok((request, respond))) = connection.accept().await {
                let turn = self.calls.replace(self.calls.get() + 1);
                spawn_local(self.clone().take(turn, request.into_body(), respond));
            }
        }

        async fn take(self: Rc<Self>, turn: usize, mut body: h2::RecvStream, mut respond: SendResponse<Bytes>) {
            while let Some(Ok(data)) = body.data().await {
                self.bodies.borrow_mut()[turn].extend_from_slice(&data);
                self.changed.notify_one();
            }
            if turn == self.answers {
                self.go.notified().await;
                let mut stream = respond.send_response(Response::new(()), false).unwrap();
                stream.send_data("answer".into(), true).unwrap();
            } else if self.fails {
                respond.send_informational(Response::builder().status(103).body(()).unwrap()).unwrap();
                tokio::task::yield_now().await; // a reset forgets what waits
                respond.send_reset(Reason::INTERNAL_ERROR);
                self.reset.set(Some(Reason::INTERNAL_ERROR));
            } else {
                self.reset.set(poll_fn(|cx| respond.poll_reset(cx)).await.ok());
                self.changed.notify_one();
            }
        }
    }

    async fn accepted(listener: &TcpListener) -> (TcpStream, TcpStream) {
        let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (near, listener.accept().await.unwrap().0)
    }

    fn plan(replay_bytes: usize) -> Plan {
        Plan {
            token: Token::new(1, 1, ReleasedTokens::default()),
            routes: vec![Route {
                cluster: "app".into(),
                weight: 1,
                expect: Arc::new([]),
                edits: Edits::default(),
                gates: Vec::new(),
            }],
            retries: Vec::new(),
            gates: Vec::new(),
            breaker: None,
            budget: None,
            hedge: None,
            connect: LIMIT,
            attempt: None,
            total: None,
            body_bytes: None,
            replay_bytes,
            reply_edits: None,
            upper_request: false,
            upper_response: false,
            asks: false,
            by_daprd: None,
            denials_fail: false,
            scopes: Vec::new(),
        }
    }

    /// A call with half of its request sent to one upstream when an attempt at another begins. Returns what the caller got, and the outcome.
    async fn race(answers: usize, replay_bytes: usize, fails: bool) -> (String, Outcome, Rc<Seen>) {
        let shared = Shared::alone(Limits::default());
        let (calls, bodies, reset) = (Cell::default(), RefCell::default(), Cell::default());
        let seen = Rc::new(Seen { answers, fails, go: Notify::new(), calls, bodies, reset, changed: Notify::new() });
        let mut upstreams = Vec::new();
        for _ in 0..2 {
            let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
            let address = listener.local_addr().unwrap().to_string().into();
            upstreams.push(Upstream { address, weight: 1, rank: 0 });
            spawn_local(seen.clone().serve(listener));
        }
        let (who, balancing) = ("the app".into(), Balancing::default());
        let cluster =
            Cluster { key: "app".into(), wire: Wire::H2c, tls: Tls::None, upstreams, who, via: None, balancing, outliers: None };
        shared.clusters.borrow_mut().put(cluster, vec![Arc::new(Health::new(true)), Arc::new(Health::new(true))], None);

        let (mut caller, stream) = accepted(&TcpListener::bind(("127.0.0.1", 0)).await.unwrap()).await;
        let mut conn = Conn::new(shared.clone(), Io::new(Kind::Tcp(stream)), Leaving::new());
        let raw = conn.begin(scan_request(&Bytes::from_static(HEAD), &shared.limits).unwrap());
        let framing = raw.framing;
        let entry = Entry { listener: "in".into(), peer: None, caller: None, address: "".into() };
        let mut down = Down::H1(H1Down { conn: Rc::new(RefCell::new(conn)) });
        let mut call = Call::new(shared.clone(), Arc::new(head::read(raw, entry).0), framing);
        let plan = plan(replay_bytes);
        call.body.replay_limit = plan.replay_bytes;

        let mut under_way = UnderWay::default();
        caller.write_all(b"first").await.unwrap();
        for turn in 0..2 {
            under_way.begin(&mut call, &plan);
            tokio::select! {
                _ = poll_fn(|cx| under_way.poll(cx, &mut call, &mut down, &plan)) => panic!("nobody has answered"),
                () = seen.until(|seen| seen.bodies.borrow()[turn] == b"first") => {}
            }
        }
        caller.write_all(b"later").await.unwrap();
        poll_fn(|cx| {
            assert!(under_way.poll(cx, &mut call, &mut down, &plan).is_pending());
            if fails && call.under_way == 2 { Poll::Pending } else { Poll::Ready(()) }
        })
        .await;
        seen.go.notify_one();
        let ended = poll_fn(|cx| under_way.poll(cx, &mut call, &mut down, &plan)).await;
        assert!(matches!(ended, Ok(Ended::Whole)));
        down.leave().await;
        seen.until(|seen| seen.reset.get().is_some()).await;
        call.report();
        assert_eq!(call.under_way, 0);
        drop((call, under_way));
        let loads = shared.clusters.borrow().get("app").unwrap().endpoints.clone();
        assert!(loads.iter().all(|endpoint| endpoint.load.borrow().in_flight == 0));

        let mut got = vec![0; 4_096];
        let mut end = 0;
        while !got[..end].ends_with(b"\r\n0\r\n\r\n") {
            end += caller.read(&mut got[end..]).await.unwrap();
        }
        (String::from_utf8(got[..end].to_vec()).unwrap(), shared.inbox.take_outcomes(1).remove(0), seen)
    }

    async fn within<T>(part: impl Future<Output = T>) -> T {
        timeout(LIMIT, LocalSet::new().run_until(part)).await.unwrap()
    }

    fn causes(outcome: &Outcome) -> Vec<Option<Cause>> {
        outcome.attempts.iter().map(|attempt| attempt.cause).collect()
    }

    #[tokio::test(flavor = "current_thread")]
    async fn the_attempt_that_answers_first_is_the_one_and_the_other_is_reset() {
        let (got, outcome, seen) = within(race(1, 100, false)).await;
        assert!(got.starts_with("HTTP/1.1 200 OK\r\n") && got.ends_with("\r\n6\r\nanswer\r\n0\r\n\r\n"), "{got}");
        assert_eq!(*seen.bodies.borrow(), [b"firstlater", b"firstlater"]);
        assert_eq!(seen.reset.get(), Some(Reason::CANCEL));
        assert_eq!(causes(&outcome), [Some(OUTRUN), None]);
        assert_eq!((outcome.status, outcome.cause, outcome.up_bytes), (200, None, 10));
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_body_that_is_let_go_of_is_the_attempts_that_has_it() {
        let (got, outcome, seen) = within(race(0, 6, false)).await;
        assert!(got.ends_with("\r\n6\r\nanswer\r\n0\r\n\r\n"), "{got}");
        assert_eq!(seen.bodies.borrow()[0], b"firstlater");
        assert_eq!(causes(&outcome), [Some(OUTRUN), None]); // the last is the one
        assert!(outcome.attempts[1].started_ns < outcome.attempts[0].started_ns);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn an_attempt_that_fails_while_another_is_under_way_fails_nothing() {
        let (got, outcome, _) = within(race(1, 100, true)).await;
        assert!(got.starts_with("HTTP/1.1 200 OK\r\n"), "{got}"); // the other's 103 went nowhere
        assert_eq!(causes(&outcome), [Some(Cause::ResetEarly), None]);
        assert_eq!((outcome.status, outcome.cause), (200, None));
    }
}
