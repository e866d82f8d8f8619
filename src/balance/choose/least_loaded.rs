//! The least loaded, of all or of a few.

use super::{Choose, Eligibility, Endpoints};

/// Up to this number of endpoints, three are compared. With few endpoints it takes no more than two bad ones
/// for a comparison of two to find both of them bad, in one of 45 calls with ten endpoints.
const FEW: usize = 16;

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
        let mut places = [first, second, 0];
        if draws == 3 && count > 2 {
            let mut third = endpoints.random_below(count - 2);
            third += usize::from(third >= first.min(second));
            third += usize::from(third >= first.max(second));
            places[2] = third;
        }
        let (mut chosen, mut least) = (first, endpoints.rank(first));
        // Of equal ones the first: they come in random order.
        for place in &places[1..draws.min(count)] {
            let rank = endpoints.rank(*place);
            if rank < least {
                (chosen, least) = (*place, rank);
            }
        }
        if least.0 == Eligibility::Open || count <= draws {
            return chosen;
        }
        // All of these are closed. There may be others, of which the lightly loaded ones are to be favoured. Among many
        // endpoints it takes long to look at all, and most often a few more draws will do.
        let redrawn = (count > FEW).then(|| endpoints.redraw()).flatten();
        redrawn.unwrap_or_else(|| endpoints.draw(|endpoints, place| 1.0 / endpoints.load(place)))
    }
}

/// The least loaded of all endpoints. Looks at each of them.
///
/// With [`LoadMetric::InFlight`](crate::balance::LoadMetric::InFlight) this is what other balancers call least connections or least
/// requests. With many clients that measure latency for themselves, all of them go after the same endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeastLoaded;

impl<Req> Choose<Req> for LeastLoaded {
    fn choose(&self, _request: &Req, endpoints: &mut Endpoints<'_>) -> usize {
        endpoints.least()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Pool;
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

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

    /// Balls into bins: the fullest of 10,000 bins holds at most 4 of 10,000 balls, where one choice gives 7 or 8.
    #[test]
    fn two_choices_keep_the_fullest_of_many_low() {
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
