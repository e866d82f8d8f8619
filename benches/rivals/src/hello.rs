//! The smallest program with a layer in it, whose size shows what the layer adds to a program.

use std::fmt::Debug;
use std::future::{Ready, ready};
use std::task::{Context, Poll};

use tower::{BoxError, Layer, Service, ServiceExt};

/// Gives the answer that it holds.
#[derive(Clone, Debug)]
pub(crate) struct Hello<T>(T);

impl<T: Clone, Req> Service<Req> for Hello<T> {
    type Response = T;
    type Error = BoxError;
    type Future = Ready<Result<T, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Req) -> Self::Future {
        ready(Ok(self.0.clone()))
    }
}

/// Makes one call through `layer`.
pub(crate) fn say<L, Req, T>(layer: &L, request: Req, answer: T)
where
    L: Layer<Hello<T>, Service: Service<Req, Error: Debug>>,
{
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime without input and output needs nothing");
    let called = runtime.block_on(layer.layer(Hello(answer)).oneshot(request));
    called.expect("it answers");
    println!("hello");
}
