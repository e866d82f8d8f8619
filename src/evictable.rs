//! Eviction: whether the state of a layer may be dropped and begun anew.

use tokio::time::Instant;

/// Layer whose state may be dropped while there is nothing to remember.
///
/// Where each key has a layer of its own, layers of keys that are not used are dropped to make room. One that
/// still holds something against its key must not be: dropping it would forgive an exhausted limit
/// or an open breaker. Implemented for every layer of this crate and for tuples of them.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not say whether it may be forgotten, so there cannot be one for each key",
    note = "call `.build()?` if it is a configuration",
    note = "take the layers of this crate, or a tuple of them with the outermost first, `(breaker, timeout)`, instead of a `ServiceBuilder`"
)]
pub trait Evictable {
    /// Returns `true` if nothing is forgiven when a layer made anew takes the place of this one at `now`.
    ///
    /// Asked only when no call is under way through it, and while a lock on some of the keys is held: it must
    /// be quick and must not come back to the keys.
    fn is_evictable(&self, now: Instant) -> bool;
}

/// Implements it for the tuple of these layers, and for the shorter ones.
macro_rules! tuples {
    ($($first:ident $($layers:ident)*)?) => {$(
        #[allow(non_snake_case, reason = "the fields are named as their types")]
        impl<$first: Evictable, $($layers: Evictable),*> Evictable for ($first, $($layers,)*) {
            fn is_evictable(&self, now: Instant) -> bool {
                let ($first, $($layers,)*) = self;
                $first.is_evictable(now) $(&& $layers.is_evictable(now))*
            }
        }

        tuples!($($layers)*);
    )?};
}

tuples!(A B C D E F G H);
