//! Which endpoint a call goes to.

mod consistent_hash;
mod least_loaded;
mod power_of_choices;
mod round_robin;
mod weighted_random;

use std::cmp::Ordering as Ordered;
use std::sync::Arc;

use rand::Rng;
use rand::rngs::SmallRng;

use super::endpoint::Host;
use crate::context::Tried;
use crate::sync::{AtomicU64, Ordering};

pub use self::consistent_hash::ConsistentHash;
pub use self::least_loaded::LeastLoaded;
pub use self::power_of_choices::PowerOfChoices;
pub use self::round_robin::RoundRobin;
pub use self::weighted_random::WeightedRandom;

/// How often an endpoint is drawn at random before all are looked at.
const DRAWS: u32 = 32;

/// A rule by which endpoints are chosen.
///
/// [`PowerOfChoices`], the default, suits nearly everybody. The others are [`RoundRobin`], [`WeightedRandom`],
/// [`LeastLoaded`] and [`ConsistentHash`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot choose an endpoint for requests of type `{Req}`",
    note = "a `ConsistentHash` is made for the requests that its closure takes a key from: `ConsistentHash::by(|request: &{Req}| ...)`"
)]
pub trait Choose<Req> {
    /// Returns the place of the endpoint that gets the call; one that is too high is taken for the last.
    ///
    /// There is at least one endpoint. Called in the path of a call.
    fn choose(&self, request: &Req, endpoints: &mut Endpoints<'_>) -> usize;
}

/// How much is in favour of an endpoint. The least is best.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Eligibility {
    /// It takes calls.
    Open,
    /// It takes calls, but another attempt of the same operation was sent there.
    Tried,
    /// It is ejected, unhealthy or not available, or has just refused a call.
    Closed,
    /// Closed, and tried.
    ClosedAndTried,
}

/// An endpoint that is compared.
#[derive(Clone, Copy, Debug)]
struct Rank {
    eligibility: Eligibility,
    load: f64,
    place: usize,
}

/// The endpoints to choose from: those of one [priority](super::Endpoint::priority).
#[derive(Debug)]
pub struct Endpoints<'a> {
    hosts: &'a [Arc<Host>],
    max_weight: f64,
    now: u64,
    tried: Tried,
    cursor: &'a AtomicU64,
    random: &'a mut SmallRng,
}

impl<'a> Endpoints<'a> {
    #[inline]
    pub(super) fn new(
        hosts: &'a [Arc<Host>],
        max_weight: f64,
        now: u64,
        tried: Tried,
        cursor: &'a AtomicU64,
        random: &'a mut SmallRng,
    ) -> Self {
        Self {
            hosts,
            max_weight,
            now,
            tried,
            cursor,
            random,
        }
    }

    /// How many there are; at least one.
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        self.hosts.len()
    }

    /// Says whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.hosts.is_empty()
    }

    /// What tells the endpoint at this place from the others.
    ///
    /// # Panics
    ///
    /// This and the methods below, if there is no such place.
    #[must_use]
    pub fn key(&self, place: usize) -> &str {
        &self.hosts[place].key
    }

    /// Says whether the endpoint should get the call.
    #[must_use]
    #[inline]
    pub fn eligibility(&self, place: usize) -> Eligibility {
        let host = &self.hosts[place];
        let is_tried = self.tried.contains(host.id);
        match (host.is_selectable(self.now), is_tried) {
            (true, false) => Eligibility::Open,
            (true, true) => Eligibility::Tried,
            (false, false) => Eligibility::Closed,
            (false, true) => Eligibility::ClosedAndTried,
        }
    }

    /// The load of the endpoint, in the measure of the balancer, for its weight.
    #[must_use]
    #[inline]
    pub fn load(&self, place: usize) -> f64 {
        self.hosts[place].cost(self.now)
    }

    /// The calls in flight on the endpoint.
    #[must_use]
    #[inline]
    pub fn in_flight(&self, place: usize) -> u32 {
        self.hosts[place].load.in_flight()
    }

    /// The weight of the endpoint; in slow start less than what was set.
    #[must_use]
    #[inline]
    pub fn weight(&self, place: usize) -> f64 {
        self.hosts[place].present_weight(self.now)
    }

    /// The weight that was set, and the share of it that counts: less than 1 in slow start.
    fn weight_and_ramp(&self, place: usize) -> (f64, f64) {
        let host = &self.hosts[place];
        (host.weight(), host.ramp(self.now))
    }

    /// The greatest weight that was set.
    #[must_use]
    pub fn max_weight(&self) -> f64 {
        self.max_weight
    }

    /// A number that is higher by one each time that a policy asks, whichever handle of the balancer is called: for those
    /// that take one endpoint after the other.
    #[must_use]
    pub fn turn(&mut self) -> u64 {
        self.cursor.fetch_add(1, Ordering::Relaxed)
    }

    /// The number that the next one to ask gets.
    fn next_turn(&self) -> u64 {
        self.cursor.load(Ordering::Relaxed)
    }

    /// A random number below `below`; 0 if that is 0.
    #[must_use]
    #[inline]
    pub fn random_below(&mut self, below: usize) -> usize {
        // One part in 2³² off even for each endpoint.
        ((u128::from(self.random.next_u64()) * below as u128) >> u64::BITS) as usize
    }

    /// A random number from 0 to 1, without 1.
    #[must_use]
    #[inline]
    pub fn random_share(&mut self) -> f64 {
        (self.random.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    #[inline]
    fn rank(&self, place: usize) -> Rank {
        Rank {
            eligibility: self.eligibility(place),
            load: self.load(place),
            place,
        }
    }

    /// The better one of two.
    #[inline]
    fn lighter(&self, one: Rank, place: usize) -> Rank {
        let other = self.rank(place);
        let is_better = match other.eligibility.cmp(&one.eligibility) {
            Ordered::Less => true,
            Ordered::Equal => other.load < one.load,
            Ordered::Greater => false,
        };
        if is_better { other } else { one }
    }

    /// The best eligibility of all, by looking at all until one is open.
    pub(super) fn best_eligibility(&self) -> Eligibility {
        let mut best = Eligibility::ClosedAndTried;
        for place in 0..self.len() {
            best = best.min(self.eligibility(place));
            if best == Eligibility::Open {
                break;
            }
        }
        best
    }

    /// The less loaded one of two open endpoints, by drawing some more at random. `None` if none is found: there are few or
    /// none that are open.
    #[cold]
    fn redraw(&mut self) -> Option<usize> {
        let mut found = None;
        for _ in 0..DRAWS {
            let place = self.random_below(self.len());
            if self.eligibility(place) != Eligibility::Open {
                continue;
            }
            match found {
                Some(one) if one != place => {
                    let is_lighter = self.load(place) < self.load(one);
                    return Some(if is_lighter { place } else { one });
                }
                _ => found = Some(place),
            }
        }
        found
    }

    /// Chooses among those of the best eligibility by drawing lots: each has as many as `lots` says.
    #[cold]
    fn draw(&mut self, lots: impl Fn(&Self, usize) -> f64) -> usize {
        let best = self.best_eligibility();
        let (mut chosen, mut total) = (0, 0.0);
        for place in 0..self.len() {
            if self.eligibility(place) == best {
                let lots = lots(self, place);
                total += lots;
                if self.random_share() * total < lots {
                    chosen = place;
                }
            }
        }
        chosen
    }

    /// The best by eligibility and `rank`, by looking at all; one of the best at random if there are several.
    fn least(&mut self, rank: impl Fn(&Self, usize) -> f64) -> usize {
        let (mut chosen, mut ties) = (0, 0);
        let mut least = (Eligibility::ClosedAndTried, f64::INFINITY);
        for place in 0..self.len() {
            let this = (self.eligibility(place), rank(self, place));
            if this < least || ties == 0 {
                (chosen, least, ties) = (place, this, 1);
            } else if this == least {
                ties += 1;
                if self.random_below(ties) == 0 {
                    chosen = place;
                }
            }
        }
        chosen
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::endpoint::{Endpoint, LoadMetric, PoolContext, Settings};
    use super::super::host_set::HostSet;
    use super::super::load;
    use super::super::priority::Failover;
    use super::*;
    use crate::context::OperationScope;
    use crate::random::Random;
    use crate::telemetry::Series;
    use rand::SeedableRng;
    use std::time::Duration;
    use tokio::time::Instant;

    /// Endpoints "0", "1" and so on of these weights, whose loads are their calls in flight.
    pub(super) struct Pool {
        pub(super) hosts: Vec<Arc<Host>>,
        pub(super) random: SmallRng,
        cursor: AtomicU64,
        now: u64,
    }

    const SECOND: Duration = Duration::from_secs(1);

    impl Pool {
        pub(super) fn new(weights: &[f64]) -> Self {
            let context = PoolContext {
                origin: Instant::now(),
                settings: Settings {
                    measure: LoadMetric::InFlight,
                    load: load::Settings::new(SECOND, SECOND, SECOND),
                    slow_start: SECOND,
                    labels: None,
                },
            };
            let series = Series::of("choose", "balance");
            let host_set =
                HostSet::new(context, None, Failover::new(), Random::new(Some(1)), series);
            let host_set = Arc::new(host_set);
            let host = |(key, weight): (usize, &f64)| {
                let endpoint = Endpoint::new(key, ()).weight(*weight);
                Arc::new(Host::new(&endpoint, context, &host_set, 0.0, 0, false))
            };
            Self {
                hosts: weights.iter().enumerate().map(host).collect(),
                random: SmallRng::seed_from_u64(1),
                cursor: AtomicU64::new(0),
                now: 0,
            }
        }

        /// They begin a slow start of 1 s.
        pub(super) fn starting(self) -> Self {
            for host in &self.hosts {
                host.condition.found(false, 0);
                host.condition.found(true, 0);
            }
            self
        }

        pub(super) fn at(mut self, millis: u64) -> Self {
            self.now = millis * 1_000_000;
            self
        }

        pub(super) fn even(count: usize) -> Self {
            Self::new(&vec![1.0; count])
        }

        pub(super) fn busy(self, place: usize, calls: u32) -> Self {
            for _ in 0..calls {
                self.hosts[place].load.begin(0);
            }
            self
        }

        pub(super) fn closed(self, indices: &[usize]) -> Self {
            for place in indices {
                self.hosts[*place].condition.refused(u64::MAX);
            }
            self
        }

        pub(super) fn choose(&mut self, policy: &impl Choose<u64>, request: u64) -> usize {
            self.choose_of(policy, request, Tried::default())
        }

        /// Not an endpoint that was tried.
        pub(super) fn choose_again(&mut self, policy: &impl Choose<u64>) -> usize {
            self.choose_of(policy, 0, crate::context::tried())
        }

        fn choose_of(&mut self, policy: &impl Choose<u64>, request: u64, tried: Tried) -> usize {
            let weights = self.hosts.iter().map(|host| host.weight());
            let max_weight = weights.fold(0.0, f64::max);
            let (hosts, cursor, random) = (&self.hosts, &self.cursor, &mut self.random);
            let now = self.now;
            let mut endpoints = Endpoints::new(hosts, max_weight, now, tried, cursor, random);
            policy.choose(&request, &mut endpoints)
        }

        /// How often each is chosen, as a share.
        pub(super) fn shares(&mut self, policy: &impl Choose<u64>) -> Vec<f64> {
            const CALLS: u64 = 50_000;
            let mut counts = vec![0u32; self.hosts.len()];
            for request in 0..CALLS {
                counts[self.choose(policy, request)] += 1;
            }
            let share = |count: u32| f64::from(count) / CALLS as f64;
            counts.into_iter().map(share).collect()
        }
    }

    #[track_caller]
    pub(super) fn assert_shares(shares: &[f64], expected: &[f64]) {
        let is_near = |(share, expected): (&f64, &f64)| (share - expected).abs() < 0.01;
        let are_near = shares.iter().zip(expected).all(is_near);
        assert!(are_near, "{shares:?} is not {expected:?}");
    }

    #[test]
    fn endpoints_of_equal_load_get_equal_shares() {
        for count in [1, 2, 3, 4, 16, 17, 40] {
            let even = vec![1.0 / count as f64; count];
            assert_shares(&Pool::even(count).shares(&PowerOfChoices), &even);
            assert_shares(&Pool::even(count).shares(&LeastLoaded), &even);
        }
    }

    #[test]
    fn closed_endpoints_are_not_chosen_while_another_is_open() {
        let closed: Vec<usize> = (1..40).collect();
        let mut pool = Pool::even(40).busy(0, 100).closed(&closed);
        for request in 0..1_000 {
            let by_key = ConsistentHash::by(|request: &u64| *request);
            let indices = [
                pool.choose(&PowerOfChoices, request),
                pool.choose(&RoundRobin, request),
                pool.choose(&WeightedRandom, request),
                pool.choose(&LeastLoaded, request),
                pool.choose(&by_key, request),
            ];
            assert_eq!(indices, [0; 5]);
        }
    }

    #[test]
    fn closed_endpoints_share_the_calls_if_all_are_closed() {
        let all: Vec<usize> = (0..5).collect();
        for count in [2, 5] {
            let mut pool = Pool::even(count).closed(&all[..count]);
            let even = vec![1.0 / count as f64; count];
            assert_shares(&pool.shares(&PowerOfChoices), &even);
            assert_shares(&pool.shares(&WeightedRandom), &even);
            assert_shares(&pool.shares(&RoundRobin), &even);
        }
    }

    #[test]
    fn an_endpoint_that_was_tried_is_chosen_only_if_no_other_is_open() {
        let mut pool = Pool::even(3).closed(&[1]);
        for (is_closed, expected) in [(false, 2), (true, 0)] {
            if is_closed {
                pool = pool.closed(&[2]);
            }
            let _scope = OperationScope::enter(None, None, Tried::default());
            crate::context::note_tried(pool.hosts[0].id);
            let tried = crate::context::tried();
            let random = &mut SmallRng::seed_from_u64(1);
            let mut endpoints = Endpoints::new(&pool.hosts, 1.0, 0, tried, &pool.cursor, random);
            assert_eq!(PowerOfChoices.choose(&0u64, &mut endpoints), expected);
        }
    }

    #[test]
    fn weights_are_shares() {
        let mut pool = Pool::new(&[1.0, 2.0, 5.0]);
        let expected = [0.125, 0.25, 0.625];
        assert_shares(&pool.shares(&WeightedRandom), &expected);
        assert_shares(&pool.shares(&RoundRobin), &expected);
        let by_key = ConsistentHash::by(|request: &u64| *request);
        assert_shares(&pool.shares(&by_key), &expected);
    }
}
