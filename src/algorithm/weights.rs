//! Drawing endpoints by weight.

/// The weights of endpoints, added up.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Weights {
    /// The sum of the weights up to each endpoint, its own included.
    ends: Box<[f64]>,
    max: f64,
    are_equal: bool,
}

impl Weights {
    pub(crate) fn new(weights: impl Iterator<Item = f64> + Clone) -> Self {
        let (mut sum, max) = (0.0, weights.clone().fold(0.0, f64::max));
        let min = weights.clone().fold(f64::INFINITY, f64::min);
        let ends = weights.map(|weight| {
            sum += weight;
            sum
        });
        Self {
            ends: ends.collect(),
            max,
            are_equal: max <= min,
        }
    }

    /// Returns the greatest weight.
    pub(crate) fn max(&self) -> f64 {
        self.max
    }

    #[inline]
    pub(crate) fn are_equal(&self) -> bool {
        self.are_equal
    }

    /// Draws an endpoint by weight, except the endpoints in `without`, which are in ascending order. `lot` is a random
    /// number from 0 to 1, 1 excluded.
    pub(crate) fn draw(&self, lot: f64, without: &[usize]) -> usize {
        let last = self.ends.len() - 1;
        let taken: f64 = without.iter().map(|place| self.weight(*place)).sum();
        let mut at = lot * (self.ends[last] - taken);
        for place in without {
            if at >= self.begin(*place) {
                at += self.weight(*place);
            }
        }
        let drawn = self.ends.partition_point(|end| *end <= at).min(last);
        // By rounding, the drawn endpoint may be one of `without`.
        let mut others = (0..=drawn).rev().chain(drawn..=last);
        others
            .find(|place| !without.contains(place))
            .unwrap_or(drawn)
    }

    fn begin(&self, place: usize) -> f64 {
        place.checked_sub(1).map_or(0.0, |before| self.ends[before])
    }

    fn weight(&self, place: usize) -> f64 {
        self.ends[place] - self.begin(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the number of a thousand lots that fall to each of these endpoints.
    fn shares(weights: &[f64], without: &[usize]) -> Vec<u32> {
        let drawing = Weights::new(weights.iter().copied());
        let mut shares = vec![0; weights.len()];
        for lot in 0..1_000 {
            shares[drawing.draw((f64::from(lot) + 0.5) / 1e3, without)] += 1;
        }
        shares
    }

    #[test]
    fn an_endpoint_is_drawn_as_often_as_its_weight_says() {
        assert_eq!(shares(&[1.0, 2.0, 5.0], &[]), [125, 250, 625]);
        assert_eq!(shares(&[3.0], &[]), [1_000]);
    }

    #[test]
    fn the_weight_of_one_that_is_left_out_goes_to_the_others_by_their_weights() {
        let weights = [1.0, 5.0, 3.0, 1.0];
        assert_eq!(shares(&weights, &[1]), [200, 0, 600, 200]);
        assert_eq!(shares(&weights, &[0, 2]), [0, 833, 0, 167]);
        assert_eq!(shares(&weights, &[1, 2]), [500, 0, 0, 500]);
        assert_eq!(shares(&[1e3, 1e-3, 1e-3], &[0]), [0, 500, 500]);
    }

    #[test]
    fn one_that_is_left_out_is_not_drawn_by_rounding() {
        let highest = 1.0 - f64::EPSILON / 2.0;
        for tenths in 1..2_000 {
            let weights = [0.1, f64::from(tenths) / 10.0, 0.3];
            let drawing = Weights::new(weights.into_iter());
            for without in [&[2][..], &[1], &[1, 2], &[0, 2]] {
                let drawn = drawing.draw(highest, without);
                assert!(!without.contains(&drawn), "{weights:?} {without:?}");
            }
        }
    }

    #[test]
    fn the_last_lot_is_within_the_endpoints() {
        let drawing = Weights::new([0.1; 7].into_iter());
        assert_eq!(drawing.draw(1.0 - f64::EPSILON / 2.0, &[]), 6);
        assert_eq!(drawing.draw(1.0 - f64::EPSILON / 2.0, &[6]), 5);
    }
}
