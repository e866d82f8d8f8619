//! Policies that choose the endpoint of a call.

mod by_weight;
mod consistent_hash;
mod least_loaded;

use std::cmp::Ordering as Ordered;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use rand::Rng;
use rand::rngs::SmallRng;

use super::endpoint::Host;
use super::pool::Group;
use crate::algorithm::load::Cost;
use crate::context::Tried;
use crate::sync::{AtomicU64, Ordering};

pub use self::by_weight::{RoundRobin, WeightedRandom};
pub use self::consistent_hash::ConsistentHash;
pub use self::least_loaded::{LeastLoaded, PowerOfChoices};

/// Number of random draws before all endpoints are read.
const DRAWS: u32 = 32;
/// Up to this number of endpoints, all are looked at when those that were drawn are closed.
const FEW: usize = 16;

/// A policy that chooses endpoints.
///
/// [`PowerOfChoices`], the default, suits nearly all uses. The others are [`RoundRobin`], [`WeightedRandom`],
/// [`LeastLoaded`] and [`ConsistentHash`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot choose an endpoint for requests of type `{Req}`",
    note = "a `ConsistentHash` is made for the requests that its closure takes a key from: `ConsistentHash::by(|request: &{Req}| ...)`"
)]
pub trait Choose<Req> {
    /// Returns the place of the endpoint that gets the call. A number that is too high stands for the last endpoint.
    ///
    /// There is at least one endpoint. The method is called in the path of a call.
    fn choose(&self, request: &Req, endpoints: &mut Endpoints<'_>) -> usize;
}

/// Eligibility of an endpoint for a call, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Eligibility {
    /// It takes calls.
    Open,
    /// It takes calls, but another attempt of the same operation was sent there.
    Tried,
    /// It is ejected, unhealthy or not available, or has just refused a call.
    Closed,
    /// It is both closed and tried.
    ClosedAndTried,
}

/// The turns of policies that take one endpoint after the other, shared by all handles of a balancer.
#[derive(Debug, Default)]
pub(super) struct Turns {
    next: AtomicU64,
    /// `true` if, at the last look, each endpoint was open and had its whole weight. It is a hint: a call that finds an
    /// endpoint in another state clears it.
    are_whole: AtomicBool,
}

/// The endpoints of one [priority](super::Endpoint::priority), from which a policy chooses.
#[derive(Debug)]
pub struct Endpoints<'a> {
    pub(super) hosts: &'a [Arc<Host>],
    pub(super) group: &'a Group,
    pub(super) now: u64,
    pub(super) tried: Tried,
    pub(super) turns: &'a Turns,
    pub(super) random: &'a mut SmallRng,
    /// The notes of a policy, which the next call overwrites.
    pub(super) notes: &'a mut Vec<(usize, u64)>,
}

impl Endpoints<'_> {
    /// Returns the number of endpoints; at least one.
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        self.hosts.len()
    }

    /// Returns whether there are no endpoints.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.hosts.is_empty()
    }

    /// Returns the identity of the endpoint at this place.
    ///
    /// # Panics
    ///
    /// This method and the methods below panic if there is no such place.
    #[must_use]
    pub fn key(&self, place: usize) -> &str {
        &self.hosts[place].about.key
    }

    /// Returns whether the endpoint should get the call.
    #[must_use]
    #[inline]
    pub fn eligibility(&self, place: usize) -> Eligibility {
        eligibility_of(&self.hosts[place], self.tried, self.now)
    }

    /// Returns the load of the endpoint in the measure of the balancer, divided by its weight.
    #[must_use]
    #[inline]
    pub fn load(&self, place: usize) -> f64 {
        self.hosts[place].cost(self.now).total()
    }

    /// Returns the calls in flight on the endpoint.
    #[must_use]
    #[inline]
    pub fn in_flight(&self, place: usize) -> u32 {
        self.hosts[place].load.in_flight()
    }

    /// Returns the weight of the endpoint. In slow start it is less than the weight that was set.
    #[must_use]
    #[inline]
    pub fn weight(&self, place: usize) -> f64 {
        self.hosts[place].present_weight(self.now)
    }

    /// Returns the weight that was set, and the share of it that counts: less than 1 in slow start.
    fn weight_and_ramp(&self, place: usize) -> (f64, f64) {
        let host = &self.hosts[place];
        (host.condition.weight(), host.ramp(self.now))
    }

    /// Returns whether all endpoints have equal turns: their weights are equal, none was tried, and all were whole at
    /// the last look.
    fn take_even_turns(&self) -> bool {
        self.turns.are_whole.load(Ordering::Relaxed)
            && self.group.weights.are_equal()
            && self.tried == Tried::default()
    }

    /// Returns whether an endpoint is open and has its whole weight. Clears the hint if not.
    fn is_whole(&self, place: usize) -> bool {
        let is_open = self.eligibility(place) == Eligibility::Open;
        let is_whole = is_open && self.weight_and_ramp(place).1 >= 1.0;
        if !is_whole {
            self.note_whole(false);
        }
        is_whole
    }

    /// Notes whether each endpoint is open and has its whole weight.
    fn note_whole(&self, are_whole: bool) {
        self.turns.are_whole.store(are_whole, Ordering::Relaxed);
    }

    /// Returns the greatest weight that was set.
    #[must_use]
    pub fn max_weight(&self) -> f64 {
        self.group.weights.max()
    }

    /// Returns the next number of a counter that all handles of the balancer share, for policies that take one endpoint
    /// after the other.
    #[must_use]
    pub fn turn(&mut self) -> u64 {
        self.turns.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Returns the next number of the counter, without advancing it.
    fn next_turn(&self) -> u64 {
        self.turns.next.load(Ordering::Relaxed)
    }

    /// Returns a random number below `below`; 0 if that is 0.
    #[must_use]
    #[inline]
    pub fn random_below(&mut self, below: usize) -> usize {
        // The bias is one part in 2³² for each endpoint.
        draw_below(&mut self.random.next_u64(), below)
    }

    /// Draws three different endpoints. If there are only two, the last draw is meaningless.
    #[inline]
    fn draw_three(&mut self) -> [usize; 3] {
        // One random number serves all draws: the rest that a draw leaves decides the next one. The bias of the third
        // is one part in 2¹⁶ for 65,536 endpoints.
        let mut lot = self.random.next_u64();
        let first = draw_below(&mut lot, self.len());
        // A place among the remaining endpoints, and then the same place among all.
        let mut second = draw_below(&mut lot, self.len() - 1);
        second += usize::from(second >= first);
        let mut third = draw_below(&mut lot, self.len() - 2);
        third += usize::from(third >= first.min(second));
        third += usize::from(third >= first.max(second));
        [first, second, third]
    }

    /// Returns a random number from 0 to 1, 1 excluded.
    #[must_use]
    #[inline]
    pub fn random_share(&mut self) -> f64 {
        (self.random.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    #[inline(always)]
    fn rank(&self, place: usize) -> Rank {
        Rank {
            eligibility: self.eligibility(place),
            cost: self.hosts[place].cost(self.now),
        }
    }

    /// Draws an endpoint by the present weights, except the endpoints in `without`, which are in ascending order.
    fn draw_by_weight(&mut self, without: &[usize]) -> usize {
        let mut place = 0;
        for _ in 0..DRAWS {
            place = self.group.weights.draw(self.random_share(), without);
            let ramp = self.hosts[place].ramp(self.now);
            if ramp >= 1.0 || self.random_share() < ramp {
                break;
            }
        }
        place
    }

    /// Chooses an endpoint when all drawn ones are closed. With many endpoints it takes long to read all, so some more
    /// draws come first, and `less_loaded` returns the better of two open ones.
    #[cold]
    fn look_further(
        &mut self,
        draw: impl Fn(&mut Self) -> usize,
        less_loaded: impl Fn(&Self, [usize; 2]) -> usize,
    ) -> usize {
        let draws = if self.len() > FEW { DRAWS } else { 0 };
        let mut found = None;
        for _ in 0..draws {
            let place = draw(self);
            if self.eligibility(place) != Eligibility::Open {
                continue;
            }
            match found {
                Some(one) if one != place => return less_loaded(self, [one, place]),
                _ => found = Some(place),
            }
        }
        // There are few or none that are open.
        found.unwrap_or_else(|| self.draw(|endpoints, place| 1.0 / endpoints.load(place)))
    }

    /// Draws an endpoint of the best eligibility. `lots` returns the number of lots of each.
    #[cold]
    fn draw(&mut self, lots: impl Fn(&Self, usize) -> f64) -> usize {
        let best = best_eligibility(self.hosts, self.tried, self.now);
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

    /// Reads all endpoints and returns the best by eligibility and load; one of the best at random if there are
    /// several.
    fn least(&mut self) -> usize {
        let rank = |endpoints: &Self, place| (endpoints.eligibility(place), endpoints.load(place));
        let (mut chosen, mut least, mut ties) = (0, rank(self, 0), 1);
        for place in 1..self.len() {
            let this = rank(self, place);
            if this < least {
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

/// Draws a number below `below` from a random one, and leaves the rest of it for another draw.
#[inline]
fn draw_below(lot: &mut u64, below: usize) -> usize {
    let product = u128::from(*lot) * below as u128;
    *lot = product as u64;
    (product >> u64::BITS) as usize
}

/// The properties by which drawn endpoints are compared.
#[derive(Clone, Copy)]
struct Rank {
    eligibility: Eligibility,
    cost: Cost,
}

impl Rank {
    const WORST: Self = Self {
        eligibility: Eligibility::ClosedAndTried,
        cost: Cost::INFINITE,
    };

    /// Returns whether the endpoint of this rank should get the call instead of the other one.
    #[inline]
    fn is_better(self, other: Self) -> bool {
        match self.eligibility.cmp(&other.eligibility) {
            Ordered::Less => true,
            Ordered::Equal => self.cost.is_below(other.cost),
            Ordered::Greater => false,
        }
    }
}

#[inline]
fn eligibility_of(host: &Host, tried: Tried, now: u64) -> Eligibility {
    match (host.is_selectable(now), tried.contains(host.id)) {
        (true, false) => Eligibility::Open,
        (true, true) => Eligibility::Tried,
        (false, false) => Eligibility::Closed,
        (false, true) => Eligibility::ClosedAndTried,
    }
}

/// Returns the best eligibility of all. It stops at the first open endpoint.
pub(super) fn best_eligibility(hosts: &[Arc<Host>], tried: Tried, now: u64) -> Eligibility {
    let mut best = Eligibility::ClosedAndTried;
    for host in hosts {
        best = best.min(eligibility_of(host, tried, now));
        if best == Eligibility::Open {
            break;
        }
    }
    best
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::config::Settings;
    use super::super::endpoint::{Endpoint, LoadMetric};
    use super::super::host_set::HostSet;
    use super::*;
    use crate::Availability;
    use crate::context::OperationScope;
    use rand::SeedableRng;
    use std::sync::atomic::AtomicU32;
    use std::time::Duration;

    /// Counts how often it is asked.
    #[derive(Clone, Default)]
    pub(super) struct Looks(pub(super) Arc<AtomicU32>);

    impl Availability for Looks {
        fn is_available(&self) -> bool {
            self.0.fetch_add(1, Ordering::Relaxed);
            true
        }
    }

    /// Endpoints "0", "1" and so on of these weights, whose loads are their calls in flight.
    pub(super) struct Pool {
        pub(super) hosts: Vec<Arc<Host>>,
        pub(super) random: SmallRng,
        group: Group,
        turns: Turns,
        now: u64,
    }

    impl Pool {
        pub(super) fn new(weights: &[f64]) -> Self {
            Self::of(weights, |endpoint| endpoint)
        }

        /// The same with endpoints that `with` has changed.
        pub(super) fn of(weights: &[f64], with: impl Fn(Endpoint<()>) -> Endpoint<()>) -> Self {
            let settings = Settings {
                measure: LoadMetric::InFlight,
                slow_start: Duration::from_secs(1),
                ejection: None,
                ..Settings::default()
            };
            let host_set = Arc::new(HostSet::new(
                "choose",
                settings,
                crate::telemetry::Listener::default(),
            ));
            let host = |(key, weight): (usize, &f64)| {
                let endpoint = with(Endpoint::new(key, ()).weight(*weight));
                Arc::new(Host::new(endpoint.about, &host_set, 0.0, 0, false))
            };
            let hosts: Vec<_> = weights.iter().enumerate().map(host).collect();
            Self {
                group: Group::new(0, &hosts),
                hosts,
                random: SmallRng::seed_from_u64(1),
                turns: Turns::default(),
                now: 0,
            }
        }

        /// They begin a slow start of 1 s.
        pub(super) fn starting(self) -> Self {
            for host in &self.hosts {
                host.peers.update(0, |change| change.found(host, false));
                host.peers.update(0, |change| change.found(host, true));
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
            let mut endpoints = Endpoints {
                hosts: &self.hosts,
                group: &self.group,
                now: self.now,
                tried,
                turns: &self.turns,
                random: &mut self.random,
                notes: &mut Vec::new(),
            };
            policy.choose(&request, &mut endpoints)
        }

        /// Returns the share of the choices of each endpoint.
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
            let _scope = OperationScope::enter(None, None, Tried::default(), None);
            crate::context::note_tried(pool.hosts[0].id);
            pool.random = SmallRng::seed_from_u64(1);
            assert_eq!(pool.choose_again(&PowerOfChoices), expected);
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
