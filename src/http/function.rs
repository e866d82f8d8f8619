//! Functions of users in settings.

use std::fmt;
use std::sync::Arc;

/// A function of the user, shared by all clones of the settings.
pub(super) struct Function<F: ?Sized>(pub(super) Arc<F>);

impl<F: ?Sized> Clone for Function<F> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<F: ?Sized> fmt::Debug for Function<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Function")
    }
}
