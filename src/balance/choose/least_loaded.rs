//! The least loaded of all.

use super::{Choose, Endpoints};

/// The least loaded of all endpoints. Looks at each of them.
///
/// With [`LoadMetric::InFlight`](crate::balance::LoadMetric::InFlight) this is what other balancers call least connections or least
/// requests. With many clients that measure latency for themselves, all of them go after the same endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeastLoaded;

impl<Req> Choose<Req> for LeastLoaded {
    fn choose(&self, _request: &Req, endpoints: &mut Endpoints<'_>) -> usize {
        endpoints.least(Endpoints::load)
    }
}
