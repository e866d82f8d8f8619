//! The service of a layer that changes requests or results. Such a layer neither waits nor holds a resource for a call.
//!
//! The layer states its changes with [`Adapt`] and [`AdaptResult`]. The service and its future are the same for all
//! such layers.

use std::pin::Pin;
use std::task::{self, Poll, ready};

use pin_project_lite::pin_project;
use tower::Service;

use crate::debug::debug_fields;
use crate::ready::{Call, Ready};
use crate::send::send_method;
use crate::{BoxError, CloneService, Error};

/// The changes that a layer makes to a request of type `Req`.
pub trait Adapt<Req> {
    /// The request that the inner service gets.
    type Request;

    /// Changes the result of the call.
    type Result;

    /// Changes a request, and returns the data that the change of its result needs.
    fn adapt(&self, request: Req) -> (Self::Request, Self::Result);

    /// Calls the inner service, or refuses the call.
    #[inline]
    fn call<S>(
        &self,
        inner: Inner<'_, S>,
        request: Req,
    ) -> ResponseFuture<S, Self::Request, Self::Result>
    where
        S: Service<Self::Request> + Clone,
    {
        let (request, result) = self.adapt(request);
        inner.call(request, result)
    }
}

/// The inner service, to be called once.
#[derive(Debug)]
pub struct Inner<'a, S>(&'a mut Ready<S>);

impl<S: Clone> Inner<'_, S> {
    /// Returns whether a call reaches the inner service at once.
    #[inline]
    pub(super) fn is_ready(&self) -> bool {
        self.0.is_ready()
    }

    #[inline]
    pub(super) fn call<Req, T>(self, request: Req, result: T) -> ResponseFuture<S, Req, T>
    where
        S: Service<Req>,
    {
        let future = move |call, (): &mut ()| ResponseFuture { call, result };
        self.0.call_as(request, &mut (), future)
    }

    /// Gives up what the inner service has reserved. The call fails with `error`.
    #[cold]
    pub(super) fn refuse<Req, T>(self, error: Error, result: T) -> ResponseFuture<S, Req, T>
    where
        S: Service<Req>,
    {
        self.0.release();
        let call = Call::failed(error);
        ResponseFuture { call, result }
    }
}

/// The changes that a layer makes to the result of a call that was answered with a `Res`.
pub trait AdaptResult<Res> {
    /// The response of the outer service.
    type Response;

    /// The error of the outer service.
    type Error;

    /// Returns the name of the layer, for errors without a name.
    fn name(&self) -> &'static str {
        ""
    }

    /// Changes a result.
    fn adapt(&self, result: Result<Res, Error>) -> Result<Self::Response, Self::Error>;
}

/// Leaves results as they are.
#[derive(Debug)]
pub struct Unchanged;

impl<Res> AdaptResult<Res> for Unchanged {
    type Response = Res;
    type Error = Error;

    #[inline]
    fn adapt(&self, result: Result<Res, Error>) -> Result<Res, Error> {
        result
    }
}

/// A service under a layer that changes requests or results.
#[derive(Clone, Debug)]
pub struct Adapted<S, L> {
    inner: Ready<S>,
    layer: L,
}

impl<S, L> Adapted<S, L> {
    pub(super) fn new(inner: S, layer: L) -> Self {
        let inner = Ready::new(inner);
        Self { inner, layer }
    }
}

send_method!(Adapted<S, L>);

impl<S, L, Req> Service<Req> for Adapted<S, L>
where
    L: Adapt<Req>,
    S: CloneService<L::Request>,
    L::Result: AdaptResult<S::Response>,
{
    type Response = <L::Result as AdaptResult<S::Response>>::Response;
    type Error = <L::Result as AdaptResult<S::Response>>::Error;
    type Future = ResponseFuture<S, L::Request, L::Result>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll(cx);
        Poll::Ready(Ok(()))
    }

    #[inline]
    fn call(&mut self, request: Req) -> Self::Future {
        self.layer.call(Inner(&mut self.inner), request)
    }
}

pin_project! {
    /// The response future of a service under a layer that changes requests or results.
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<S, Req, T = Unchanged>
    where
        S: Service<Req>,
    {
        #[pin]
        call: Call<S, Req>,
        result: T,
    }
}

impl<S, Req, T> Future for ResponseFuture<S, Req, T>
where
    S: Service<Req, Error: Into<BoxError> + 'static>,
    T: AdaptResult<S::Response>,
{
    type Output = Result<T::Response, T::Error>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let (call, result) = (this.call, &*this.result);
        let polled = ready!(call.poll(cx, || result.name()));
        Poll::Ready(result.adapt(polled))
    }
}

debug_fields!([S: Service<Req>, Req, T] ResponseFuture<S, Req, T> { call });
