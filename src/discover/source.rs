//! What a balancer gets its endpoints from.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use tower::discover::{Change, Discover};

/// A source of endpoints that come and go.
///
/// Every `tower::discover::Discover` is one, hence every stream of `Result<Change<K, S>, E>`. Unlike that trait, this one
/// can be implemented without a dependency on a crate that defines streams.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no source of endpoints",
    label = "neither a stream of `Result<tower::discover::Change<K, S>, E>` nor a `Dns` or `Watch`",
    note = "for a list that changes, use `buttress::discover::Watch`"
)]
pub trait Source {
    /// What tells endpoints from each other.
    type Key: Eq;
    /// An endpoint.
    type Service;
    /// Why nothing could be found out. The source may be asked again.
    type Error;

    /// Returns the next change. `None` if there will not be another one.
    #[allow(clippy::type_complexity, reason = "that of tower's trait")]
    fn poll_change(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Change<Self::Key, Self::Service>, Self::Error>>>;
}

impl<D: Discover + ?Sized> Source for D {
    type Key = D::Key;
    type Service = D::Service;
    type Error = D::Error;

    fn poll_change(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Change<D::Key, D::Service>, D::Error>>> {
        self.poll_discover(cx)
    }
}

/// Runs code of the user whose panic must not be the end of what depends on it.
pub(crate) fn unless_it_panics<T>(code: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(code)).ok()
}
