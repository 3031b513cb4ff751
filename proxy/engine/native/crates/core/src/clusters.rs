//! The clusters pushed to the engine, with the load and health of each address.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use crate::call::balance::{Health, Load};
use crate::call::choosing::{self, Balancing, Candidate};
use crate::call::outliers::{Member, Outliers, Watch};
use crate::connection::tls::Verified;
use crate::connection::via::Via;
use crate::fields::Headers;

const MAX_AWAY: usize = 1_024; // addresses of a cluster
const MAX_PROVING: usize = 2;

/// What is spoken to an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Wire {
    /// HTTP/2 between proxies.
    Postern,
    Http1,
    H2c,
}

/// How the connection is secured.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Tls {
    None,
    /// The pushed identity, and the route's `expect` is checked.
    Mesh,
    /// Not verified: our own app, on this host.
    App,
    /// A server outside of the mesh.
    Verified(Arc<Verified>),
}

/// Where a route leads, as pushed.
#[derive(Clone, Debug)]
pub struct Cluster {
    pub key: Arc<str>,
    pub wire: Wire,
    pub tls: Tls,
    pub upstreams: Vec<Upstream>,
    /// What is at its addresses, in errors.
    pub who: Arc<str>,
    /// What stands before them.
    pub via: Option<Arc<Via>>,
    pub balancing: Balancing,
    pub outliers: Option<Outliers>,
}

/// One address of a cluster. `rank`: among those that no certificate has proven yet, lower before higher.
#[derive(Clone, Debug)]
pub struct Upstream {
    pub address: Arc<str>,
    pub weight: u32,
    pub rank: u8,
}

/// One address with what is known of it.
#[derive(Debug)]
pub struct Endpoint {
    pub address: Arc<str>,
    mark: u64,
    pub load: RefCell<Load>,
}

/// One cluster as it stands. `turn`: of round-robin.
#[derive(Debug)]
pub struct ClusterState {
    pub cluster: Cluster,
    pub endpoints: Vec<Rc<Endpoint>>,
    turn: Cell<f64>,
}

impl ClusterState {
    /// The endpoint for an attempt at a request with these headers.
    pub fn pick(&self, tried: &[Arc<str>], headers: &Headers, now: Instant) -> Option<Rc<Endpoint>> {
        if let [only] = &self.endpoints[..] {
            return Some(only.clone());
        }
        let borrowed: Vec<_> = self.endpoints.iter().map(|endpoint| endpoint.load.borrow()).collect();
        let candidates = borrowed.iter().zip(&self.endpoints).map(|(load, endpoint)| Candidate {
            load,
            mark: endpoint.mark,
            is_tried: tried.contains(&endpoint.address),
        });
        let all: Vec<Candidate<'_>> = candidates.collect();
        let order = self.cluster.balancing.order(headers, &self.turn);
        choosing::choose(&all, now, fastrand::f64, order).map(|place| self.endpoints[place].clone())
    }

    /// An endpoint to connect to beside a call to `but`, so that it may take calls.
    pub fn to_prove(&self, but: &str, now: Instant) -> Option<Rc<Endpoint>> {
        let mut proving = 0;
        let mut first: Option<((i32, u8), &Rc<Endpoint>)> = None;
        for endpoint in &self.endpoints {
            let load = endpoint.load.borrow();
            if load.health.is_proven() {
                continue;
            }
            proving += usize::from(load.health.is_proving());
            if let Some(turn) = load.health.turn(now).map(|mismatches| (mismatches, load.rank)) {
                if *endpoint.address != *but && first.is_none_or(|(before, _)| turn < before) {
                    first = Some((turn, endpoint));
                }
            }
        }
        let (_, endpoint) = first.filter(|_| proving < MAX_PROVING)?;
        endpoint.load.borrow().health.begin_proving().then(|| endpoint.clone())
    }

    /// Whether another address is left to try.
    pub fn has_untried(&self, tried: &[Arc<str>]) -> bool {
        self.endpoints.iter().any(|endpoint| !tried.contains(&endpoint.address))
    }
}

/// Clusters by key.
#[derive(Debug, Default)]
pub struct Clusters {
    known: HashMap<Arc<str>, ClusterState, foldhash::fast::RandomState>,
}

impl Clusters {
    /// The cluster, if it was pushed.
    pub fn get(&self, key: &str) -> Option<&ClusterState> {
        self.known.get(key)
    }

    /// What is at a cluster's addresses, in errors; in memory of this worker's own, as each connection holds it.
    pub fn who(&self, key: &str) -> Arc<str> {
        self.known.get(key).map_or("the app", |state| &*state.cluster.who).into()
    }

    /// Add or replace; loads of addresses that stay are kept. `health`: of each upstream. Returns the addresses that are gone.
    pub fn put(&mut self, cluster: Cluster, health: Vec<Arc<Health>>, watch: Option<&Arc<Watch>>) -> Vec<Arc<str>> {
        let (old, turn) = self.known.remove(&cluster.key).map(|state| (state.endpoints, state.turn)).unwrap_or_default();
        // By address: hostile announcements may push a thousand, time and again.
        let mut by_address: HashMap<Arc<str>, Rc<Endpoint>> =
            old.into_iter().map(|endpoint| (endpoint.address.clone(), endpoint)).collect();
        let endpoints = cluster
            .upstreams
            .iter()
            .zip(health)
            .map(|(Upstream { address, weight, rank }, health)| {
                // An address of this worker's own: each call counts its holders, and workers that shared one would slow each other.
                let made = || Endpoint {
                    address: (**address).into(),
                    mark: choosing::hash_of(address.as_bytes()),
                    load: RefCell::new(Load::new(*weight, *rank, health)),
                };
                let endpoint = by_address.remove(address).unwrap_or_else(|| Rc::new(made()));
                endpoint.load.borrow_mut().describe(*weight, *rank, watch);
                endpoint
            })
            .collect();
        let state = ClusterState { cluster, endpoints, turn };
        let gone = by_address.into_keys().collect();
        self.known.insert(state.cluster.key.clone(), state);
        gone
    }

    /// Forget a cluster; returns its addresses.
    pub fn drop(&mut self, key: &str) -> Vec<Arc<str>> {
        let state = self.known.remove(key);
        state.map(|state| state.endpoints.iter().map(|endpoint| endpoint.address.clone()).collect()).unwrap_or_default()
    }
}

/// The health of every endpoint that was pushed, for all workers to share.
#[derive(Debug, Default)]
pub struct HealthRegistry {
    known: HashMap<Arc<str>, Healths>,
}

/// Of one cluster. `away`: of addresses that are gone and were seen to be somebody else's; announcing them again gains nothing.
#[derive(Debug, Default)]
struct Healths {
    now: HashMap<Arc<str>, Arc<Health>>,
    away: HashMap<Arc<str>, Arc<Health>>,
}

impl HealthRegistry {
    /// Of each upstream of a cluster; that of addresses that stay is kept.
    pub fn put(&mut self, cluster: &Cluster) -> Vec<Arc<Health>> {
        let mut old = self.known.remove(&cluster.key).unwrap_or_default();
        let mut known = Healths::default();
        let mut take = |address: &Arc<str>| {
            let kept = old.now.remove(address).or_else(|| old.away.remove(address));
            kept.unwrap_or_else(|| Arc::new(Health::new(cluster.wire != Wire::Postern)))
        };
        let health: Vec<_> = cluster.upstreams.iter().map(|upstream| take(&upstream.address)).collect();
        let addresses = cluster.upstreams.iter().map(|upstream| upstream.address.clone());
        known.now = addresses.zip(health.iter().cloned()).collect();
        known.away = old.away;
        let gone = old.now.into_iter().filter(|(_, health)| health.is_put_away());
        known.away.extend(gone.take(MAX_AWAY.saturating_sub(known.away.len())));
        self.known.insert(cluster.key.clone(), known);
        health
    }

    /// The outliers of a cluster of two or more, where it has rules for any; else nothing is held against any endpoint.
    pub fn watch(cluster: &Cluster, health: &[Arc<Health>]) -> Option<Arc<Watch>> {
        let Some(rules) = cluster.outliers.as_ref().filter(|_| health.len() > 1) else {
            for health in health {
                health.answers.readmit();
            }
            return None;
        };
        let member = |(upstream, health): (&Upstream, &Arc<Health>)| Member {
            address: upstream.address.clone(),
            rank: upstream.rank,
            health: health.clone(),
        };
        let members = cluster.upstreams.iter().zip(health).map(member).collect();
        Some(Watch::new(cluster.key.clone(), rules.clone(), members))
    }

    /// Forget a cluster.
    pub fn forget(&mut self, key: &str) {
        self.known.remove(key);
    }

    /// Hold nothing against any endpoint.
    pub fn restore(&mut self) {
        for healths in self.known.values_mut() {
            healths.away.clear();
            healths.now.values().for_each(|health| health.restore());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_stays_with_an_address_until_it_is_pushed_no_more() {
        let cluster = |addresses: &[&str]| Cluster {
            key: "c".into(),
            wire: Wire::Http1,
            tls: Tls::None,
            upstreams: addresses.iter().map(|address| Upstream { address: (*address).into(), weight: 1, rank: 0 }).collect(),
            who: "the app".into(),
            via: None,
            balancing: Balancing::default(),
            outliers: None,
        };
        let mut registry = HealthRegistry::default();
        let first = registry.put(&cluster(&["a", "b"]));
        let second = registry.put(&cluster(&["b", "c"]));
        assert!(Arc::ptr_eq(&first[1], &second[0]));
        let third = registry.put(&cluster(&["a", "b"]));
        assert!(!Arc::ptr_eq(&first[0], &third[0]) && Arc::ptr_eq(&first[1], &third[1]));
        registry.forget("c");
        assert!(!Arc::ptr_eq(&first[1], &registry.put(&cluster(&["b"]))[0]));
    }
}
