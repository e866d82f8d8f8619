//! The service with a layer for each key.

use std::fmt;
use std::sync::Arc;
use std::task::{self, Poll};

use tower::{Layer, Service};

use super::Key;
use super::future::ResponseFuture;
use super::keys::Keys;
use crate::send::send_method;
use crate::{BoxError, Error, Evictable};

/// A service behind a layer of each key's own. Made by [`KeyedLayer`](super::KeyedLayer).
pub struct Keyed<S, F, M, K, L> {
    pub(super) inner: S,
    pub(super) shared: Arc<Shared<F, M, K, L>>,
}

/// What all services of one layer value share.
pub(super) struct Shared<F, M, K, L> {
    pub(super) key: F,
    pub(super) make: M,
    pub(super) keys: Arc<Keys<K, L>>,
}

send_method!(Keyed<S, F, M, K, L>);

impl<S, F, M, K, L, Req> Service<Req> for Keyed<S, F, M, K, L>
where
    S: Clone,
    F: Fn(&Req) -> K,
    M: Fn(&K) -> L,
    K: Key,
    L: Layer<S, Service: Service<Req, Error: Into<BoxError> + 'static>> + Evictable,
{
    type Response = <L::Service as Service<Req>>::Response;
    type Error = Error;
    type Future = ResponseFuture<L::Service, Req, L>;

    /// Leaves the inner service alone: which layer is to ask it is not known before there is a key.
    #[inline]
    fn poll_ready(&mut self, _cx: &mut task::Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    #[inline]
    fn call(&mut self, request: Req) -> Self::Future {
        let Shared { key, make, keys } = &*self.shared;
        let layer = keys.find(key(&request), make);
        ResponseFuture::new(layer.layer(self.inner.clone()), request, layer)
    }
}

impl<S: Clone, F, M, K, L> Clone for Keyed<S, F, M, K, L> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<S: fmt::Debug, F, M, K, L> fmt::Debug for Keyed<S, F, M, K, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyed")
            .field("inner", &self.inner)
            .field("keys", &self.shared.keys)
            .finish()
    }
}
