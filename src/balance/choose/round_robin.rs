//! One after the other.

use super::{Choose, Endpoints, Standing};

/// One endpoint after the other, as often as its weight says. All handles of a balancer take turns together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RoundRobin;

impl<Req> Choose<Req> for RoundRobin {
    fn choose(&self, _request: &Req, endpoints: &mut Endpoints<'_>) -> usize {
        let count = endpoints.len() as u64;
        // In each round an endpoint has its turn if its turns so far are less than its share of the rounds.
        for _ in 0..4 * count {
            let turn = endpoints.turn();
            let (round, place) = ((turn / count) as f64, (turn % count) as usize);
            if endpoints.standing(place) != Standing::Open {
                continue;
            }
            let share = endpoints.weight(place) / endpoints.heaviest();
            if ((round + 1.0) * share).floor() > (round * share).floor() {
                return place;
            }
        }
        endpoints.draw(Endpoints::weight)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Pool;
    use super::*;

    #[test]
    fn round_robin_takes_one_after_the_other() {
        let policy = RoundRobin;
        let mut pool = Pool::even(3);
        let places: Vec<usize> = (0..6).map(|_| pool.choose(&policy, 0)).collect();
        assert_eq!(places, [0, 1, 2, 0, 1, 2]);
    }
}
