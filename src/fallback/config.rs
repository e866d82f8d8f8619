//! Settings of the fallback.

use std::sync::Arc;

use super::answer::{ANSWERED, NoAnswer};
use super::failed::{Failed, Failures};
use super::layer::{FallbackLayer, Policy};
use crate::chassis::LayerConfig;
use crate::debug::debug_fields;
use crate::error::Check;
use crate::telemetry::table::FALLBACKS;
use crate::telemetry::{Initial, Series};
use crate::{ByClone, ConfigError, ErrorsAreFailures};

/// The settings of a [`FallbackLayer`]. Made by [`FallbackLayer::config`].
pub type Config<A, W = Failures, K = ErrorsAreFailures, R = ByClone> =
    LayerConfig<Settings<A, W>, R, K>;

/// The settings of a fallback in a [`Config`].
#[derive(Clone, PartialEq)]
pub struct Settings<A, W> {
    pub(super) answer: A,
    pub(super) when: W,
}

impl<A, W, K, R> Config<A, W, K, R> {
    /// Sets the failed calls that the fallback acts on: `when` chooses them. By default these are failures, overloads
    /// and rejections.
    ///
    /// `when` is called for every result that is classified neither a success nor cancelled.
    pub fn when<Res, W2>(self, when: W2) -> Config<A, W2, K, R>
    where
        W2: Fn(Failed<'_, Res>) -> bool,
    {
        self.with_settings(|settings| Settings {
            answer: settings.answer,
            when,
        })
    }

    /// Sets the function that copies requests: a closure `|request: &Req| -> Option<Req>`, or a type of your own. By
    /// default requests are cloned.
    ///
    /// `replay` is called only if the answer needs the request, see the [module documentation](crate::fallback).
    pub fn replay<R2>(self, replay: R2) -> Config<A, W, K, R2> {
        self.with_request(replay)
    }

    /// Makes the layer.
    ///
    /// # Errors
    ///
    /// If the name is empty.
    pub fn build(self) -> Result<FallbackLayer<A, W, K, R>, ConfigError> {
        Check::new("fallback", &self.name)?;
        let results = [ANSWERED, NoAnswer::None.label()];
        let counters = results.map(|result| Initial::of(&FALLBACKS, &[result]));
        let metrics = Series::of(&self.name, "fallback").begin(counters);
        let config = self;
        Ok(FallbackLayer {
            policy: Arc::new(Policy { config, metrics }),
        })
    }
}

debug_fields!([A, W] Settings<A, W> {});
