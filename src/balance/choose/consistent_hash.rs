//! By the key of a request.

use std::hash::Hash;

use super::{Choose, Eligibility, Endpoints};
use crate::algorithm::rendezvous::score;

/// The least value that `HAProxy` recommends: few keys move, and no endpoint has much more load than the others.
const SPARE: u32 = 25;

/// Policy that chooses the same endpoint for all requests with one key, unless the endpoint has much more load than the
/// others.
///
/// It uses weighted rendezvous hashing: when an endpoint is removed, only its requests move. It skips an endpoint that
/// has more than 1.25 times its share of the calls in flight, as in consistent hashing with bounded loads. A call reads
/// all endpoints.
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
/// # let _ = search.send(Query { user: 1, text: String::new() });
/// # Ok::<(), buttress::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConsistentHash<F> {
    key: F,
    /// In percent of the share; `None` if there is no bound.
    spare: Option<u32>,
}

impl<F> ConsistentHash<F> {
    /// Makes a policy that takes the key of a request with `key`. The hash is the same in all processes of one build.
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

    /// Sets the percentage by which an endpoint may exceed its share of the calls in flight before the policy skips it.
    /// 25 by default.
    ///
    /// With 0, calls are spread as evenly as possible, and keys move often; with 100, the endpoint of a hot key takes
    /// twice its share.
    #[must_use]
    pub fn spare(mut self, percent: u32) -> Self {
        self.spare = Some(percent);
        self
    }

    /// Skips no endpoint because of its load, for requests that must not move.
    ///
    /// The policy still skips an endpoint that is ejected, unhealthy or not available.
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
        let all = self.spare.map(|spare| (spare, sum(endpoints)));
        let is_full = |endpoints: &Endpoints<'_>, place| {
            all.is_some_and(|(spare, (calls, weight))| {
                let share = (calls + 1.0) * endpoints.weight(place) / weight;
                let most = (share * (1.0 + f64::from(spare) / 100.0)).ceil();
                f64::from(endpoints.in_flight(place)) >= most
            })
        };
        let mut chosen = (Eligibility::ClosedAndTried, true, f64::INFINITY, 0);
        for place in 0..endpoints.len() {
            let weight = endpoints.hosts[place].condition.weight();
            let score = score(&key, endpoints.key(place), weight);
            let is_full = is_full(endpoints, place);
            let this = (endpoints.eligibility(place), is_full, score, place);
            if this < chosen {
                chosen = this;
            }
        }
        chosen.3
    }
}

/// Returns the sums of the calls in flight and of the weights of all endpoints that take calls, or of all endpoints if
/// none does.
fn sum(endpoints: &Endpoints<'_>) -> (f64, f64) {
    let sum = |is_counted: fn(Eligibility) -> bool| {
        let places = 0..endpoints.len();
        let counted = places.filter(|place| is_counted(endpoints.eligibility(*place)));
        counted.fold((0.0, 0.0), |(calls, weight), place| {
            let in_flight = f64::from(endpoints.in_flight(place));
            (calls + in_flight, weight + endpoints.weight(place))
        })
    };
    let open = sum(|eligibility| eligibility < Eligibility::Closed);
    if open.1 > 0.0 { open } else { sum(|_| true) }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Pool;
    use super::*;

    #[test]
    fn when_an_endpoint_goes_only_its_keys_move() {
        let policy = ConsistentHash::by(|request: &u64| *request);
        let mut pool = Pool::even(10);
        let before: Vec<usize> = (0..1_000).map(|key| pool.choose(&policy, key)).collect();
        pool.hosts.pop();
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
            pool.hosts[place].load.begin(0);
            let most = (1.25 * f64::from(calls) / 10.0).ceil();
            assert!(f64::from(pool.hosts[place].load.in_flight()) <= most);
        }
        let first = Pool::even(10).choose(&policy, 7);
        assert_eq!(pool.choose(&policy.unbounded(), 7), first);
        assert_eq!(pool.choose(&policy.spare(u32::MAX), 7), first);
    }

    /// Returns the calls in flight on the endpoints when the endpoint of a hot key has too many.
    fn hot(pool: &mut Pool, policy: &impl Choose<u64>, calls: usize) -> Vec<u32> {
        for _ in 0..calls {
            let place = pool.choose(policy, 7);
            pool.hosts[place].load.begin(0);
        }
        let calls = pool.hosts.iter().map(|host| host.load.in_flight());
        let mut calls: Vec<u32> = calls.collect();
        calls.sort_unstable();
        calls
    }

    #[test]
    fn the_spare_is_how_many_percent_more_than_its_share_an_endpoint_may_have() {
        for (spare, most) in [(0, 10), (1, 11), (25, 13), (50, 15), (100, 20), (250, 35)] {
            let policy = ConsistentHash::by(|request: &u64| *request).spare(spare);
            let calls = hot(&mut Pool::even(10), &policy, 100);
            assert_eq!(calls.last(), Some(&most), "{spare} %: {calls:?}");
        }
    }

    #[test]
    fn the_share_of_an_endpoint_is_by_weight() {
        let policy = ConsistentHash::by(|request: &u64| *request).spare(0);
        let mut pool = Pool::new(&[1.0, 2.0, 5.0]);
        assert_eq!(hot(&mut pool, &policy, 80), [10, 20, 50]);
    }

    #[test]
    fn the_share_of_an_endpoint_is_of_those_that_take_calls() {
        let policy = ConsistentHash::by(|request: &u64| *request);
        let mut pool = Pool::even(10).closed(&[0, 1, 2, 3, 4]);
        for place in 0..5 {
            pool = pool.busy(place, 1_000);
        }
        let calls = hot(&mut pool, &policy, 100);
        assert_eq!(calls[..5].iter().sum::<u32>(), 100);
        assert_eq!(calls[4], 25, "{calls:?}");
        let mut closed = Pool::even(4).closed(&[0, 1, 2, 3]);
        let calls = hot(&mut closed, &policy, 100);
        assert_eq!(calls[3], 32, "all are closed: {calls:?}");
    }

    #[test]
    fn without_spare_a_hot_key_is_spread_evenly() {
        let policy = ConsistentHash::by(|request: &u64| *request).spare(0);
        let mut pool = Pool::even(10);
        for _ in 0..100 {
            let place = pool.choose(&policy, 7);
            pool.hosts[place].load.begin(0);
        }
        let calls = pool.hosts.iter().map(|host| host.load.in_flight());
        assert!(calls.into_iter().all(|calls| calls == 10));
    }
}
