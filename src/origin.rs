//! Handles that identify the layer of an error.

use crate::{Cause, ErrorKind, balance, bulkhead, circuit_breaker, rate_limit, stack};

mod sealed {
    pub trait Sealed {}
}

/// A handle of a layer or of a whole stack that can end calls. It is the argument of [`Cause::is_of`].
///
/// The trait is implemented for the handles of this crate.
#[diagnostic::on_unimplemented(message = "`{Self}` is not a handle of a layer that ends calls")]
pub trait EndsCalls: sealed::Sealed {
    #[doc(hidden)]
    fn name(&self) -> &'static str;
    #[doc(hidden)]
    fn ends_with(&self, kind: ErrorKind) -> bool;
}

macro_rules! ends_calls {
    ($handle:ty $([$param:ident])?, $($kind:ident)|+) => {
        impl$(<$param>)? sealed::Sealed for $handle {}

        impl$(<$param>)? EndsCalls for $handle {
            fn name(&self) -> &'static str {
                <$handle>::name(self)
            }

            fn ends_with(&self, kind: ErrorKind) -> bool {
                matches!(kind, $(ErrorKind::$kind)|+)
            }
        }
    };
}

ends_calls!(balance::Handle<S> [S], NoEndpoints | DiscoveryStopped);
ends_calls!(bulkhead::Handle, BulkheadFull | QueueTimeout);
ends_calls!(circuit_breaker::Handle, CircuitOpen);
ends_calls!(rate_limit::Handle, RateLimited | TooCostly);

impl sealed::Sealed for stack::Handle {}

impl EndsCalls for stack::Handle {
    fn name(&self) -> &'static str {
        Self::name(self)
    }

    fn ends_with(&self, kind: ErrorKind) -> bool {
        kind != ErrorKind::Service
    }
}

impl Cause {
    /// Returns `true` if the layer of `handle`, or a part of its stack, ended the call. It compares the name and the
    /// kind of the error.
    ///
    /// Use it to distinguish the refusals of several dependencies, wherever [`Error::find`](crate::Error::find) has
    /// found them.
    ///
    /// # Examples
    ///
    /// ```
    /// # use buttress::{BoxError, standard};
    /// # use tower::service_fn;
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), BoxError> {
    /// let mail = standard("mail").unlimited().build()?;
    /// let orders = standard("orders").unlimited().build()?;
    /// mail.handle().circuit_breaker().expect("has one").force_open();
    ///
    /// let mailer = mail.wrap(service_fn(async |_: u32| Ok::<_, BoxError>(())));
    /// let orderer = orders.wrap(service_fn(move |order: u32| mailer.send(order)));
    /// let error = orderer.send(1).await.unwrap_err();
    /// assert!(error.is_of(&mail.handle()) && !error.is_of(&orders.handle()));
    /// assert!(!error.is_rejection() && error.was_sent(), "the order may have been made");
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn is_of<H: EndsCalls>(&self, handle: &H) -> bool {
        handle.ends_with(self.kind()) && handle.name() == Cause::name(self)
    }
}
