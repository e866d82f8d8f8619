//! Which endpoint a call goes to.

use std::cmp::Ordering as Ordered;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use rand::Rng;
use rand::rngs::SmallRng;

use super::endpoint::Member;
use crate::context::Tried;
use crate::sync::{AtomicU64, Ordering};

/// Up to this number of endpoints, three are compared. With few endpoints it takes no more than two bad ones
/// for a comparison of two to find both of them bad, in one of 45 calls with ten endpoints.
const FEW: usize = 16;
/// How often an endpoint is drawn at random before all are looked at.
const DRAWS: u32 = 32;
/// The least that `HAProxy` advises: few keys move, and no endpoint has much more to do than the others.
const SPARE: u32 = 25;

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
pub enum Standing {
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
    standing: Standing,
    load: f64,
    place: usize,
}

/// The endpoints to choose from: those of one [priority](super::Endpoint::priority).
#[derive(Debug)]
pub struct Endpoints<'a> {
    members: &'a [Arc<Member>],
    heaviest: f64,
    now: u64,
    tried: Tried,
    random: &'a mut SmallRng,
}

impl<'a> Endpoints<'a> {
    #[inline]
    pub(super) fn new(
        members: &'a [Arc<Member>],
        heaviest: f64,
        now: u64,
        tried: Tried,
        random: &'a mut SmallRng,
    ) -> Self {
        Self {
            members,
            heaviest,
            now,
            tried,
            random,
        }
    }

    /// How many there are; at least one.
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Says whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// What tells the endpoint at this place from the others.
    ///
    /// # Panics
    ///
    /// This and the methods below, if there is no such place.
    #[must_use]
    pub fn key(&self, place: usize) -> &str {
        &self.members[place].key
    }

    /// Says whether the endpoint should get the call.
    #[must_use]
    #[inline]
    pub fn standing(&self, place: usize) -> Standing {
        let member = &self.members[place];
        let is_tried = self.tried.contains(member.id);
        match (member.is_selectable(self.now), is_tried) {
            (true, false) => Standing::Open,
            (true, true) => Standing::Tried,
            (false, false) => Standing::Closed,
            (false, true) => Standing::ClosedAndTried,
        }
    }

    /// The load of the endpoint, in the measure of the balancer, for its weight.
    #[must_use]
    #[inline]
    pub fn load(&self, place: usize) -> f64 {
        self.members[place].cost(self.now)
    }

    /// The calls in flight on the endpoint.
    #[must_use]
    #[inline]
    pub fn in_flight(&self, place: usize) -> u32 {
        self.members[place].load.in_flight()
    }

    /// The weight of the endpoint; in slow start less than what was set.
    #[must_use]
    #[inline]
    pub fn weight(&self, place: usize) -> f64 {
        self.members[place].present_weight(self.now)
    }

    /// The greatest weight that was set.
    #[must_use]
    pub fn heaviest(&self) -> f64 {
        self.heaviest
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
            standing: self.standing(place),
            load: self.load(place),
            place,
        }
    }

    /// The better one of two.
    #[inline]
    fn lighter(&self, one: Rank, place: usize) -> Rank {
        let other = self.rank(place);
        let is_better = match other.standing.cmp(&one.standing) {
            Ordered::Less => true,
            Ordered::Equal => other.load < one.load,
            Ordered::Greater => false,
        };
        if is_better { other } else { one }
    }

    /// The best standing of all, by looking at all until one is open.
    pub(super) fn best_standing(&self) -> Standing {
        let mut best = Standing::ClosedAndTried;
        for place in 0..self.len() {
            best = best.min(self.standing(place));
            if best == Standing::Open {
                break;
            }
        }
        best
    }

    /// Chooses among those of the best standing by drawing lots: each has as many as `lots` says.
    #[cold]
    fn draw(&mut self, lots: impl Fn(&Self, usize) -> f64) -> usize {
        let best = self.best_standing();
        let (mut chosen, mut total) = (0, 0.0);
        for place in 0..self.len() {
            if self.standing(place) == best {
                let lots = lots(self, place);
                total += lots;
                if self.random_share() * total < lots {
                    chosen = place;
                }
            }
        }
        chosen
    }

    /// The best by standing and `rank`, by looking at all; one of the best at random if there are several.
    fn least(&mut self, rank: impl Fn(&Self, usize) -> f64) -> usize {
        let (mut chosen, mut ties) = (0, 0);
        let mut least = (Standing::ClosedAndTried, f64::INFINITY);
        for place in 0..self.len() {
            let this = (self.standing(place), rank(self, place));
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

/// The least loaded of a few endpoints drawn at random, each of them once: three up to 16 endpoints, else two. The
/// default.
///
/// Nearly as good as the least loaded of all, and no herd runs after the one that looks best.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PowerOfChoices;

impl<Req> Choose<Req> for PowerOfChoices {
    #[inline]
    fn choose(&self, _request: &Req, endpoints: &mut Endpoints<'_>) -> usize {
        let count = endpoints.len();
        let draws = if count <= FEW { 3 } else { 2 };
        if count == 1 {
            return 0;
        }
        let first = endpoints.random_below(count);
        // A place among those that are left, and then the place that it is among all.
        let mut second = endpoints.random_below(count - 1);
        second += usize::from(second >= first);
        // Of equal ones the first: they come in random order.
        let mut chosen = endpoints.lighter(endpoints.rank(first), second);
        if draws == 3 && count > 2 {
            let mut third = endpoints.random_below(count - 2);
            third += usize::from(third >= first.min(second));
            third += usize::from(third >= first.max(second));
            chosen = endpoints.lighter(chosen, third);
        }
        if chosen.standing == Standing::Open || count <= draws {
            return chosen.place;
        }
        // All of these are closed. There may be others, of which the lightly loaded ones are to be favoured.
        endpoints.draw(|endpoints, place| 1.0 / endpoints.load(place))
    }
}

/// One endpoint after the other, as often as its weight says.
#[derive(Clone, Debug, Default)]
pub struct RoundRobin {
    turn: Arc<AtomicU64>,
}

impl PartialEq for RoundRobin {
    /// Two are equal if they take turns together.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.turn, &other.turn)
    }
}

impl<Req> Choose<Req> for RoundRobin {
    fn choose(&self, _request: &Req, endpoints: &mut Endpoints<'_>) -> usize {
        let count = endpoints.len() as u64;
        // In each round an endpoint has its turn if its turns so far are less than its share of the rounds.
        for _ in 0..4 * count {
            let turn = self.turn.fetch_add(1, Ordering::Relaxed);
            let (round, place) = ((turn / count) as f64, (turn % count) as usize);
            if endpoints.standing(place) != Standing::Open {
                continue;
            }
            let share = endpoints.weight(place) / endpoints.heaviest();
            if ((round + 1.0) * share).floor() > (round * share).floor() {
                return place;
            }
        }
        endpoints.draw(Endpoints::weight)
    }
}

/// An endpoint at random, as often as its weight says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WeightedRandom;

impl<Req> Choose<Req> for WeightedRandom {
    fn choose(&self, _request: &Req, endpoints: &mut Endpoints<'_>) -> usize {
        for _ in 0..DRAWS {
            let place = endpoints.random_below(endpoints.len());
            let share = endpoints.weight(place) / endpoints.heaviest();
            let is_drawn = share >= 1.0 || endpoints.random_share() < share;
            if is_drawn && endpoints.standing(place) == Standing::Open {
                return place;
            }
        }
        endpoints.draw(Endpoints::weight)
    }
}

/// The least loaded of all endpoints. Looks at each of them.
///
/// With [`Measure::InFlight`](super::Measure::InFlight) this is what other balancers call least connections or least
/// requests. With many clients that measure latency for themselves, all of them go after the same endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeastLoaded;

impl<Req> Choose<Req> for LeastLoaded {
    fn choose(&self, _request: &Req, endpoints: &mut Endpoints<'_>) -> usize {
        endpoints.least(Endpoints::load)
    }
}

/// The same endpoint for all requests with one key, unless it has much more to do than the others.
///
/// By weighted rendezvous hashing: when an endpoint goes, only its requests move. An endpoint that has more than
/// 1.25 times its share of the calls in flight is passed over, as in consistent hashing with bounded loads. Looks
/// at each of the endpoints.
///
/// # Examples
///
/// ```
/// use buttress::balance::{Balance, ConsistentHash, Endpoint};
///
/// struct Query { user: u64, text: String }
///
/// # let client = tower::service_fn(|_: Query| async { Ok::<_, buttress::BoxError>(()) });
/// let search = Balance::config("search")
///     .choose(ConsistentHash::by(|query: &Query| query.user))
///     .build([Endpoint::new("a", client), Endpoint::new("b", client)])?;
/// # let _ = tower::ServiceExt::<Query>::oneshot(search, Query { user: 1, text: String::new() });
/// # Ok::<(), buttress::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConsistentHash<F> {
    key: F,
    /// In percent of its share; `None` if there is no bound.
    spare: Option<u32>,
}

impl<F> ConsistentHash<F> {
    /// Takes the key of a request with `key`. The hash is the same in all processes of one build.
    pub fn by<Req, H>(key: F) -> Self
    where
        F: Fn(&Req) -> H,
        H: Hash,
    {
        Self {
            key,
            spare: Some(SPARE),
        }
    }

    /// How many percent more than its share of the calls in flight an endpoint may have before it is passed over. 25 by
    /// default.
    ///
    /// With 0, calls are spread as evenly as can be, and a key moves often; with 100, the endpoint of a hot key takes
    /// twice its share.
    #[must_use]
    pub fn spare(mut self, percent: u32) -> Self {
        self.spare = Some(percent);
        self
    }

    /// Passes over no endpoint because it has much to do: for requests that should not go anywhere else.
    ///
    /// One that is ejected, unhealthy or not available is passed over nevertheless.
    #[must_use]
    pub fn unbounded(mut self) -> Self {
        self.spare = None;
        self
    }
}

impl<Req, F, H> Choose<Req> for ConsistentHash<F>
where
    F: Fn(&Req) -> H,
    H: Hash,
{
    fn choose(&self, request: &Req, endpoints: &mut Endpoints<'_>) -> usize {
        let key = (self.key)(request);
        let (mut calls, mut weights) = (1.0, 0.0);
        for place in 0..endpoints.len() {
            calls += f64::from(endpoints.in_flight(place));
            weights += endpoints.weight(place);
        }
        let is_full = |endpoints: &Endpoints<'_>, place| {
            self.spare.is_some_and(|spare| {
                let share = calls * endpoints.weight(place) / weights;
                let most = (share * (1.0 + f64::from(spare) / 100.0)).ceil();
                f64::from(endpoints.in_flight(place)) >= most
            })
        };
        let mut chosen = (Standing::ClosedAndTried, true, f64::INFINITY, 0);
        for place in 0..endpoints.len() {
            let mut hasher = Fnv::default();
            (&key, endpoints.key(place)).hash(&mut hasher);
            let share = (hasher.finish() >> 11) as f64 / (1u64 << 53) as f64;
            let score = -share.max(f64::MIN_POSITIVE).ln() / endpoints.members[place].weight();
            let this = (
                endpoints.standing(place),
                is_full(endpoints, place),
                score,
                place,
            );
            if this < chosen {
                chosen = this;
            }
        }
        chosen.3
    }
}

/// FNV-1a with a finish that mixes: hashes that do not change from run to run, as those of the standard library may.
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher for Fnv {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn finish(&self) -> u64 {
        let mixed = (self.0 ^ self.0 >> 32).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let mixed = (mixed ^ mixed >> 29).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed ^ mixed >> 32
    }
}

#[cfg(test)]
mod tests {
    use super::super::endpoint::{Endpoint, Frame, Measure, Settings};
    use super::super::load;
    use super::super::priority::Failover;
    use super::super::roster::Roster;
    use super::*;
    use crate::random::Random;
    use crate::telemetry::Series;
    use rand::SeedableRng;
    use std::time::Duration;
    use tokio::time::Instant;

    /// Endpoints "0", "1" and so on of these weights, whose loads are their calls in flight.
    struct Pool {
        members: Vec<Arc<Member>>,
        random: SmallRng,
    }

    const SECOND: Duration = Duration::from_secs(1);

    impl Pool {
        fn new(weights: &[f64]) -> Self {
            let frame = Frame {
                origin: Instant::now(),
                settings: Settings {
                    measure: Measure::InFlight,
                    load: load::Settings::new(SECOND, SECOND, SECOND),
                    slow_start: SECOND,
                    labels: None,
                },
            };
            let series = Series::of("choose", "balance");
            let roster = Roster::new(frame, None, Failover::new(), Random::new(Some(1)), series);
            let roster = Arc::new(roster);
            let member = |(key, weight): (usize, &f64)| {
                let endpoint = Endpoint::new(key, ()).weight(*weight);
                Arc::new(Member::new(&endpoint, frame, &roster, 0.0, 0, false))
            };
            Self {
                members: weights.iter().enumerate().map(member).collect(),
                random: SmallRng::seed_from_u64(1),
            }
        }

        fn even(count: usize) -> Self {
            Self::new(&vec![1.0; count])
        }

        fn busy(self, place: usize, calls: u32) -> Self {
            for _ in 0..calls {
                self.members[place].load.begin(0);
            }
            self
        }

        fn closed(self, places: &[usize]) -> Self {
            for place in places {
                self.members[*place].condition.refused(u64::MAX);
            }
            self
        }

        fn choose(&mut self, policy: &impl Choose<u64>, request: u64) -> usize {
            let weights = self.members.iter().map(|member| member.weight());
            let heaviest = weights.fold(0.0, f64::max);
            let tried = Tried::default();
            let (members, random) = (&self.members, &mut self.random);
            let mut endpoints = Endpoints::new(members, heaviest, 0, tried, random);
            policy.choose(&request, &mut endpoints)
        }

        /// How often each is chosen, as a share.
        fn shares(&mut self, policy: &impl Choose<u64>) -> Vec<f64> {
            const CALLS: u64 = 50_000;
            let mut counts = vec![0u32; self.members.len()];
            for request in 0..CALLS {
                counts[self.choose(policy, request)] += 1;
            }
            let share = |count: u32| f64::from(count) / CALLS as f64;
            counts.into_iter().map(share).collect()
        }
    }

    #[track_caller]
    fn assert_shares(shares: &[f64], expected: &[f64]) {
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
    fn a_busier_endpoint_is_never_chosen_where_all_are_compared() {
        for count in [2, 3] {
            let shares = Pool::even(count).busy(0, 1).shares(&PowerOfChoices);
            assert_eq!(shares[0].to_bits(), 0.0f64.to_bits(), "{count}");
        }
    }

    #[test]
    fn an_endpoint_is_never_compared_with_itself() {
        // If it were, the busiest would be chosen now and then.
        for count in [2, 4, 16, 17, 100] {
            let shares = Pool::even(count).busy(7 % count, 5).shares(&PowerOfChoices);
            assert_eq!(shares[7 % count].to_bits(), 0.0f64.to_bits(), "{count}");
        }
    }

    #[test]
    fn three_of_ten_are_compared_and_two_of_twenty() {
        // The one idle endpoint is chosen whenever it is among those that are drawn.
        for (count, drawn) in [(10, 3.0), (20, 2.0)] {
            let mut pool = Pool::even(count);
            for place in 1..count {
                pool = pool.busy(place, 1);
            }
            let share = pool.shares(&PowerOfChoices)[0];
            assert!((share - drawn / count as f64).abs() < 0.01, "{share}");
        }
    }

    #[test]
    fn closed_endpoints_are_not_chosen_while_another_is_open() {
        let closed: Vec<usize> = (1..40).collect();
        let mut pool = Pool::even(40).busy(0, 100).closed(&closed);
        for request in 0..1_000 {
            let by_key = ConsistentHash::by(|request: &u64| *request);
            let places = [
                pool.choose(&PowerOfChoices, request),
                pool.choose(&RoundRobin::default(), request),
                pool.choose(&WeightedRandom, request),
                pool.choose(&LeastLoaded, request),
                pool.choose(&by_key, request),
            ];
            assert_eq!(places, [0; 5]);
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
            assert_shares(&pool.shares(&RoundRobin::default()), &even);
        }
    }

    #[test]
    fn an_endpoint_that_was_tried_is_chosen_only_if_no_other_is_open() {
        let mut pool = Pool::even(3).closed(&[1]);
        for (is_closed, expected) in [(false, 2), (true, 0)] {
            if is_closed {
                pool = pool.closed(&[2]);
            }
            let mut kept = Tried::default();
            let _scope = crate::context::TriedScope::enter(&mut kept);
            crate::context::note_tried(pool.members[0].id);
            let tried = crate::context::tried();
            let random = &mut SmallRng::seed_from_u64(1);
            let mut endpoints = Endpoints::new(&pool.members, 1.0, 0, tried, random);
            assert_eq!(PowerOfChoices.choose(&0u64, &mut endpoints), expected);
        }
    }

    #[test]
    fn weights_are_shares() {
        let mut pool = Pool::new(&[1.0, 2.0, 5.0]);
        let expected = [0.125, 0.25, 0.625];
        assert_shares(&pool.shares(&WeightedRandom), &expected);
        assert_shares(&pool.shares(&RoundRobin::default()), &expected);
        let by_key = ConsistentHash::by(|request: &u64| *request);
        assert_shares(&pool.shares(&by_key), &expected);
    }

    #[test]
    fn round_robin_takes_one_after_the_other() {
        let policy = RoundRobin::default();
        let mut pool = Pool::even(3);
        let places: Vec<usize> = (0..6).map(|_| pool.choose(&policy, 0)).collect();
        assert_eq!(places, [0, 1, 2, 0, 1, 2]);
    }

    #[test]
    fn when_an_endpoint_goes_only_its_keys_move() {
        let policy = ConsistentHash::by(|request: &u64| *request);
        let mut pool = Pool::even(10);
        let before: Vec<usize> = (0..1_000).map(|key| pool.choose(&policy, key)).collect();
        pool.members.pop();
        for (key, before) in before.into_iter().enumerate() {
            let after = pool.choose(&policy, key as u64);
            assert!(before == after || before == 9);
        }
    }

    #[test]
    fn the_endpoint_of_a_hot_key_gets_no_more_than_its_bound() {
        let policy = ConsistentHash::by(|request: &u64| *request);
        let mut pool = Pool::even(10);
        for calls in 1..=1_000u32 {
            let place = pool.choose(&policy, 7);
            pool.members[place].load.begin(0);
            let most = (1.25 * f64::from(calls) / 10.0).ceil();
            assert!(f64::from(pool.members[place].load.in_flight()) <= most);
        }
        let first = Pool::even(10).choose(&policy, 7);
        assert_eq!(pool.choose(&policy.unbounded(), 7), first);
        assert_eq!(pool.choose(&policy.spare(u32::MAX), 7), first);
    }

    #[test]
    fn without_spare_a_hot_key_is_spread_evenly() {
        let policy = ConsistentHash::by(|request: &u64| *request).spare(0);
        let mut pool = Pool::even(10);
        for _ in 0..100 {
            let place = pool.choose(&policy, 7);
            pool.members[place].load.begin(0);
        }
        let calls = pool.members.iter().map(|member| member.load.in_flight());
        assert!(calls.into_iter().all(|calls| calls == 10));
    }

    /// Balls into bins: the fullest of 10,000 bins holds at most 4 of 10,000 balls, where one choice gives 7 or 8.
    #[test]
    fn two_choices_keep_the_fullest_of_many_low() {
        for seed in 0..5 {
            let mut pool = Pool::even(10_000);
            pool.random = SmallRng::seed_from_u64(seed);
            for request in 0..10_000 {
                let place = pool.choose(&PowerOfChoices, request);
                pool.members[place].load.begin(0);
            }
            let fullest = pool.members.iter().map(|member| member.load.in_flight());
            assert!(fullest.max() <= Some(4));
        }
    }
}
