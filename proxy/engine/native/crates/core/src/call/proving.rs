//! Which endpoints are genuine: found out by connections of their own, so that calls need not meet impostors.

use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::call::cause::Cause;
use crate::call::ends::Lost;
use crate::call::pool::{Connection, Origin};
use crate::clusters::{Endpoint, Tls};
use crate::shared::Shared;

/// For an endpoint that was only announced to show who it is, where another one is left.
const PROOF: Duration = Duration::from_secs(1);

/// Connect to an endpoint that has not shown yet who it is, beside a call to another.
pub async fn prove(shared: Rc<Shared>, origin: Origin, endpoint: Rc<Endpoint>) {
    let found = shared.pool.get(&shared, &origin).await;
    let is_mesh = origin.tls == Tls::Mesh;
    let mut load = endpoint.load.borrow_mut();
    load.health.end_proving();
    match found {
        Ok(_) => load.health.prove(),
        Err(lost) => load.lose(lost.cause, is_mesh, Instant::now()),
    }
}

/// A connection to an endpoint; one that was only announced has to show soon who it is, where another one is left.
pub async fn connect(shared: Rc<Shared>, origin: Origin, endpoint: Rc<Endpoint>, has_other: bool) -> Result<Connection, Lost> {
    let health = endpoint.load.borrow().health.clone();
    let getting = shared.pool.get(&shared, &origin);
    let found = if has_other && !health.is_proven() {
        let late = |_| Err(Lost::new(Cause::Connect, format!("no connection within {} s", PROOF.as_secs())));
        tokio::time::timeout(PROOF, getting).await.unwrap_or_else(late)
    } else {
        getting.await
    };
    if found.is_ok() {
        health.prove();
    }
    found
}
