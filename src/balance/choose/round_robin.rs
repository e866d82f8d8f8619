//! One after the other.

use super::{Choose, Eligibility, Endpoints};

/// The units of a weight of 1. The least weight is one unit.
const UNITS: f64 = 1e3;
/// The steps in which the weight of an endpoint rises during its slow start. Few, so that the weights stay as they are for
/// a while.
const RAMP_STEPS: f64 = 10.0;
/// The share of a cycle between one turn and the next: by the golden ratio, turns of one endpoint are as far from each other
/// as can be, however many there are.
const STRIDE: f64 = 0.618_033_988_749_894_9;

/// One endpoint after the other, as often as its weight says. All handles of a balancer take turns together.
///
/// In each cycle of calls (as many as the sum of the weights, divided by their greatest common divisor) an endpoint that
/// takes calls gets exactly its weight, in turns that are spread over the cycle. During a slow start its weight rises in
/// tenths. A call that may not go to an endpoint because another attempt of the operation went there takes no turn away
/// from the others. Looks at each of the endpoints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RoundRobin;

impl<Req> Choose<Req> for RoundRobin {
    fn choose(&self, _request: &Req, endpoints: &mut Endpoints<'_>) -> usize {
        let cycle = Cycle::of(endpoints);
        let turn = if cycle.are_all_untried {
            endpoints.turn()
        } else {
            endpoints.next_turn()
        };
        let mut position = cycle.position(turn);
        let mut last = 0;
        for place in 0..endpoints.len() {
            if endpoints.eligibility(place) != cycle.eligibility {
                continue;
            }
            let units = units(endpoints, place);
            if position < units {
                return place;
            }
            position -= units;
            last = place;
        }
        // An endpoint has changed its eligibility or weight since the first look.
        last
    }
}

/// The endpoints of the best eligibility, each with a number of positions that is its weight in units.
#[derive(Clone, Copy)]
struct Cycle {
    eligibility: Eligibility,
    units: u64,
    /// The greatest common divisor of the weights.
    divisor: u64,
    /// They differ in their weights.
    is_uneven: bool,
    are_all_untried: bool,
}

impl Cycle {
    fn of(endpoints: &Endpoints<'_>) -> Self {
        let mut cycle = Self {
            eligibility: Eligibility::ClosedAndTried,
            units: 0,
            divisor: 0,
            is_uneven: false,
            are_all_untried: true,
        };
        for place in 0..endpoints.len() {
            let eligibility = endpoints.eligibility(place);
            if matches!(
                eligibility,
                Eligibility::Tried | Eligibility::ClosedAndTried
            ) {
                cycle.are_all_untried = false;
            }
            if eligibility > cycle.eligibility {
                continue;
            }
            if eligibility < cycle.eligibility {
                (cycle.eligibility, cycle.units, cycle.divisor) = (eligibility, 0, 0);
                cycle.is_uneven = false;
            }
            let units = units(endpoints, place);
            cycle.is_uneven |= cycle.divisor != 0 && units != cycle.divisor;
            cycle.divisor = common_divisor(cycle.divisor, units);
            cycle.units += units;
        }
        cycle
    }

    /// The position of this turn. As many turns in a row as the cycle is long have a different one each.
    fn position(self, turn: u64) -> u64 {
        let length = self.units / self.divisor;
        let mut stride = 1;
        if self.is_uneven {
            stride = (length as f64 * STRIDE) as u64;
            while common_divisor(stride, length) != 1 {
                stride += 1;
            }
        }
        let position = u128::from(turn % length) * u128::from(stride) % u128::from(length);
        position as u64 * self.divisor
    }
}

/// The weight of an endpoint in whole units.
fn units(endpoints: &Endpoints<'_>, place: usize) -> u64 {
    let (weight, ramp) = endpoints.weight_and_ramp(place);
    // Without the rounding up, a number like .3 · 10 may fall below its step.
    let step = (ramp * RAMP_STEPS + 1e-9).floor().max(1.0);
    (weight * UNITS).round().max(1.0) as u64 * step as u64
}

fn common_divisor(mut one: u64, mut other: u64) -> u64 {
    while other != 0 {
        (one, other) = (other, one % other);
    }
    one
}

#[cfg(test)]
mod tests {
    use super::super::tests::Pool;
    use super::*;
    use proptest::prelude::*;

    /// The endpoints that so many calls go to.
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
                let _scope = crate::context::OperationScope::enter(None, None, tried);
                crate::context::note_tried(pool.hosts[0].id);
                let retry = pool.choose_again(&RoundRobin);
                assert_ne!(retry, 0);
                counts[retry] += 1;
            }
        }
        assert_eq!(counts, [3, 4, 4, 4]);
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
