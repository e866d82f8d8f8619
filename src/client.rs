//! A client for any async function: a query, a call of a driver, a request with a client of your own.
//!
//! # When to use it
//!
//! Use it with a dependency that is not a `tower::Service` and need not become one. [`client`] is the [standard
//! stack](crate::stack) and has the same settings. Its calls take a function instead of a request: see
//! [`run`](Client::run).
//!
//! # How it works
//!
//! Each attempt calls the function and awaits the future that it returns. All functions that run through a client share
//! its circuit breaker, its limits and its budget, and each may have a result and an error of its own type. The caller
//! gets the unchanged error of the last attempt in [`CallError::Inner`].
//!
//! | method | the function is called again |
//! |---|---|
//! | [`run`](Client::run) | after a failure or a timeout, or as a hedge if configured: calling it twice must do no harm |
//! | [`run_once`](Client::run_once) | never; with [`retry_rejections`](crate::retry::Config::retry_rejections), a call that was refused before the function was called is made again |
//!
//! [`with`](Client::with) gives a call [settings of its own](CallOptions):
//! `db.with(CallOptions::new().deadline(SECOND)).run(|| …)`.
//!
//! By default each error is a failure. Exclude mistakes of the caller with
//! [`classify_errors`](Config::classify_errors).
//!
//! `examples/databases` has programs that call PostgreSQL and Redis through a client.
//!
//! # Promises
//!
//! The promises of the [standard stack](crate::stack). The future of a call borrows only what the function borrows, and
//! is `Send` if the function, its future and its result are.
//!
//! # Cancellation
//!
//! Dropping the future drops the future of the function, and gives back all that the call held.
//!
//! # What clones share
//!
//! All state.
//!
//! # Cost
//!
//! Two allocations for each call, because each function has a type of its own.
//!
//! # Errors
//!
//! [`CallError`].
//!
//! # Metrics
//!
//! The metrics of the [standard stack](crate::stack).
//!
//! # Examples
//!
//! ```
//! use buttress::client::CallError;
//!
//! # struct Pool;
//! # impl Pool { async fn names(&self, _: u32) -> Result<Vec<String>, std::io::Error> { Ok(vec!["bolts".into()]) } }
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let pool = Pool;
//! let db = buttress::client("db").concurrency_limit(20).build()?;
//!
//! let names = match db.run(|| pool.names(7)).await {
//!     Ok(names) => names,
//!     Err(CallError::Inner(error)) => return Err(error.into()), // of the pool, in the last attempt
//!     Err(CallError::Stack(error)) => return Err(error.into()), // too late, or refused
//! };
//! # assert_eq!(names, ["bolts"]);
//! # Ok(())
//! # }
//! ```
//!
//! With your own error type:
//!
//! ```
//! use buttress::Outcome;
//! use buttress::client::CallError;
//!
//! #[derive(Debug, thiserror::Error)]
//! enum StockError {
//!     #[error("no such item")]
//!     NoSuchItem,
//!     #[error(transparent)]
//!     Unavailable(#[from] buttress::Error),
//! }
//!
//! # async fn reserve(_: u32) -> Result<u32, StockError> { Err(StockError::NoSuchItem) }
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), buttress::ConfigError> {
//! let stock = buttress::client("stock")
//!     .concurrency_limit(20)
//!     .classify_errors(|error: &StockError| match error {
//!         StockError::NoSuchItem => Outcome::Success, // the service did its work
//!         StockError::Unavailable(_) => Outcome::Failure,
//!     })
//!     .build()?;
//!
//! let reserved = stock.run_once(|| reserve(12)).await.map_err(CallError::flatten);
//! assert!(matches!(reserved, Err(StockError::NoSuchItem)));
//! # Ok(())
//! # }
//! ```

use std::convert::Infallible;
use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::task::{self, Poll};

use futures::FutureExt;
use futures::future::Map;
use tower::Service;

use crate::send::OneCall;
use crate::stack::{Standard, StandardLayer, StandardService, WithOptions};
use crate::{CallOptions, Classify, CompleteOnResponse, Error, Outcome, Replay, standard};

/// A client for async functions. See the [module documentation](self).
pub type Client<K = ErrorsOf> = StandardLayer<Functions, K>;

/// The settings of a [`Client`], which are the settings of the standard stack.
pub type Config<K = ErrorsOf> = Standard<Functions, K>;

/// Begins a client for async functions. See the [module documentation](self).
///
/// `name` is a label of the metrics and a part of the errors.
pub fn client(name: impl Into<String>) -> Config {
    let failure = ErrorsOf(());
    standard(name).replay(Functions).classify(failure)
}

/// The policy that decides by the method of the call whether a function may be called again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Functions;

/// The effect of calling a function a second time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Twice {
    DoesNoHarm,
    DoesHarm,
}

impl Replay<Twice> for Functions {
    fn copy(&self, request: &Twice) -> Option<Twice> {
        Some(*request)
    }

    fn is_idempotent(&self, request: &Twice) -> bool {
        *request == Twice::DoesNoHarm
    }
}

/// Classifies the errors of functions. By default each is a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorsOf<F = ()>(F);

impl<T, E> Classify<Result<T, E>> for ErrorsOf {
    fn classify(&self, result: Result<&Result<T, E>, &Error>) -> Outcome {
        match result {
            Ok(Ok(_)) => Outcome::Success,
            Ok(Err(_)) | Err(_) => Outcome::Failure,
        }
    }
}

impl<T, E, F: Fn(&E) -> Outcome> Classify<Result<T, E>> for ErrorsOf<F> {
    fn classify(&self, result: Result<&Result<T, E>, &Error>) -> Outcome {
        match result {
            Ok(Ok(_)) => Outcome::Success,
            Ok(Err(error)) => self.0(error),
            Err(_) => Outcome::Failure,
        }
    }
}

impl<K> Config<K> {
    /// Classifies the errors of the functions with `classify`, a function or a closure that names the type of its
    /// argument, `|error: &io::Error|`. All functions of the client then have this type of error. Without it they have
    /// any, and each error is a failure.
    pub fn classify_errors<F>(self, classify: F) -> Config<ErrorsOf<F>> {
        self.classify(ErrorsOf(classify))
    }
}

/// The error of a call through a [`Client`].
#[derive(Debug)]
pub enum CallError<E> {
    /// The unchanged error of the function in the last attempt.
    Inner(E),
    /// A layer has refused or ended the call.
    Stack(Error),
}

impl<E: From<Error>> CallError<E> {
    /// Returns an error of the function's own type, which must convert from the errors of the layers:
    /// `.map_err(CallError::flatten)`.
    pub fn flatten(self) -> E {
        match self {
            Self::Inner(error) => error,
            Self::Stack(error) => error.into(),
        }
    }
}

impl<E: fmt::Display> fmt::Display for CallError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inner(error) => error.fmt(f),
            Self::Stack(error) => error.fmt(f),
        }
    }
}

impl<E: StdError + 'static> StdError for CallError<E> {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Inner(error) => error.source(),
            Self::Stack(error) => error.source(),
        }
    }
}

impl<K> StandardLayer<Functions, K, CompleteOnResponse> {
    /// Calls a function that may be called again without harm: a query, an update with a key.
    ///
    /// The function borrows what it needs, because there may be several attempts, and two of them at once with a hedge.
    /// Put a `&mut` connection into a `tokio::sync::Mutex`.
    ///
    /// # Errors
    ///
    /// The error of the function in its last attempt, or the error of the layer that has refused or ended the call.
    ///
    /// # Cancellation
    ///
    /// Dropping the future drops the future of the function.
    pub fn run<F, Fut, T, E>(
        &self,
        function: F,
    ) -> impl Future<Output = Result<T, CallError<E>>> + Send + use<F, Fut, T, E, K>
    where
        F: Fn() -> Fut + Send + Sync,
        Fut: Future<Output = Result<T, E>> + Send,
        K: Classify<Result<T, E>> + Send + Sync,
        T: Send,
        E: Send,
    {
        call(self.service(function), Twice::DoesNoHarm)
    }

    /// Calls a function at most once, unless its options say otherwise. With
    /// [`retry_rejections`](crate::retry::Config::retry_rejections) there is a further attempt if a layer of this client
    /// has refused the call before the function was called.
    ///
    /// Otherwise it is like [`run`](Self::run).
    ///
    /// # Errors
    ///
    /// The errors of [`run`](Self::run).
    pub fn run_once<F, Fut, T, E>(
        &self,
        function: F,
    ) -> impl Future<Output = Result<T, CallError<E>>> + Send + use<F, Fut, T, E, K>
    where
        F: Fn() -> Fut + Send + Sync,
        Fut: Future<Output = Result<T, E>> + Send,
        K: Classify<Result<T, E>> + Send + Sync,
        T: Send,
        E: Send,
    {
        call(self.service(function), Twice::DoesHarm)
    }

    /// Returns a client whose calls have these options: `db.with(CallOptions::new().no_retry()).run(|| …)`.
    ///
    /// [`CallOptions`] has an example.
    #[must_use]
    pub fn with(&self, options: CallOptions) -> WithOptions<Self> {
        WithOptions {
            inner: self.clone(),
            options,
        }
    }

    fn service<F, Fut>(&self, function: F) -> Protected<F, K>
    where
        F: Fn() -> Fut,
        Fut: Future,
        K: Classify<Fut::Output>,
    {
        self.wrap(Function(Arc::new(function)))
    }
}

impl<K> WithOptions<Client<K>> {
    /// Calls a function that may be called again without harm. See [`Client::run`].
    ///
    /// # Errors
    ///
    /// The errors of [`Client::run`].
    pub fn run<F, Fut, T, E>(
        &self,
        function: F,
    ) -> impl Future<Output = Result<T, CallError<E>>> + Send + use<F, Fut, T, E, K>
    where
        F: Fn() -> Fut + Send + Sync,
        Fut: Future<Output = Result<T, E>> + Send,
        K: Classify<Result<T, E>> + Send + Sync,
        T: Send,
        E: Send,
    {
        call(self.service(function), Twice::DoesNoHarm)
    }

    /// Calls a function once. See [`Client::run_once`].
    ///
    /// # Errors
    ///
    /// The errors of [`Client::run`].
    pub fn run_once<F, Fut, T, E>(
        &self,
        function: F,
    ) -> impl Future<Output = Result<T, CallError<E>>> + Send + use<F, Fut, T, E, K>
    where
        F: Fn() -> Fut + Send + Sync,
        Fut: Future<Output = Result<T, E>> + Send,
        K: Classify<Result<T, E>> + Send + Sync,
        T: Send,
        E: Send,
    {
        call(self.service(function), Twice::DoesHarm)
    }

    fn service<F, Fut>(&self, function: F) -> WithOptions<Protected<F, K>>
    where
        F: Fn() -> Fut,
        Fut: Future,
        K: Classify<Fut::Output>,
    {
        WithOptions {
            inner: self.inner.service(function),
            options: self.options,
        }
    }
}

/// A function behind a standard stack.
type Protected<F, K> = StandardService<Function<F>, Functions, K>;

/// A call of a service whose responses are the results of a function.
type Running<S, T, E> =
    Map<OneCall<S, Twice>, fn(Result<Result<T, E>, Error>) -> Result<T, CallError<E>>>;

fn call<S, T, E>(service: S, twice: Twice) -> Running<S, T, E>
where
    S: Service<Twice, Response = Result<T, E>, Error = Error>,
{
    OneCall::new(service, twice).map(flatten as _)
}

fn flatten<T, E>(result: Result<Result<T, E>, Error>) -> Result<T, CallError<E>> {
    result.map_err(CallError::Stack)?.map_err(CallError::Inner)
}

/// A function as a service. Its errors are a part of the response, so that they may be of any type.
struct Function<F>(Arc<F>);

impl<F> Clone for Function<F> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<F, Fut> Service<Twice> for Function<F>
where
    F: Fn() -> Fut,
    Fut: Future,
{
    type Response = Fut::Output;
    type Error = Infallible;
    type Future = Map<Fut, fn(Fut::Output) -> Result<Fut::Output, Infallible>>;

    fn poll_ready(&mut self, _: &mut task::Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Twice) -> Self::Future {
        (self.0)().map(Ok)
    }
}
