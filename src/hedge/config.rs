//! Settings of hedging.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::layer::{HedgeLayer, HedgePlan};
use crate::algorithm::sketch;
pub use crate::chassis::HedgeSettings as Settings;
use crate::chassis::{Core, Hedger, LayerConfig};

use crate::error::Check;
use crate::telemetry::{Listener, Report, Series};
use crate::{Budget, ByClone, ConfigError, ErrorsAreFailures, Mode, budget};

/// Two calls in a hundred are hedged: the extra load of the published experiments.
const PERCENTILE: f64 = 0.98;
/// Long enough for a stable percentile, short enough to follow the service.
const WINDOW: Duration = Duration::from_secs(30);
/// A thirtieth of the window is a tick, and timers are exact to a millisecond.
const MIN_WINDOW: Duration = Duration::from_millis(30);
/// With fewer calls, one or two of them decide the 98th percentile.
const MIN_SAMPLES: u32 = 100;
/// A second copy removes most of the tail, and a third one removes hardly more.
const MAX_HEDGES: u32 = 1;
/// Two and a half times the share that the percentile hedges, so that hedges are denied only when something is wrong.
const RATE_SHARE: f64 = 0.05;
/// Enough for a short stall of a client with little traffic.
const BURST: u32 = 10;
/// Sign of a general slowdown: if half of the calls take half as long again, more than a few servers are slow.
const SLOWDOWN: f64 = 1.5;

/// The settings of a [`HedgeLayer`]. Made by [`HedgeLayer::config`].
pub type Config<R = ByClone, K = ErrorsAreFailures> = LayerConfig<Settings, R, K>;

impl Default for Settings {
    fn default() -> Self {
        Self {
            delay: None,
            max_hedges: MAX_HEDGES,
            mode: Mode::Enforce,
            sketch: sketch::Settings {
                window: WINDOW,
                quantile: PERCENTILE,
                min_samples: MIN_SAMPLES,
                slowdown: SLOWDOWN,
            },
            rate_share: RATE_SHARE,
            burst: BURST,
            budget: None,
        }
    }
}

impl<R, K> Config<R, K> {
    /// Sets the time after which a call is hedged. By default it is a [`percentile`](Self::percentile) of recent calls.
    pub fn delay(mut self, delay: Duration) -> Self {
        self.settings.delay = Some(delay);
        self
    }

    /// Sets the percentile of recent calls after which a call is hedged; 0.5 to 0.9999. 0.98 by default.
    pub fn percentile(mut self, share: f64) -> Self {
        self.settings.delay = None;
        self.settings.sketch.quantile = share;
        self
    }

    /// Sets the window of time whose calls count as recent; at least 30 ms. 30 s by default.
    pub fn window(mut self, window: Duration) -> Self {
        self.settings.sketch.window = window;
        self
    }

    /// Sets the least number of recent calls for a percentile; 1 to 1,000,000. With fewer, calls are not hedged. 100 by
    /// default.
    pub fn min_samples(mut self, calls: u32) -> Self {
        self.settings.sketch.min_samples = calls;
        self
    }

    /// Sets the number of hedges that one call may have, each after a further delay; 1 to 10. 1 by default.
    pub fn max_hedges(mut self, hedges: u32) -> Self {
        self.settings.max_hedges = hedges;
        self
    }

    /// Sets the number of hedges per call in the long run; above 0 and at most 1. 0.05 by default.
    pub fn rate_share(mut self, share: f64) -> Self {
        self.settings.rate_share = share;
        self
    }

    /// Sets the number of hedges that can be sent at once in addition; 1 to 1,000,000. 10 by default.
    ///
    /// At high rates it is more: a fifth of the hedges that the calls of the last thirtieth of the window pay for.
    pub fn burst(mut self, hedges: u32) -> Self {
        self.settings.burst = hedges;
        self
    }

    /// Sets the factor of a general slowdown; above 1 and at most 1000. Calls are not hedged while the median of the
    /// last thirtieth of the window is above `factor` times the median of the window. 1.5 by default.
    pub fn slowdown(mut self, factor: f64) -> Self {
        self.settings.sketch.slowdown = factor;
        self
    }

    /// Sets a budget that pays for hedges in addition to the layer's own allowance. Other layers may share it. By
    /// default there is none.
    ///
    /// A hedge costs as much as two retries, and its tokens are not refunded.
    pub fn budget(mut self, budget: &Budget) -> Self {
        self.settings.budget = Some(budget.clone());
        self
    }

    pub(crate) fn fixed_delay(&self) -> Option<Duration> {
        self.settings.delay
    }

    /// Sets whether hedges are denied when the allowance or the budget is used up, or whether this is only observed.
    /// [`Mode::Enforce`] by default.
    ///
    /// During a general slowdown, calls are not hedged in either mode.
    pub fn mode(mut self, mode: Mode) -> Self {
        self.settings.mode = mode;
        self
    }

    /// Sets the policy that copies requests: a closure `|request: &Req| -> Option<Req>`, or a type of your own. By
    /// default requests are copied with `Clone`.
    pub fn replay<R2>(self, replay: R2) -> Config<R2, K> {
        self.with_request(replay)
    }

    /// Makes the layer.
    ///
    /// # Errors
    ///
    /// If the name is empty or a value is outside its range.
    pub fn build(self) -> Result<HedgeLayer<R, K>, ConfigError> {
        let shared = self.shared(None, &self.listener)?;
        let core = Core::new(shared.name(), Instant::now(), (), ());
        Ok(self.operation_layer(core, |_| HedgePlan(shared)))
    }

    /// Makes the [`Hedger`], which decides about hedges. `budget` pays for them unless another budget is set.
    pub(crate) fn shared(
        &self,
        budget: Option<&Budget>,
        listener: &Listener,
    ) -> Result<Arc<Hedger>, ConfigError> {
        let mut settings = self.settings.clone();
        settings.check(Check::new("hedge", &self.name)?)?;
        settings.budget = settings.budget.or_else(|| budget.cloned());
        if let Some(budget) = &settings.budget {
            budget.raise_initial(settings.max_hedges * budget::HEDGE);
        }
        let metrics = Series::of_hedge(&self.name, settings.delay);
        let metrics = Report::new(metrics, listener.clone());
        Ok(Arc::new(Hedger::new(settings, metrics)))
    }
}

impl Settings {
    fn check(&self, check: Check<'_>) -> Result<(), ConfigError> {
        if let Some(delay) = self.delay {
            check.duration("delay", delay)?;
        }
        let sketch::Settings {
            window,
            quantile,
            min_samples,
            slowdown,
        } = self.sketch;
        check.within("percentile", &quantile, 0.5..=0.9999, "0.5 to 0.9999")?;
        check.duration("window", window)?;
        check.within("window", &window, MIN_WINDOW.., "at least 30ms")?;
        check.count("min_samples", min_samples, 1_000_000, "1 to 1000000")?;
        check.count("max_hedges", self.max_hedges, 10, "1 to 10")?;
        check.share("rate_share", self.rate_share)?;
        check.count("burst", self.burst, 1_000_000, "1 to 1000000")?;
        let is_factor = slowdown > 1.0 && slowdown <= 1000.0;
        check.that(is_factor, "slowdown", &slowdown, "above 1 and at most 1000")
    }
}
