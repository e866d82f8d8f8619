//! Settings of the fallback.

use std::sync::Arc;

use super::failed::{Failed, Failures};
use super::layer::{FallbackLayer, Policy};
use crate::debug::debug_fields;
use crate::error::Check;
use crate::telemetry::Series;
use crate::{ByClone, ConfigError, ErrorsAreFailures};

/// The settings of a [`FallbackLayer`]. Made by [`FallbackLayer::config`].
#[derive(Clone, PartialEq)]
#[must_use = "call `build` to make the layer"]
pub struct Config<A, W = Failures, K = ErrorsAreFailures, R = ByClone> {
    name: String,
    pub(super) answer: A,
    pub(super) when: W,
    pub(super) classify: K,
    pub(super) replay: R,
}

impl<A, W, K, R> Config<A, W, K, R> {
    pub(super) fn new(name: String, answer: A, when: W, classify: K, replay: R) -> Self {
        Self {
            name,
            answer,
            when,
            classify,
            replay,
        }
    }

    /// Acts on the failed calls that `when` chooses. By default on failures, overloads and rejections.
    ///
    /// Asked about every result that is classified neither a success nor cancelled.
    pub fn when<Res, W2>(self, when: W2) -> Config<A, W2, K, R>
    where
        W2: Fn(Failed<'_, Res>) -> bool,
    {
        Config::new(self.name, self.answer, when, self.classify, self.replay)
    }

    /// Classifies calls with `classify`, those of a second service as well. By default errors are failures.
    pub fn classify<K2>(self, classify: K2) -> Config<A, W, K2, R> {
        Config::new(self.name, self.answer, self.when, classify, self.replay)
    }

    /// Copies requests with `replay`: a closure `|request: &Req| -> Option<Req>`, or a type of your own.
    /// By default with `Clone`.
    ///
    /// Asked only if the answer needs the request, see the [module documentation](crate::fallback).
    pub fn replay<R2>(self, replay: R2) -> Config<A, W, K, R2> {
        Config::new(self.name, self.answer, self.when, self.classify, replay)
    }

    /// Makes the layer.
    ///
    /// # Errors
    ///
    /// If the name is empty.
    pub fn build(self) -> Result<FallbackLayer<A, W, K, R>, ConfigError> {
        Check::new("fallback", &self.name)?;
        let metrics = Series::of(&self.name, "fallback");
        let config = self;
        Ok(FallbackLayer {
            policy: Arc::new(Policy { config, metrics }),
        })
    }
}

debug_fields!([A, W, K, R] Config<A, W, K, R> { name });
