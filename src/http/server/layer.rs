//! The layer of a server.

use tower::Layer;
use tower::layer::util::Identity;

use super::bodies::{Bodies, BodiesLayer};
use super::handle::Handle;
use crate::chassis::{PartLayer, PartService};
use crate::debug::debug_fields;
use crate::http::deadline::InheritDeadline;
use crate::http::respond::{ForServers, Respond};
use crate::http::{Classifier, CompleteOnBodyEnd, InheritDeadlineLayer, RespondLayer};
use crate::measure::Meter;
use crate::{bulkhead, drain};

/// All layers that protect a server, in one layer. See the [module documentation](super).
///
/// All services made by one layer value, or by its clones, share its limits and its drain. `K` classifies calls. `L` is
/// the layer with the limits for each key.
#[derive(Clone)]
pub struct ServerLayer<K = Classifier, L = Identity> {
    pub(super) respond: RespondLayer<ForServers>,
    pub(super) entry: PartLayer<(Meter, drain::Handle), K, CompleteOnBodyEnd>,
    pub(super) deadline: InheritDeadlineLayer,
    pub(super) keyed: L,
    pub(super) bulkhead: PartLayer<Option<bulkhead::Handle>, K, CompleteOnBodyEnd>,
    pub(super) bodies: BodiesLayer,
}

/// The part of a server inside the limits for each key.
pub type Limited<S, K> = PartService<Bodies<S>, Option<bulkhead::Handle>, K, CompleteOnBodyEnd>;

/// A server `S` behind the layers that protect it. Made by [`ServerLayer`].
///
/// It takes requests with any body and answers every request: its error is `Infallible`.
pub type Server<S, K = Classifier, L = Identity> = Respond<
    PartService<
        InheritDeadline<<L as Layer<Limited<S, K>>>::Service>,
        (Meter, drain::Handle),
        K,
        CompleteOnBodyEnd,
    >,
    ForServers,
>;

impl<K, L> ServerLayer<K, L> {
    /// Returns a handle that drains the server, and reads and changes its limits.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle {
            drain: self.entry.part().1.clone(),
            bulkhead: self.bulkhead.part().clone(),
        }
    }

    /// Returns the layer with the limits for each key, from which you get its handle.
    #[must_use]
    pub fn keyed(&self) -> &L {
        &self.keyed
    }
}

impl<S, K, L> Layer<S> for ServerLayer<K, L>
where
    K: Clone,
    L: Layer<Limited<S, K>>,
{
    type Service = Server<S, K, L>;

    fn layer(&self, inner: S) -> Self::Service {
        let limited = self.bulkhead.layer(self.bodies.layer(inner));
        let inherits = self.deadline.layer(self.keyed.layer(limited));
        self.respond.layer(self.entry.layer(inherits))
    }
}

debug_fields!([K, L] ServerLayer<K, L> { handle(), deadline, bodies });
