//! Services whose calls have settings of their own.

use std::task::{self, Poll};

use tower::Service;

use super::layer::{StandardPlan, StandardService};
use crate::chassis::{Operation, PlanFor};
use crate::debug::debug_fields;
use crate::send::send_method;
use crate::{CallOptions, Classify, CloneService, Error, Replay, TrackCompletion};

/// A service or a client whose calls all have the same [`CallOptions`]. Made by `with`.
#[derive(Clone)]
pub struct WithOptions<S> {
    pub(crate) inner: S,
    pub(crate) options: CallOptions,
}

debug_fields!([S] WithOptions<S> { options });

impl<S: Clone, R, K, C, D: Send + Sync + 'static> StandardService<S, R, K, C, D> {
    /// Returns a service whose calls have these options: `stock.with(CallOptions::new().no_retry()).send(request)`. It
    /// shares its state with this service.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use buttress::{BoxError, CallOptions, ErrorKind, standard};
    /// use tower::service_fn;
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), BoxError> {
    /// let client = service_fn(|_item: &'static str| async {
    ///     tokio::time::sleep(Duration::from_secs(1)).await;
    ///     Ok::<_, BoxError>(12)
    /// });
    /// let stock = standard("stock").concurrency_limit(50).build()?.wrap(client);
    /// let hasty = stock.with(CallOptions::new().deadline(Duration::from_millis(100)));
    /// let error = hasty.send("bolts").await.unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::DeadlineExceeded);
    /// assert_eq!(stock.send("bolts").await?, 12);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn with(&self, options: CallOptions) -> WithOptions<Self> {
        WithOptions {
            inner: self.clone(),
            options,
        }
    }
}

send_method!(WithOptions<S>);

impl<S, R, K, C, D, Req> Service<Req> for WithOptions<StandardService<S, R, K, C, D>>
where
    S: CloneService<Req>,
    StandardPlan<D>: PlanFor<Req>,
    R: Replay<Req>,
    K: Classify<S::Response>,
    C: TrackCompletion<S::Response, K>,
    D: Send + Sync + 'static,
{
    type Response = <StandardService<S, R, K, C, D> as Service<Req>>::Response;
    type Error = Error;
    type Future = <StandardService<S, R, K, C, D> as Service<Req>>::Future;

    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        Operation::call_with(&mut self.inner, request, Some(self.options))
    }
}
