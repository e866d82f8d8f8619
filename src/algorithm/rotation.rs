//! Turns by weight: the position of a turn in a cycle.

/// The units of a weight of 1. The least weight is one unit.
const UNITS: f64 = 1e3;
/// The steps in which the weight of an endpoint rises during its slow start. There are few steps, so that the weights
/// stay constant for a while.
const RAMP_STEPS: f64 = 10.0;
/// The share of a cycle between one turn and the next. With the golden ratio, the turns of one endpoint are as far from
/// each other as possible, however many there are.
const STRIDE: f64 = 0.618_033_988_749_894_9;

/// A cycle of turns, in which each endpoint has as many positions as its weight has units.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cycle {
    units: u64,
    /// The greatest common divisor of the weights.
    divisor: u64,
    /// `true` if the weights differ.
    is_uneven: bool,
}

impl Cycle {
    /// Adds an endpoint with a weight of `units`. Returns the position after its last unit.
    pub(crate) fn add(&mut self, units: u64) -> u64 {
        self.is_uneven |= self.divisor != 0 && units != self.divisor;
        self.divisor = common_divisor(self.divisor, units);
        self.units += units;
        self.units
    }

    /// Returns the position of this turn. The turns of one cycle have different positions.
    pub(crate) fn position(self, turn: u64) -> u64 {
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

/// Returns a weight in whole units; `ramp` is the share of it that counts.
pub(crate) fn units(weight: f64, ramp: f64) -> u64 {
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
