//! By weight: one after the other, or at random.

use super::{Choose, DRAWS, Eligibility, Endpoints};
use crate::algorithm::rotation::{Cycle, units};

/// Policy that takes one endpoint after the other, in proportion to the weights. All handles of a balancer share the
/// turns.
///
/// A cycle has as many calls as the sum of the weights, divided by their greatest common divisor. In each cycle an
/// endpoint that takes calls gets exactly its share, in turns that are spread over the cycle. During a slow start its
/// weight rises in tenths. If a call skips an endpoint because another attempt of the operation went there, the other
/// endpoints lose no turn.
///
/// If all endpoints take calls and have the same weight, a call reads only the endpoint whose turn it is; else it reads
/// each endpoint once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RoundRobin;

impl<Req> Choose<Req> for RoundRobin {
    fn choose(&self, _request: &Req, endpoints: &mut Endpoints<'_>) -> usize {
        let mut turn = None;
        if endpoints.take_even_turns() {
            let even = endpoints.turn();
            let place = (even % endpoints.len() as u64) as usize;
            if endpoints.is_whole(place) {
                return place;
            }
            turn = Some(even);
        }
        let (mut best, mut cycle) = (Eligibility::ClosedAndTried, Cycle::default());
        let (mut are_all_untried, mut are_whole) = (true, true);
        // The endpoints of the best eligibility, each with the end of its positions in the cycle.
        endpoints.notes.clear();
        for place in 0..endpoints.len() {
            let eligibility = endpoints.eligibility(place);
            are_all_untried &= matches!(eligibility, Eligibility::Open | Eligibility::Closed);
            are_whole &= eligibility == Eligibility::Open;
            if eligibility > best {
                continue;
            }
            if eligibility < best {
                (best, cycle) = (eligibility, Cycle::default());
                endpoints.notes.clear();
            }
            let (weight, ramp) = endpoints.weight_and_ramp(place);
            are_whole &= ramp >= 1.0;
            let end = cycle.add(units(weight, ramp));
            endpoints.notes.push((place, end));
        }
        endpoints.note_whole(are_whole);
        let turn = match turn {
            Some(turn) => turn,
            None if are_all_untried => endpoints.turn(),
            None => endpoints.next_turn(),
        };
        let position = cycle.position(turn);
        let at = endpoints.notes.partition_point(|(_, end)| *end <= position);
        endpoints.notes[at].0
    }
}

/// Policy that chooses an endpoint at random, in proportion to its weight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WeightedRandom;

impl<Req> Choose<Req> for WeightedRandom {
    fn choose(&self, _request: &Req, endpoints: &mut Endpoints<'_>) -> usize {
        for _ in 0..DRAWS {
            let place = endpoints.draw_by_weight(&[]);
            if endpoints.eligibility(place) == Eligibility::Open {
                return place;
            }
        }
        endpoints.draw(Endpoints::weight)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Looks, Pool};
    use super::*;
    use proptest::prelude::*;
    use std::sync::Arc;
    use std::sync::atomic::Ordering;

    const SECOND: u64 = 1_000_000_000;

    /// Returns the endpoints of this number of calls.
    fn chosen(pool: &mut Pool, calls: usize) -> Vec<usize> {
        (0..calls).map(|_| pool.choose(&RoundRobin, 0)).collect()
    }

    #[test]
    fn round_robin_takes_one_after_the_other() {
        assert_eq!(chosen(&mut Pool::even(3), 6), [0, 1, 2, 0, 1, 2]);
    }

    #[test]
    fn without_the_heaviest_endpoint_the_others_take_turns() {
        let mut pool = Pool::new(&[50.0, 1.0, 1.0, 1.0]).closed(&[0]);
        assert_eq!(chosen(&mut pool, 9), [1, 2, 3, 1, 2, 3, 1, 2, 3]);
    }

    #[test]
    fn endpoints_that_are_all_in_slow_start_get_turns_by_weight() {
        for millis in [0, 50, 333, 999] {
            let mut pool = Pool::even(3).starting().at(millis);
            assert_eq!(chosen(&mut pool, 6), [0, 1, 2, 0, 1, 2], "{millis}");
            let mut pool = Pool::new(&[50.0, 1.0, 1.0, 1.0]).starting().at(millis);
            let mut calls = chosen(&mut pool, 53);
            calls.sort_unstable();
            assert_eq!(calls[..50], [0; 50], "{millis}");
            assert_eq!(calls[50..], [1, 2, 3], "{millis}");
        }
    }

    #[test]
    fn the_turns_of_an_endpoint_are_spread_over_the_cycle() {
        let calls = chosen(&mut Pool::new(&[6.0, 2.0, 2.0]), 100);
        for place in 0..3 {
            let cursor: Vec<_> = (0..100).filter(|turn| calls[*turn] == place).collect();
            let waits = cursor.windows(2).map(|cursor| cursor[1] - cursor[0]);
            assert!(
                waits.max() <= Some(if place == 0 { 3 } else { 8 }),
                "{calls:?}"
            );
        }
    }

    #[test]
    fn a_retry_takes_no_turn_away() {
        let mut pool = Pool::even(4);
        let mut counts = [0; 4];
        for _ in 0..12 {
            let first = chosen(&mut pool, 1)[0];
            counts[first] += 1;
            if first == 0 {
                let tried = crate::context::Tried::default();
                let _scope = crate::context::OperationScope::enter(None, None, tried, None);
                crate::context::note_tried(pool.hosts[0].id);
                let retry = pool.choose_again(&RoundRobin);
                assert_ne!(retry, 0);
                counts[retry] += 1;
            }
        }
        assert_eq!(counts, [3, 4, 4, 4]);
    }

    #[test]
    fn a_turn_looks_at_one_endpoint_where_all_are_equal_and_else_once_at_each() {
        for (weights, looks) in [([1.0; 4], 1), ([1.0, 1.0, 1.0, 2.0], 4)] {
            let seen = Looks::default();
            let mut pool = Pool::of(&weights, |endpoint| endpoint.available(seen.clone()));
            chosen(&mut pool, 1);
            seen.0.store(0, Ordering::Relaxed);
            chosen(&mut pool, 100);
            assert_eq!(seen.0.load(Ordering::Relaxed), 100 * looks, "{weights:?}");
        }
    }

    #[test]
    fn an_endpoint_that_closes_or_returns_is_noticed_within_one_round() {
        let mut pool = Pool::even(4);
        assert_eq!(chosen(&mut pool, 8), [0, 1, 2, 3, 0, 1, 2, 3]);
        pool.hosts[2].condition.refused(SECOND);
        assert!(!chosen(&mut pool, 4).contains(&2), "it is closed");
        let mut three = chosen(&mut pool, 3);
        three.sort_unstable();
        assert_eq!(three, [0, 1, 3]);
        pool = pool.at(1_000);
        chosen(&mut pool, 4);
        let mut four = chosen(&mut pool, 4);
        four.sort_unstable();
        assert_eq!(four, [0, 1, 2, 3]);
        let host = Arc::clone(&pool.hosts[1]);
        host.peers
            .update(SECOND, |change| change.found(&host, false));
        host.peers
            .update(SECOND, |change| change.found(&host, true));
        chosen(&mut pool, 4);
        let counted = chosen(&mut pool, 31);
        let turns = counted.iter().filter(|place| **place == 1).count();
        assert_eq!(turns, 1, "in slow start: {counted:?}");
    }

    proptest! {
        #[test]
        fn in_each_cycle_an_endpoint_gets_exactly_its_weight(
            endpoints in prop::collection::vec((1_u32..60, any::<bool>()), 1..7),
            skipped in 0_usize..100,
        ) {
            let weights: Vec<f64> = endpoints.iter().map(|(weight, _)| f64::from(*weight)).collect();
            let indices = 0..endpoints.len();
            let closed: Vec<usize> = indices.clone().filter(|place| endpoints[*place].1).collect();
            let mut pool = Pool::new(&weights).closed(&closed);
            chosen(&mut pool, skipped);
            let are_all_closed = closed.len() == endpoints.len();
            let open = |place: &usize| are_all_closed || !closed.contains(place);
            let cycle: u32 = indices.clone().filter(open).map(|place| endpoints[place].0).sum();
            let calls = chosen(&mut pool, cycle as usize);
            for place in indices {
                let count = calls.iter().filter(|call| **call == place).count();
                let expected = if open(&place) { endpoints[place].0 as usize } else { 0 };
                prop_assert_eq!(count, expected, "{:?}", calls);
            }
        }
    }
}
