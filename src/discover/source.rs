//! The trait of a source of endpoints.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tower::discover::{self, Discover};

use super::Target;

/// The first pause after an error or a panic. Most causes are gone by then, and nobody notices a delay of that length.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// A change of the endpoints.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Change<K, S> {
    /// An endpoint with this service, in the place of the one with the same key if there is one.
    Insert(K, Target<S>),
    /// Other properties of an endpoint that is there. Its service stays, and so do properties that are not set.
    Update(K, Target<()>),
    /// There is no such endpoint any more.
    Remove(K),
}

impl<K, S> Change<K, S> {
    /// The same change with other keys and services.
    pub(crate) fn map<K2, S2>(
        self,
        key: impl FnOnce(K) -> K2,
        service: impl FnOnce(&K2, S) -> S2,
    ) -> Change<K2, S2> {
        match self {
            Self::Insert(old, target) => {
                let (key, (properties, old)) = (key(old), target.split());
                let service = service(&key, old);
                Change::Insert(key, properties.with(service))
            }
            Self::Update(old, properties) => Change::Update(key(old), properties),
            Self::Remove(old) => Change::Remove(key(old)),
        }
    }
}

impl<K, S> From<discover::Change<K, S>> for Change<K, S> {
    fn from(change: discover::Change<K, S>) -> Self {
        match change {
            discover::Change::Insert(key, service) => Self::Insert(key, service.into()),
            discover::Change::Remove(key) => Self::Remove(key),
        }
    }
}

/// A source of endpoints that come and go.
///
/// Every `tower::discover::Discover` is one, hence every stream of `Result<tower::discover::Change<K, S>, E>`. Unlike that
/// trait, this one can be implemented without a dependency on a crate that defines streams.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no source of endpoints",
    label = "neither a stream of `Result<tower::discover::Change<K, S>, E>` nor a `Dns`, `Watch` or `Restartable`",
    note = "for a list that changes, use `buttress::discover::Watch`"
)]
pub trait Source {
    /// The key that tells endpoints from each other.
    type Key: Eq;
    /// The service of an endpoint.
    type Service;
    /// The reason why nothing could be found out. The source may be asked again.
    type Error;

    /// Returns the next change. `None` if there will not be another one: the endpoints are final.
    #[allow(clippy::type_complexity, reason = "that of tower's trait")]
    fn poll_change(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Change<Self::Key, Self::Service>, Self::Error>>>;

    /// Begins anew: drops timers, tasks and connections, announces all endpoints again with services that are made
    /// anew, and removes those that are gone. Returns `false` if it cannot, which is the default.
    ///
    /// Called before the next poll when a poll has panicked, and when the runtime that polled the source has ended and
    /// another one polls it from now on. A source that cannot begin anew is polled as it is. If it then ends or panics at
    /// once on the other runtime, it has lost what it lived on, and calls fail with
    /// [`DiscoveryStopped`](crate::ErrorKind::DiscoveryStopped).
    #[must_use]
    fn restart(self: Pin<&mut Self>) -> bool {
        false
    }
}

impl<D: Discover + ?Sized> Source for D {
    type Key = D::Key;
    type Service = D::Service;
    type Error = D::Error;

    fn poll_change(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Change<D::Key, D::Service>, D::Error>>> {
        self.poll_discover(cx).map_ok(Change::from)
    }
}

/// Pauses that double from 100 ms to 30 s.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pauses(Duration);

impl Pauses {
    /// What is broken for longer than some minutes costs two attempts a minute.
    pub(crate) const MAX: Duration = Duration::from_secs(30);

    pub(crate) fn new() -> Self {
        Self(FIRST_PAUSE)
    }

    pub(crate) fn next(&mut self) -> Duration {
        let pause = self.0;
        self.0 = (2 * pause).min(Self::MAX);
        pause
    }
}

/// Runs code of the user whose panic must not be the end of what depends on it.
pub(crate) fn unless_it_panics<T>(code: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(code)).ok()
}

/// Drops values of the user one by one. A panic ends neither the caller nor, as a second one while the first unwinds
/// would, the process.
pub(crate) fn discard<T>(values: impl IntoIterator<Item = T>) {
    for value in values {
        let _ = unless_it_panics(|| drop(value));
    }
}
