//! Policies that choose the least loaded endpoint, of all or of a few.

use super::{Choose, Eligibility, Endpoints, Rank};
use crate::algorithm::load::Cost;

/// The number of compared endpoints. With two, one of 45 calls finds two bad endpoints if two of ten are bad.
const CHOICES: usize = 3;
/// Factor by which another endpoint must be less loaded than the endpoint that was drawn by weight.
const MARGIN: f64 = 9.0;

/// Policy that draws three different endpoints at random and chooses the least loaded of them. The default.
///
/// It is nearly as good as the least loaded of all, and does not send all clients to the endpoint that looks best.
/// Of two endpoints on which calls take nearly the same time, up to a quarter more, the calls in flight decide.
///
/// If the weights differ, an endpoint is drawn by weight and gets the call, unless one of two others is nine times less
/// loaded. The weights are therefore shares, and an endpoint that hangs or fails is still avoided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PowerOfChoices;

impl<Req> Choose<Req> for PowerOfChoices {
    #[inline]
    fn choose(&self, _request: &Req, endpoints: &mut Endpoints<'_>) -> usize {
        let count = endpoints.len();
        if count == 1 {
            return 0;
        }
        if !endpoints.group.weights.are_equal() {
            return by_weight(endpoints);
        }
        let (mut chosen, mut best) = (0, Rank::WORST);
        // Among equal ones, the first is chosen. Their order is random.
        for place in &endpoints.draw_three()[..CHOICES.min(count)] {
            let rank = endpoints.rank(*place);
            if rank.is_better(best) {
                (chosen, best) = (*place, rank);
            }
        }
        if best.eligibility == Eligibility::Open || count <= CHOICES {
            return chosen;
        }
        endpoints.look_further(
            |endpoints| endpoints.random_below(endpoints.len()),
            |endpoints, [one, other]| {
                let is_better = endpoints.rank(other).is_better(endpoints.rank(one));
                if is_better { other } else { one }
            },
        )
    }
}

/// Chooses an endpoint by weight, unless another drawn one is much less loaded.
///
/// The load of the first drawn endpoint is that of its calls, divided by its weight, and of one more call, divided by
/// the greatest weight. While it is idle, its weight does not matter, because the draw has already used it. The others
/// count with the latency as it was last measured: the estimate of an endpoint that seldom gets a call decays, and
/// would make it look fast.
#[inline(never)]
fn by_weight(endpoints: &mut Endpoints<'_>) -> usize {
    let first = endpoints.draw_by_weight(&[]);
    let second = endpoints.draw_by_weight(&[first]);
    let drawn = [first.min(second), first.max(second)];
    let others = [second, endpoints.draw_by_weight(&drawn)];
    let others = &others[..(endpoints.len() - 1).min(2)];
    let (chosen, eligibility) = endpoints.less_loaded(first, others);
    if eligibility == Eligibility::Open || endpoints.len() <= CHOICES {
        return chosen;
    }
    endpoints.look_further(
        |endpoints| endpoints.draw_by_weight(&[]),
        |endpoints, [drawn, other]| endpoints.less_loaded(drawn, &[other]).0,
    )
}

impl Endpoints<'_> {
    /// Returns the endpoint that was drawn by weight, or one of the others if that is much less loaded, and its
    /// eligibility.
    fn less_loaded(&self, drawn: usize, others: &[usize]) -> (usize, Eligibility) {
        let (mut chosen, mut least) = (drawn, self.rank_of_drawn(drawn));
        for place in others {
            let rank = self.rank_of_other(*place);
            if rank < least {
                (chosen, least) = (*place, rank);
            }
        }
        (chosen, least.0)
    }

    fn rank_of_drawn(&self, place: usize) -> (Eligibility, f64) {
        let host = &self.hosts[place];
        let Cost { expected, calls } = host.cost(self.now);
        let calls = calls - 1.0 / host.present_weight(self.now) + 1.0 / self.max_weight();
        let load = expected * expected * calls / MARGIN;
        (self.eligibility(place), load)
    }

    fn rank_of_other(&self, place: usize) -> (Eligibility, f64) {
        let cost = self.hosts[place].undecayed_cost(self.now);
        (self.eligibility(place), cost.total())
    }
}

/// Policy that chooses the least loaded of all endpoints. A call reads all endpoints.
///
/// With [`LoadMetric::InFlight`](crate::balance::LoadMetric::InFlight) other balancers call it least connections or
/// least requests. If many clients measure latency, each for itself, all of them choose the same endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeastLoaded;

impl<Req> Choose<Req> for LeastLoaded {
    fn choose(&self, _request: &Req, endpoints: &mut Endpoints<'_>) -> usize {
        endpoints.least()
    }
}

#[cfg(test)]
mod tests {
    use super::super::WeightedRandom;
    use super::super::tests::{Looks, Pool, assert_shares};
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::SmallRng;
    use std::sync::Arc;
    use std::sync::atomic::Ordering;

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
    fn three_are_compared_of_any_number() {
        // The only idle endpoint is chosen whenever it is drawn.
        for count in [4, 10, 20, 100] {
            let mut pool = Pool::even(count);
            for place in 1..count {
                pool = pool.busy(place, 1);
            }
            let share = pool.shares(&PowerOfChoices)[0];
            assert!((share - 3.0 / count as f64).abs() < 0.01, "{share}");
        }
    }

    #[test]
    fn of_many_endpoints_a_few_are_looked_at_where_those_drawn_are_closed() {
        for other in [1.0, 2.0] {
            let looks = Looks::default();
            let weights: Vec<_> = (0..1_000).map(|place| [1.0, other][place % 2]).collect();
            let pool = Pool::of(&weights, |endpoint| endpoint.available(looks.clone()));
            let closed: Vec<_> = (0..800).collect();
            let mut pool = pool.closed(&closed);
            for request in 0..1_000 {
                assert!(pool.choose(&PowerOfChoices, request) >= 800);
            }
            let looks = looks.0.load(Ordering::Relaxed);
            assert!(looks < 6_000, "{looks} in 1,000 calls");
        }
    }

    #[test]
    fn weights_are_shares_while_the_endpoints_are_idle() {
        for weights in [&[1.0, 3.0][..], &[1.0, 2.0, 5.0], &[0.1, 1.0, 1.0, 1.0]] {
            let sum: f64 = weights.iter().sum();
            let expected: Vec<f64> = weights.iter().map(|weight| weight / sum).collect();
            assert_shares(&Pool::new(weights).shares(&PowerOfChoices), &expected);
        }
    }

    #[test]
    fn a_heavy_endpoint_keeps_its_share_until_another_is_nine_times_less_loaded() {
        // Its load is in flight / 3 + 1 / 3, that of the other 1.
        for (calls, expected) in [(25, [0.75, 0.25]), (27, [0.0, 1.0])] {
            let mut pool = Pool::new(&[3.0, 1.0]).busy(0, calls);
            assert_shares(&pool.shares(&PowerOfChoices), &expected);
        }
    }

    #[test]
    fn an_endpoint_in_slow_start_gets_less_of_its_weight() {
        let mut pool = Pool::new(&[1.0, 3.0]);
        let host = Arc::clone(&pool.hosts[1]);
        host.peers.update(0, |change| change.found(&host, false));
        host.peers.update(0, |change| change.found(&host, true));
        let share = 3.0 * 0.1;
        assert_shares(
            &pool.shares(&PowerOfChoices),
            &[1.0 / (1.0 + share), share / (1.0 + share)],
        );
        assert_shares(
            &pool.shares(&WeightedRandom),
            &[1.0 / (1.0 + share), share / (1.0 + share)],
        );
    }

    /// Balls into bins: the fullest of 10,000 bins holds at most 4 of 10,000 balls, where one choice gives 7 or 8.
    #[test]
    fn three_choices_keep_the_fullest_of_many_low() {
        for seed in 0..5 {
            let mut pool = Pool::even(10_000);
            pool.random = SmallRng::seed_from_u64(seed);
            for request in 0..10_000 {
                let place = pool.choose(&PowerOfChoices, request);
                pool.hosts[place].load.begin(0);
            }
            let fullest = pool.hosts.iter().map(|host| host.load.in_flight());
            assert!(fullest.max() <= Some(4));
        }
    }
}
