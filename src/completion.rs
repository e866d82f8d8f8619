//! When a call is over, and the token that stands for it until then.

use std::fmt;
use std::pin::Pin;
use std::task::{self, Poll, ready};

use pin_project_lite::pin_project;
use tower::Service;

use crate::ready::Call;
use crate::{BoxError, Classify, Error, Outcome};

/// Stands for one admitted call until its outcome is known.
///
/// A layer makes a token when it lets a call through. Resolving it records the outcome once.
/// Dropping it instead records [`Outcome::Cancelled`]; either way it gives back all that it held.
pub trait Token: Send + 'static {
    /// Records how the call ended.
    fn resolve(self, outcome: Outcome);

    /// Notes that the head of the answer has come, which was judged to be `outcome`, while the rest of it goes on.
    ///
    /// Called at most once, before the call ends, by a completion that waits for more than the head. What the call
    /// was is known at its end, unless the head was a failure. By default this does nothing.
    fn head(&mut self, outcome: Outcome) {
        let _ = outcome;
    }

    /// Records that a layer further in refused the call. By default it is [`Outcome::Ignored`].
    fn refuse(self)
    where
        Self: Sized,
    {
        self.resolve(Outcome::Ignored);
    }

    /// Records that a layer of this crate further in gave the call up because its time was over, which was
    /// judged to be `outcome`. By default it is that.
    fn time_out(self, outcome: Outcome)
    where
        Self: Sized,
    {
        self.resolve(outcome);
    }
}

/// Decides when a call is over.
///
/// Takes the token of the call and the response, whose head has been judged, and returns the
/// response that the caller gets. The default, [`AtResponse`], resolves the token there and then; a
/// completion that waits for the end of a streamed body tells the token of the [head](Token::head), and moves it into
/// the body, as `http::AtEndOfBody` of the feature `http` does. The layers that take one say so under `completion`.
///
/// # Examples
///
/// An answer that is in use until it is dropped, as a connection out of a pool:
///
/// ```
/// use buttress::{BoxError, BulkheadLayer, Completion, Outcome, Token};
/// use tower::{ServiceExt, service_fn};
///
/// struct Lease<R, T: Token> {
///     connection: R,
///     token: Option<T>,
/// }
///
/// impl<R, T: Token> Drop for Lease<R, T> {
///     fn drop(&mut self) {
///         if let Some(token) = self.token.take() {
///             token.resolve(Outcome::Success);
///         }
///     }
/// }
///
/// #[derive(Clone)]
/// struct UntilDropped;
///
/// impl<R, K> Completion<R, K> for UntilDropped {
///     type Response<T: Token> = Lease<R, T>;
///
///     fn attach<T: Token>(&self, connection: R, _: Outcome, _: &K, token: T) -> Lease<R, T> {
///         Lease { connection, token: Some(token) }
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), BoxError> {
/// let pool = service_fn(|()| async { Ok::<_, BoxError>("connection 7") });
/// let bulkhead = BulkheadLayer::config("database", 10).completion(UntilDropped).build()?;
/// let lease = bulkhead.wrap(pool).oneshot(()).await?;
/// assert_eq!((lease.connection, bulkhead.handle().in_flight()), ("connection 7", 1));
/// drop(lease);
/// assert_eq!(bulkhead.handle().in_flight(), 0);
/// # Ok(())
/// # }
/// ```
pub trait Completion<Res, K>: Clone {
    /// The response that carries the token, if it has to.
    type Response<T: Token>;

    /// Resolves `token` or attaches it to the response.
    fn attach<T: Token>(
        &self,
        response: Res,
        head: Outcome,
        classify: &K,
        token: T,
    ) -> Self::Response<T>;
}

/// A call is over when the inner service has returned its response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AtResponse;

impl<Res, K> Completion<Res, K> for AtResponse {
    type Response<T: Token> = Res;

    #[inline]
    fn attach<T: Token>(&self, response: Res, head: Outcome, _classify: &K, token: T) -> Res {
        token.resolve(head);
        response
    }
}

pin_project! {
    /// A call to the inner service and the token that stands for it.
    pub(crate) struct Tracked<S, Req, K, C, T>
    where
        S: Service<Req>,
    {
        // Before the token, so that what it holds is given back first when both are dropped.
        #[pin]
        call: Call<S, Req>,
        token: Option<T>,
        classify: K,
        completion: C,
    }
}

impl<S, Req, K, C, T> Tracked<S, Req, K, C, T>
where
    S: Service<Req>,
{
    /// A call without a token is one that this layer refused: it has failed already.
    #[inline]
    pub(crate) fn new(call: Call<S, Req>, token: Option<T>, classify: K, completion: C) -> Self {
        Self {
            call,
            token,
            classify,
            completion,
        }
    }

    /// Lets a call that this layer made wait be polled from now on.
    pub(crate) fn admit(self: Pin<&mut Self>, token: T) {
        *self.project().token = Some(token);
    }

    /// Ends a call that this layer made wait, and frees the request.
    pub(crate) fn refuse(self: Pin<&mut Self>, error: Error) {
        self.project().call.set(Call::failed(error));
    }
}

impl<S, Req, K, C, T> Tracked<S, Req, K, C, T>
where
    S: Service<Req>,
{
    /// The token, until the call is over.
    #[inline]
    pub(crate) fn token(&self) -> Option<&T> {
        self.token.as_ref()
    }

    pub(crate) fn token_mut(self: Pin<&mut Self>) -> Option<&mut T> {
        self.project().token.as_mut()
    }
}

impl<S, Req, K, C, T> Future for Tracked<S, Req, K, C, T>
where
    S: Service<Req, Error: Into<BoxError>>,
    K: Classify<S::Response>,
    C: Completion<S::Response, K>,
    T: Token,
{
    type Output = Result<C::Response<T>, BoxError>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let result = ready!(this.call.poll(cx));
        Poll::Ready(match (this.token.take(), result) {
            (Some(token), Ok(response)) => {
                let outcome = this.classify.classify(Ok(&response));
                let completion = this.completion;
                Ok(completion.attach(response, outcome, this.classify, token))
            }
            (Some(token), Err(error)) => {
                match Error::find(&error) {
                    Some(ours) if ours.is_rejection() => token.refuse(),
                    Some(_) => token.time_out(this.classify.classify(Err(&error))),
                    None => token.resolve(this.classify.classify(Err(&error))),
                }
                Err(error)
            }
            (None, Err(refused)) => Err(refused),
            (None, Ok(_)) => return Poll::Pending,
        })
    }
}

impl<S, Req, K, C, T> fmt::Debug for Tracked<S, Req, K, C, T>
where
    S: Service<Req>,
    T: fmt::Debug,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture")
            .field("call", &self.call)
            .field("token", &self.token)
            .finish_non_exhaustive()
    }
}
