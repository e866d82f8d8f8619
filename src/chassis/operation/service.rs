//! The layer and the service of an operation.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::task::{self, Poll};

use tokio::time::Instant;
use tower::{Layer, Service};

use super::future::OperationFuture;
use super::plan::{Plan, PlanFor};
use super::running::Running;
use crate::chassis::held::{Core, InFlight, Owner};
use crate::chassis::part::Part;
use crate::context::DirectCall;
use crate::debug::debug_fields;
use crate::ready::Ready;
use crate::send::send_method;
use crate::sync::lock;
use crate::{
    ByClone, CallOptions, Classify, CloneService, CompleteOnResponse, Error, ErrorsAreFailures,
    Evictable, Replay, TrackCompletion, context,
};

/// The layer of an operation with the plan `P`.
///
/// All services made by one layer value, or by its clones, share its state.
pub struct OperationLayer<P: Plan, R = ByClone, K = ErrorsAreFailures, C = CompleteOnResponse> {
    recipe: Arc<Recipe<P, R, K, C>>,
}

/// A service whose calls are operations with the plan `P`. Made by [`OperationLayer`].
///
/// It is `Clone`, and `Send` and `Sync` if the inner service is.
pub struct Operation<S, P: Plan, R = ByClone, K = ErrorsAreFailures, C = CompleteOnResponse> {
    inner: Ready<S>,
    shared: Arc<Shared<S, P, R, K, C>>,
}

/// The state that all services of one layer value share.
pub(crate) struct Recipe<P: Plan, R, K, C> {
    pub(crate) core: Arc<Core<P::Operation, P::Attempt>>,
    pub(crate) plan: P,
    pub(crate) replay: R,
    pub(crate) classify: K,
    pub(crate) completion: C,
}

/// The state that all clones of one service share.
pub(crate) struct Shared<S, P: Plan, R, K, C> {
    core: Arc<Core<P::Operation, P::Attempt>>,
    pub(super) recipe: Arc<Recipe<P, R, K, C>>,
    /// Cloned for each further attempt, so that the first attempt, which is mostly the only one, costs no clone.
    template: Mutex<S>,
}

/// The reference that a call holds while it runs.
pub(super) type SharedRef<S, P, R, K, C> = Arc<Shared<S, P, R, K, C>>;

impl<S: Clone, P: Plan, R, K, C> Shared<S, P, R, K, C> {
    /// Returns a service for a further attempt.
    pub(super) fn service(&self) -> S {
        lock(&self.template).clone()
    }
}

impl<S, P: Plan, R, K, C> Owner for Arc<Shared<S, P, R, K, C>> {
    type O = P::Operation;
    type A = P::Attempt;

    #[inline]
    fn core(&self) -> &Arc<Core<P::Operation, P::Attempt>> {
        &self.core
    }
}

impl<P: Plan, R, K, C> OperationLayer<P, R, K, C> {
    pub(crate) fn of(recipe: Recipe<P, R, K, C>) -> Self {
        let recipe = Arc::new(recipe);
        Self { recipe }
    }

    pub(crate) fn recipe(&self) -> &Recipe<P, R, K, C> {
        &self.recipe
    }

    pub(crate) fn plan(&self) -> &P {
        &self.recipe.plan
    }

    /// Returns the origin of the nanoseconds of its parts.
    pub(crate) fn origin(&self) -> Instant {
        self.recipe.core.origin
    }

    /// Returns the parts of each attempt.
    pub(crate) fn parts(&self) -> &P::Attempt {
        &self.recipe.core.attempt
    }

    /// Wraps `service`. The compiler checks that it can serve requests of type `Req`, and that they can be copied.
    pub fn wrap<Req, S>(&self, service: S) -> Operation<S, P, R, K, C>
    where
        S: CloneService<Req>,
        P: PlanFor<Req>,
        R: Replay<Req>,
        K: Classify<S::Response>,
        C: TrackCompletion<S::Response, K>,
    {
        self.layer(service)
    }
}

impl<S, P: Plan, R, K, C> Operation<S, P, R, K, C> {
    pub(crate) fn recipe(&self) -> &Recipe<P, R, K, C> {
        &self.shared.recipe
    }
}

impl<S: Clone, P: Plan, R, K, C> Layer<S> for OperationLayer<P, R, K, C> {
    type Service = Operation<S, P, R, K, C>;

    fn layer(&self, inner: S) -> Self::Service {
        let shared = Shared {
            core: Arc::clone(&self.recipe.core),
            recipe: Arc::clone(&self.recipe),
            template: Mutex::new(inner.clone()),
        };
        Operation {
            inner: Ready::new(inner),
            shared: Arc::new(shared),
        }
    }
}

impl<P: Plan, R, K, C> Evictable for OperationLayer<P, R, K, C> {
    /// Returns `true` if all parts are evictable. Budgets do not matter, because a new budget has only the tokens for
    /// one operation.
    fn is_evictable(&self, now: Instant) -> bool {
        self.parts().is_evictable(now)
    }
}

impl<P: Plan, R, K, C> Clone for OperationLayer<P, R, K, C> {
    fn clone(&self) -> Self {
        let recipe = Arc::clone(&self.recipe);
        Self { recipe }
    }
}

debug_fields!(
    [P: Plan + fmt::Debug, R, K, C] OperationLayer<P, R, K, C>
    { recipe.core.name, recipe.plan }
);

impl<S: Clone, P: Plan, R, K, C> Clone for Operation<S, P, R, K, C> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            shared: Arc::clone(&self.shared),
        }
    }
}

debug_fields!(
    [S: fmt::Debug, P: Plan + fmt::Debug, R, K, C] Operation<S, P, R, K, C>
    { shared.core.name, shared.recipe.plan, inner }
);

send_method!(Operation<S, P: Plan, R, K, C>);

impl<S, P: Plan, R, K, C> Operation<S, P, R, K, C> {
    /// Makes a call, with these options and those of its request.
    #[inline(always)]
    pub(crate) fn call_with<Req>(
        &mut self,
        mut request: Req,
        options: Option<CallOptions>,
    ) -> OperationFuture<S, Req, P, R, K, C>
    where
        S: CloneService<Req>,
        P: PlanFor<Req>,
        R: Replay<Req>,
    {
        // In one place from the beginning, with the copy of the request beside it, which the future takes over as it is.
        let mut place = (Some(Running::new(&self.shared)), None);
        let Some(running) = &mut place.0 else {
            unreachable!("it was put there");
        };
        running.is_direct = context::take_direct();
        let _direct = DirectCall::enter();
        let at = running.held.core().at();
        let mut begun = running.begin(&request, options, &at);
        let _scope = running.scope();
        if begun.is_ok() {
            begun = running.begin_attempt(&mut request, &mut place.1, &at);
        }
        if begun.is_err() || !running.held.is_sent() {
            let call = self.inner.call_later(request, begun);
            let (running, copy) = place;
            return OperationFuture::new(call, running, copy);
        }
        self.inner
            .call_as(request, &mut place, |call, (running, copy)| {
                if let Some(running) = running {
                    running.tried = context::tried();
                }
                OperationFuture::new(call, running.take(), copy.take())
            })
    }
}

impl<S, P, R, K, C, Req> Service<Req> for Operation<S, P, R, K, C>
where
    S: CloneService<Req>,
    P: PlanFor<Req>,
    R: Replay<Req>,
    K: Classify<S::Response>,
    C: TrackCompletion<S::Response, K>,
{
    type Response = C::Response<InFlight<P::Operation, P::Attempt>>;
    type Error = Error;
    type Future = OperationFuture<S, Req, P, R, K, C>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), Error>> {
        if self.shared.core.operation.is_open() && self.shared.core.attempt.is_open() {
            self.inner.poll(cx);
        }
        Poll::Ready(Ok(()))
    }

    #[inline]
    fn call(&mut self, request: Req) -> Self::Future {
        self.call_with(request, None)
    }
}
