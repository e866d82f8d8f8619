//! The shape of all configurations.

use std::fmt;
use std::sync::Arc;

use tokio::time::Instant;

use super::{Core, OperationLayer, Part, PartLayer, Plan, Recipe};
use crate::debug::debug_fields;
use crate::event::Event;
use crate::hints::layer_after_build;
use crate::telemetry::Listener;
use crate::{CompleteOnResponse, ErrorsAreFailures};

/// The settings `S` of a layer, its name, and its type parameters.
///
/// Each layer has an alias for its own configuration, such as
/// [`circuit_breaker::Config`](crate::circuit_breaker::Config), and its own setters. `R` copies requests, returns their
/// costs or chooses endpoints, `K` classifies calls, and `C` sets the end of a call.
#[derive(Clone, PartialEq)]
#[must_use = "call `build` to make the layer"]
pub struct LayerConfig<S, R = (), K = ErrorsAreFailures, C = CompleteOnResponse> {
    pub(crate) name: String,
    pub(crate) settings: S,
    pub(crate) request: R,
    pub(crate) classify: K,
    pub(crate) completion: C,
    pub(crate) listener: Listener,
}

/// A setting that can be turned off.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Choice<T> {
    /// It was not set.
    Default,
    Off,
    Set(T),
}

impl<T> Choice<T> {
    pub(crate) fn value(&self) -> Option<&T> {
        match self {
            Self::Set(value) => Some(value),
            Self::Default | Self::Off => None,
        }
    }
}

impl<S, R> LayerConfig<S, R> {
    pub(crate) fn new(name: impl Into<String>, settings: S, request: R) -> Self {
        Self {
            name: name.into(),
            settings,
            request,
            classify: ErrorsAreFailures,
            completion: CompleteOnResponse,
            listener: Listener::default(),
        }
    }
}

impl<S, R, K, C> LayerConfig<S, R, K, C> {
    /// Sets a function that is called with each decision of the layer, such as a retry, a refusal or a change of state.
    /// For a stack, these are the decisions of all its parts. See [events](crate::event).
    ///
    /// The function runs on the task that caused the event, and no lock is held. Its panics are caught. A second call
    /// replaces the function.
    pub fn on_event(mut self, listener: impl Fn(&Event<'_>) + Send + Sync + 'static) -> Self {
        self.listener = Listener::new(listener);
        self
    }

    /// Sets the classifier of calls: a type of your own, a function, or a closure that names the type of its argument,
    /// `|result: Result<&Answer, &Error>|`. By default errors are failures.
    pub fn classify<K2>(self, classify: K2) -> LayerConfig<S, R, K2, C> {
        LayerConfig {
            name: self.name,
            settings: self.settings,
            request: self.request,
            classify,
            completion: self.completion,
            listener: self.listener,
        }
    }

    pub(crate) fn with_settings<S2>(
        self,
        settings: impl FnOnce(S) -> S2,
    ) -> LayerConfig<S2, R, K, C> {
        LayerConfig {
            name: self.name,
            settings: settings(self.settings),
            request: self.request,
            classify: self.classify,
            completion: self.completion,
            listener: self.listener,
        }
    }

    pub(crate) fn with_request<R2>(self, request: R2) -> LayerConfig<S, R2, K, C> {
        LayerConfig {
            name: self.name,
            settings: self.settings,
            request,
            classify: self.classify,
            completion: self.completion,
            listener: self.listener,
        }
    }

    pub(crate) fn with_completion<C2>(self, completion: C2) -> LayerConfig<S, R, K, C2> {
        LayerConfig {
            name: self.name,
            settings: self.settings,
            request: self.request,
            classify: self.classify,
            completion,
            listener: self.listener,
        }
    }

    /// Makes the layer of a part that counts time from `origin`.
    pub(crate) fn part_layer<P: Part>(
        self,
        name: &'static str,
        origin: Instant,
        part: impl FnOnce(R) -> P,
    ) -> PartLayer<P, K, C> {
        let part = part(self.request);
        PartLayer::with(name, origin, part, self.classify, self.completion)
    }

    /// Makes the layer of an operation.
    pub(crate) fn operation_layer<P: Plan>(
        self,
        core: Arc<Core<P::Operation, P::Attempt>>,
        plan: impl FnOnce(S) -> P,
    ) -> OperationLayer<P, R, K, C> {
        let recipe = Recipe {
            core,
            plan: plan(self.settings),
            replay: self.request,
            classify: self.classify,
            completion: self.completion,
        };
        OperationLayer::of(recipe)
    }
}

layer_after_build!([X, R, K, C] LayerConfig<X, R, K, C>);

debug_fields!([S: fmt::Debug, R, K, C] LayerConfig<S, R, K, C> { name, settings });
