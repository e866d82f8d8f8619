//! The layer of hedging, and its handle.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::config::{Config, Settings};
use crate::chassis::{At, Hedger, Hedging, Kept, Operation, OperationLayer, Plan, PlanFor};
use crate::debug::debug_fields;
use crate::error::or_panic;
use crate::timer::Timer;
use crate::{ByClone, ErrorsAreFailures, Mode};

/// Sends a copy of a request that takes too long. See the [module documentation](crate::hedge).
///
/// All services made by one layer value, or by its clones, share the latencies and the allowance.
pub type HedgeLayer<R = ByClone, K = ErrorsAreFailures> = OperationLayer<HedgePlan, R, K>;

/// A service whose slow calls are sent again. Made by [`HedgeLayer`].
pub type Hedge<S, R = ByClone, K = ErrorsAreFailures> = Operation<S, HedgePlan, R, K>;

/// The plan of a [`HedgeLayer`]: attempts in parallel.
#[derive(Debug)]
pub struct HedgePlan(pub(super) Arc<Hedger>);

impl Plan for HedgePlan {
    type Operation = ();
    type Attempt = ();
    type Times = ();
    type Hedging = Kept<Hedging>;
    type Timer = Kept<Timer>;

    #[inline(always)]
    fn hedge(&self) -> Option<&Arc<Hedger>> {
        Some(&self.0)
    }
}

impl<Req> PlanFor<Req> for HedgePlan {}

impl HedgeLayer {
    /// Makes a hedge with the default settings and no budget.
    ///
    /// # Panics
    ///
    /// If `name` is empty.
    #[must_use]
    #[track_caller]
    pub fn new(name: &str) -> Self {
        or_panic(Self::config(name).build())
    }

    /// Begins to configure a hedge.
    pub fn config(name: impl Into<String>) -> Config {
        Config::new(name, Settings::default(), ByClone)
    }
}

impl<R, K> HedgeLayer<R, K> {
    /// Returns a handle that reads the state of the hedge.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle::of(&self.plan().0, self.origin())
    }
}

/// Reads the state of a hedge. Clones are handles of the same hedge.
#[derive(Clone)]
pub struct Handle {
    shared: Arc<Hedger>,
    origin: Instant,
}

impl Handle {
    pub(crate) fn of(shared: &Arc<Hedger>, origin: Instant) -> Self {
        Self {
            shared: Arc::clone(shared),
            origin,
        }
    }

    fn now(&self) -> At {
        At::unread(self.origin)
    }

    /// Returns the name of the hedge.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.shared.name()
    }

    /// Returns the time after which a call is hedged; `None` while the percentile is not known.
    #[must_use]
    pub fn delay(&self) -> Option<Duration> {
        self.shared.delay(&self.now())
    }

    /// Sets whether hedges are denied when the allowance or the budget is used up, or whether this is only observed.
    ///
    /// It concerns all services of the layer, from the next hedge on.
    pub fn set_mode(&self, mode: Mode) {
        self.shared.set_mode(mode);
    }

    /// Returns whether calls are not hedged because most of them are slow.
    #[must_use]
    pub fn is_slowed_down(&self) -> bool {
        self.shared.is_slowed_down(&self.now())
    }
}

debug_fields!(Handle { name(), delay() });
