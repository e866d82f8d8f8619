//! Trait of a source of endpoints.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tower::discover::{self, Discover};

use super::Target;

/// First pause after an error or a panic. Most causes are gone by then, and the delay is short.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// A change of the endpoints.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Change<K, S> {
    /// An endpoint with this service is new, or replaces the endpoint with the same key.
    Insert(K, Target<S>),
    /// A known endpoint has other properties. Its service stays, and so do properties that are not set.
    Update(K, Target<()>),
    /// The endpoint with this key is gone.
    Remove(K),
}

impl<K, S> Change<K, S> {
    /// Returns the same change with other keys and services.
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

/// A source of endpoints that are added and removed.
///
/// Every `tower::discover::Discover` is a source, and so is every stream of `Result<tower::discover::Change<K, S>, E>`.
/// Unlike `Discover`, `Source` can be implemented without a dependency on a crate that defines streams.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no source of endpoints",
    label = "neither a stream of `Result<tower::discover::Change<K, S>, E>` nor a `Dns`, `Watch` or `Restartable`",
    note = "for a list that changes, use `buttress::discover::Watch`"
)]
pub trait Source {
    /// The key that identifies an endpoint.
    type Key: Eq;
    /// The service of an endpoint.
    type Service;
    /// The error of a poll. The source may be polled again.
    type Error;

    /// Returns the next change. `None` means that no change will follow.
    #[allow(clippy::type_complexity, reason = "that of tower's trait")]
    fn poll_change(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Change<Self::Key, Self::Service>, Self::Error>>>;

    /// Restarts the source: it drops timers, tasks and connections, announces all endpoints again with new services,
    /// and removes endpoints that are gone. Returns `false` if the source cannot restart, which is the default.
    ///
    /// It is called before the next poll after a poll has panicked, or after the runtime of the source has ended and
    /// another runtime polls it. A source that cannot restart is polled unchanged. If it then ends or panics at once on
    /// the other runtime, it depended on the former runtime, and calls fail with
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
    /// Longest pause: a fault of more than some minutes costs two attempts a minute.
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

/// Runs code of the user, and catches its panic.
pub(crate) fn unless_it_panics<T>(code: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(code)).ok()
}

/// Drops values of the user one by one, and catches each panic. A second panic during the unwinding of the first would
/// otherwise abort the process.
pub(crate) fn discard<T>(values: impl IntoIterator<Item = T>) {
    for value in values {
        let _ = unless_it_panics(|| drop(value));
    }
}
