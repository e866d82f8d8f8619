//! Measurements at one shop: a column of the report.

use std::collections::HashSet;
use std::time::Duration;

use crate::script::{Health, Phase, Script};
use crate::server::Ledger;
use crate::shop::{Ending, Sample};

#[derive(Debug)]
pub(crate) struct Column {
    samples: Vec<Sample>,
    pub(crate) booked_twice: usize,
    /// Payments that were recognised by their key.
    pub(crate) repeats: u64,
    /// Requests that `payments` answered 429.
    pub(crate) refused: u64,
    /// Orders that were paid, but not placed.
    pub(crate) paid_for_nothing: usize,
}

impl Column {
    pub(crate) fn new(samples: Vec<Sample>, payments: &Ledger) -> Self {
        let placed = samples.iter().filter(|sample| sample.is_placed());
        let placed: HashSet<u64> = placed.map(|sample| sample.customer.order).collect();
        let paid = payments.bookings.keys();
        Self {
            booked_twice: payments.booked_twice(),
            repeats: payments.repeats,
            refused: payments.refused,
            paid_for_nothing: paid.filter(|&order| !placed.contains(order)).count(),
            samples,
        }
    }

    pub(crate) fn orders(&self) -> Orders<'_> {
        Orders(self.samples.iter().collect())
    }

    /// Orders that came while `payments` was in such a state.
    pub(crate) fn orders_while(&self, script: &Script, was: fn(Health) -> bool) -> Orders<'_> {
        self.orders_if(|sample| was(script.phases[sample.phase].health))
    }

    pub(crate) fn orders_of_phase(&self, number: usize) -> Orders<'_> {
        self.orders_if(|sample| sample.phase == number)
    }

    /// Orders that were placed while a phase lasted. An order that is placed later, when the trouble is over, does not count.
    pub(crate) fn orders_placed_within(&self, phase: &Phase) -> Orders<'_> {
        let lasts = phase.starts..phase.ends;
        self.orders_if(|sample| {
            sample.is_placed() && lasts.contains(&(sample.customer.comes + sample.took))
        })
    }

    fn orders_if(&self, belongs: impl Fn(&Sample) -> bool) -> Orders<'_> {
        Orders(
            self.samples
                .iter()
                .filter(|sample| belongs(sample))
                .collect(),
        )
    }
}

/// Some of the orders of a shop.
#[derive(Debug)]
pub(crate) struct Orders<'a>(Vec<&'a Sample>);

impl Orders<'_> {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn ended(&self, ending: Ending) -> usize {
        let ended = self.0.iter().filter(|sample| sample.ending == ending);
        ended.count()
    }

    pub(crate) fn placed(&self) -> usize {
        self.ended(Ending::Placed)
    }

    /// Orders that took longer than `limit`.
    pub(crate) fn slower_than(&self, limit: Duration) -> usize {
        self.0.iter().filter(|sample| sample.took > limit).count()
    }

    /// The time after which this share of the customers knew.
    pub(crate) fn took(&self, share: f64) -> Duration {
        quantile(self.0.iter().map(|sample| sample.took).collect(), share)
    }
}

/// The smallest value that is not below the given share of all; zero if there is none.
pub(crate) fn quantile(mut values: Vec<Duration>, share: f64) -> Duration {
    values.sort_unstable();
    let rank = (share * values.len() as f64).ceil() as usize;
    values
        .get(rank.saturating_sub(1))
        .copied()
        .unwrap_or_default()
}
