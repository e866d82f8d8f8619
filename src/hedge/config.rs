//! Settings of hedging.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::layer::{HedgeLayer, HedgePlan};
use crate::algorithm::sketch;
pub use crate::chassis::HedgeSettings as Settings;
use crate::chassis::{Core, Hedger, LayerConfig};
use crate::error::Check;
use crate::telemetry::Series;
use crate::{Budget, ByClone, ConfigError, ErrorsAreFailures, Mode, budget};

/// Two calls in a hundred are hedged: the extra load of the published experiments.
const PERCENTILE: f64 = 0.98;
/// Long enough for a stable percentile, short enough to follow the service.
const WINDOW: Duration = Duration::from_secs(30);
/// A thirtieth of it is a tick, and timers are good to a millisecond.
const MIN_WINDOW: Duration = Duration::from_millis(30);
/// The 98th percentile of fewer is that of one or two calls.
const MIN_SAMPLES: u32 = 100;
/// A second copy takes away most of the tail, a third one next to nothing.
const MAX_HEDGES: u32 = 1;
/// Two and a half times what the percentile asks for, so that it only bites when something is wrong.
const RATE_SHARE: f64 = 0.05;
/// Enough for a short stall of a client with little traffic.
const BURST: u32 = 10;
/// When half of the calls take half as long again, it is not a few servers that are slow.
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
    /// Hedges calls that are slower than this time. By default those slower than a
    /// [`percentile`](Self::percentile).
    pub fn delay(mut self, delay: Duration) -> Self {
        self.settings.delay = Some(delay);
        self
    }

    /// Hedges calls that are slower than this share of recent ones; 0.5 to 0.9999. 0.98 by default.
    pub fn percentile(mut self, share: f64) -> Self {
        self.settings.delay = None;
        self.settings.sketch.quantile = share;
        self
    }

    /// What is recent; at least 30 ms. 30 s by default.
    pub fn window(mut self, window: Duration) -> Self {
        self.settings.sketch.window = window;
        self
    }

    /// With fewer recent calls the percentile is not known, and calls are not hedged; 1 to 1,000,000. 100 by
    /// default.
    pub fn min_samples(mut self, calls: u32) -> Self {
        self.settings.sketch.min_samples = calls;
        self
    }

    /// How many hedges one call may have, each after a further delay; 1 to 10. 1 by default.
    pub fn max_hedges(mut self, hedges: u32) -> Self {
        self.settings.max_hedges = hedges;
        self
    }

    /// How many hedges there may be per call in the long run; above 0 and at most 1. 0.05 by default.
    pub fn rate_share(mut self, share: f64) -> Self {
        self.settings.rate_share = share;
        self
    }

    /// How many hedges there may be on top of that at once; 1 to 1,000,000. 10 by default.
    ///
    /// More than that if there are many calls: a fifth of what those of the last thirtieth of the window pay for.
    pub fn burst(mut self, hedges: u32) -> Self {
        self.settings.burst = hedges;
        self
    }

    /// Does not hedge while the median of the last thirtieth of the window is above `factor` times the
    /// median of the window; above 1 and at most 1000. 1.5 by default.
    pub fn slowdown(mut self, factor: f64) -> Self {
        self.settings.sketch.slowdown = factor;
        self
    }

    /// Pays hedges from `budget` as well, which other layers may use. By default only from the layer's own
    /// allowance.
    ///
    /// A hedge costs as much as two retries, and nothing of that comes back.
    pub fn budget(mut self, budget: &Budget) -> Self {
        self.settings.budget = Some(budget.clone());
        self
    }

    pub(crate) fn fixed_delay(&self) -> Option<Duration> {
        self.settings.delay
    }

    /// Whether hedges that there is no budget for are really held back. [`Mode::Enforce`] by default.
    ///
    /// Calls to a service that is slow altogether are not hedged in either mode.
    pub fn mode(mut self, mode: Mode) -> Self {
        self.settings.mode = mode;
        self
    }

    /// Copies requests with `replay`: a closure `|request: &Req| -> Option<Req>`, or a type of your own.
    /// By default with `Clone`.
    pub fn replay<R2>(self, replay: R2) -> Config<R2, K> {
        self.with_request(replay)
    }

    /// Makes the layer.
    ///
    /// # Errors
    ///
    /// If the name is empty or a value is outside its range.
    pub fn build(self) -> Result<HedgeLayer<R, K>, ConfigError> {
        let shared = self.shared(None)?;
        let core = Core::new(shared.name(), Instant::now(), (), ());
        Ok(self.operation_layer(core, |_| HedgePlan(shared)))
    }

    /// Makes what decides about hedges. They are paid from `budget` unless another one is set.
    pub(crate) fn shared(&self, budget: Option<&Budget>) -> Result<Arc<Hedger>, ConfigError> {
        let mut settings = self.settings.clone();
        settings.check(Check::new("hedge", &self.name)?)?;
        settings.budget = settings.budget.or_else(|| budget.cloned());
        if let Some(budget) = &settings.budget {
            budget.raise_initial(settings.max_hedges * budget::HEDGE);
        }
        let metrics = Series::of(&self.name, "hedge");
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
