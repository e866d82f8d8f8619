//! By weight alone.

use super::{Choose, DRAWS, Eligibility, Endpoints};

/// An endpoint at random, as often as its weight says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WeightedRandom;

impl<Req> Choose<Req> for WeightedRandom {
    fn choose(&self, _request: &Req, endpoints: &mut Endpoints<'_>) -> usize {
        for _ in 0..DRAWS {
            let place = endpoints.random_below(endpoints.len());
            let share = endpoints.weight(place) / endpoints.max_weight();
            let is_drawn = share >= 1.0 || endpoints.random_share() < share;
            if is_drawn && endpoints.eligibility(place) == Eligibility::Open {
                return place;
            }
        }
        endpoints.draw(Endpoints::weight)
    }
}
