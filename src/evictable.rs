//! Eviction: whether the state of a layer may be dropped.

use tokio::time::Instant;

/// Layer whose state may be dropped while there is nothing to remember.
///
/// A [keyed](crate::keyed) layer drops the layers of unused keys to make room. A layer that restricts its key must
/// stay: its drop would refill an exhausted limit, or close an open breaker. The trait is implemented for every layer
/// of this crate and for tuples of them.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not say whether it may be forgotten, so there cannot be one for each key",
    note = "call `.build()?` if it is a configuration",
    note = "take the layers of this crate, or a tuple of them with the outermost first, `(breaker, timeout)`, instead of a `ServiceBuilder`"
)]
pub trait Evictable {
    /// Returns `true` if a new layer would act in the same way as this one at `now`.
    ///
    /// It is called only while no call is in flight through the layer, and under a lock on some of the keys: it must be
    /// quick and must not use the keys.
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
