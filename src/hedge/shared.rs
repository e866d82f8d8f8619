//! What all handles of one hedge share: how long calls take, and what hedges are paid from.

use std::fmt;
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use super::config::Settings;
use super::metrics::{HedgeMetrics, Hedged};
use super::state::Quota;
use crate::budget::{self, Gain};
use crate::context::nanos_between;
use crate::lane::{lane, lanes};
use crate::latency::{Sketch, Took};
use crate::sync::lock;
use crate::telemetry::Series;
use crate::{Budget, Mode};

pub(super) struct Shared {
    settings: Settings,
    sketch: Sketch,
    quota: Mutex<Quota>,
    budget: Option<Budget>,
    origin: Instant,
    metrics: &'static Series<HedgeMetrics>,
}

impl Shared {
    pub(super) fn new(
        settings: Settings,
        budget: Option<Budget>,
        metrics: &'static Series<HedgeMetrics>,
    ) -> Self {
        metrics.levels().set(settings.delay);
        Self {
            sketch: Sketch::new(settings.sketch, lanes()),
            quota: Mutex::new(Quota::new(settings.rate_share, settings.burst)),
            settings,
            budget,
            origin: Instant::now(),
            metrics,
        }
    }

    pub(super) fn name(&self) -> &'static str {
        self.metrics.name()
    }

    #[inline]
    pub(super) fn max_hedges(&self) -> u32 {
        self.settings.max_hedges
    }

    /// The time after which a call that begins now is hedged.
    #[inline]
    pub(super) fn delay(&self, now: Instant) -> Option<Duration> {
        self.keep(now);
        match self.settings.delay {
            None => self.sketch.quantile(),
            fixed => fixed,
        }
    }

    pub(super) fn is_slowed_down(&self, now: Instant) -> bool {
        self.keep(now);
        self.sketch.is_slow()
    }

    /// Collects the latencies of the last tick if it is over.
    #[inline]
    fn keep(&self, now: Instant) {
        if self.sketch.keep(nanos_between(self.origin, now)) {
            let delay = self.settings.delay.or(self.sketch.quantile());
            self.metrics.levels().set(delay);
            self.metrics.publish(now);
        }
    }

    /// Says whether a hedge may be sent now, and pays for it.
    pub(super) fn pay(&self, now: Instant) -> bool {
        let denied = if self.is_slowed_down(now) {
            Hedged::DeniedSlowdown
        } else if self.withdraw(now) {
            return true;
        } else {
            Hedged::DeniedBudget
        };
        self.report(denied, now);
        self.settings.mode == Mode::Observe
    }

    fn withdraw(&self, now: Instant) -> bool {
        let calls = self.sketch.calls();
        let recent = self.sketch.recent_calls();
        if !lock(&self.quota).take(calls, recent) {
            return false;
        }
        let budget = self.budget.as_ref();
        let allowed = budget.is_none_or(|budget| budget.withdraw(budget::HEDGE, now));
        if !allowed {
            lock(&self.quota).put_back();
        }
        allowed
    }

    /// Notes that an operation begins whose success pays for later hedges.
    #[inline]
    pub(super) fn enter(&self) {
        if let Some(budget) = &self.budget {
            budget.enter();
        }
    }

    /// Notes that such an operation is over, and what it brings.
    #[inline]
    pub(super) fn leave(&self, gain: Gain) {
        if let Some(budget) = &self.budget {
            budget.leave(gain);
        }
    }

    /// Notes what the end of a first attempt says about the time that calls take.
    #[inline]
    pub(super) fn record(&self, now: Instant, took: Took) {
        self.keep(now);
        self.sketch.record(lane(), took);
    }

    #[cold]
    pub(super) fn report(&self, result: Hedged, now: Instant) {
        self.metrics.report(now, |metrics| metrics.hedged(result));
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hedge")
            .field("name", &self.name())
            .field("settings", &self.settings)
            .field("budget", &self.budget)
            .finish_non_exhaustive()
    }
}
