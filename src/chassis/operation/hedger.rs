//! State that all handles of one hedge share: the latencies of calls, and the budget of hedges.

use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use super::hedge_metrics::{HedgeMetrics, Hedged};
use crate::algorithm::hedge_quota::Quota;
use crate::algorithm::sketch::{self, Sketch, Took};
use crate::budget::{self, Gain};
use crate::chassis::At;
use crate::context;
use crate::debug::debug_fields;
use crate::stripe::{stripe, stripes};
use crate::sync::{AtomicU32, Ordering, lock};
use crate::telemetry::Report;
use crate::{Budget, Mode};

/// Decision about a hedge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Payment {
    /// This number of tokens was paid.
    Paid(u32),
    /// The allowance or the budget is used up, but the layer only observes.
    Waived,
    Denied,
}

/// The settings of a hedge in a [`Config`](crate::hedge::Config).
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// `None` for the percentile.
    pub(crate) delay: Option<Duration>,
    pub(crate) max_hedges: u32,
    pub(crate) mode: Mode,
    pub(crate) sketch: sketch::Settings,
    pub(crate) rate_share: f64,
    pub(crate) burst: u32,
    pub(crate) budget: Option<Budget>,
}

/// Decides about hedges, by the latencies of the calls to one service and by the allowance and the budget.
pub struct Hedger {
    settings: Settings,
    /// The mode in force, which can change.
    mode: AtomicU32,
    sketch: Sketch,
    quota: Mutex<Quota>,
    metrics: Report<HedgeMetrics>,
}

impl Hedger {
    pub(crate) fn new(settings: Settings, metrics: Report<HedgeMetrics>) -> Self {
        Self {
            sketch: Sketch::new(settings.sketch, stripes()),
            quota: Mutex::new(Quota::new(settings.rate_share, settings.burst)),
            mode: AtomicU32::new(settings.mode.word()),
            settings,
            metrics,
        }
    }

    pub(crate) fn name(&self) -> &'static str {
        self.metrics.name()
    }

    /// Returns the mode in force.
    pub(crate) fn mode(&self) -> Mode {
        Mode::from_word(self.mode.load(Ordering::Relaxed))
    }

    pub(crate) fn set_mode(&self, mode: Mode) {
        self.mode.store(mode.word(), Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn max_hedges(&self) -> u32 {
        self.settings.max_hedges
    }

    /// Returns the time after which a call that begins now is hedged.
    #[inline]
    pub(crate) fn delay(&self, at: &At) -> Option<Duration> {
        self.end_tick(at);
        self.delay_of_tick()
    }

    /// Returns the delay as it was at the beginning of this tick.
    #[inline]
    fn delay_of_tick(&self) -> Option<Duration> {
        match self.settings.delay {
            None => self.sketch.quantile(),
            fixed => fixed,
        }
    }

    pub(crate) fn is_slowed_down(&self, at: &At) -> bool {
        self.end_tick(at);
        self.sketch.is_slow()
    }

    /// Collects the latencies of the last tick if it is over.
    #[inline]
    fn end_tick(&self, at: &At) {
        if self.sketch.keep(at.nanos()) {
            self.metrics.levels().set(self.delay_of_tick());
            self.metrics.publish(at.instant());
        }
    }

    /// Decides whether a hedge may be sent now, and pays for it.
    pub(crate) fn pay(&self, at: &At) -> Payment {
        let now = at.instant();
        if self.is_slowed_down(at) {
            self.report(Hedged::DeniedSlowdown, now);
            return Payment::Denied;
        }
        if let Some(paid) = self.withdraw(now) {
            return Payment::Paid(paid);
        }
        self.report(Hedged::DeniedBudget, now);
        match self.mode() {
            Mode::Enforce => Payment::Denied,
            Mode::Observe => Payment::Waived,
        }
    }

    /// Refunds the payment for a hedge that an inner layer has refused.
    pub(crate) fn refund(&self, payment: Payment) {
        let Payment::Paid(paid) = payment else {
            return;
        };
        lock(&self.quota).put_back();
        if let Some(budget) = &self.settings.budget {
            budget.give_back(paid);
        }
    }

    fn withdraw(&self, now: Instant) -> Option<u32> {
        let calls = self.sketch.calls();
        let recent = self.sketch.recent_calls();
        if !lock(&self.quota).take(calls, recent) {
            return None;
        }
        let budget = self.settings.budget.as_ref();
        let paid = budget.map_or(Some(0), |budget| budget.withdraw(budget::HEDGE, now));
        if paid.is_none() {
            lock(&self.quota).put_back();
        }
        paid
    }

    /// Returns whether the operation need not fund the budget of hedges, because an outer retry does or there is no
    /// budget.
    #[inline]
    pub(crate) fn is_funded(&self) -> bool {
        let budget = self.settings.budget.as_ref();
        budget.is_none_or(|budget| budget.id() == context::budget())
    }

    /// Returns the same for a retry whose budget has this number.
    #[inline]
    pub(crate) fn is_funded_by(&self, budget: usize) -> bool {
        let own = self.settings.budget.as_ref();
        own.is_none_or(|own| own.id() == budget)
    }

    /// Notes that an operation begins whose success pays for later hedges.
    #[inline]
    pub(crate) fn enter(&self) {
        if let Some(budget) = &self.settings.budget {
            budget.enter();
        }
    }

    /// Notes that such an operation is over, and adds its tokens.
    #[inline]
    pub(crate) fn leave(&self, gain: Gain) {
        if let Some(budget) = &self.settings.budget {
            budget.leave(gain);
        }
    }

    /// Records the latency of a first attempt, or its lower bound.
    #[inline]
    pub(crate) fn record(&self, at: &At, took: Took) {
        self.end_tick(at);
        self.sketch.record(stripe(), took);
    }

    /// Notes that the hedge of this number was sent.
    #[cold]
    pub(crate) fn sent(&self, number: u32) {
        self.metrics.sent(number);
    }

    #[cold]
    pub(crate) fn report(&self, result: Hedged, now: Instant) {
        self.metrics.hedged(result, now);
    }
}

debug_fields!(Hedger as Hedge { name(), mode(), settings });
