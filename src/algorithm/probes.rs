//! The health of an endpoint by its probes.

/// The results of the probes of one endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Findings {
    /// It was never probed. It gets calls, because a new client knows no better endpoint.
    #[default]
    Unknown,
    /// Healthy, with the number of failed probes in a row.
    Healthy(u32),
    /// Unhealthy, with the number of successful probes in a row.
    Unhealthy(u32),
}

impl Findings {
    /// Notes a probe. Returns whether the endpoint is healthy, if the state has changed or was not known.
    #[must_use]
    pub(crate) fn learn(&mut self, works: bool, fall: u32, rise: u32) -> Option<bool> {
        match (&mut *self, works) {
            (Self::Healthy(row), true) | (Self::Unhealthy(row), false) => *row = 0,
            (Self::Healthy(row), false) if *row + 1 < fall => *row += 1,
            (Self::Unhealthy(row), true) if *row + 1 < rise => *row += 1,
            // The first probe, or the last one that a change needs.
            _ => {
                *self = if works {
                    Self::Healthy(0)
                } else {
                    Self::Unhealthy(0)
                };
                return Some(works);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_first_probe_decides_at_once() {
        for works in [true, false] {
            assert_eq!(Findings::default().learn(works, 3, 2), Some(works));
        }
    }

    #[test]
    fn an_endpoint_falls_and_rises_with_rows_of_probes() {
        let mut check = Findings::Healthy(0);
        let probes = [
            false, false, true, false, false, false, true, false, true, true,
        ];
        let news: Vec<_> = probes
            .iter()
            .map(|works| check.learn(*works, 3, 2))
            .collect();
        let fell = [None, None, None, None, None, Some(false)];
        let rose = [None, None, None, Some(true)];
        assert_eq!(news, [&fell[..], &rose[..]].concat());
    }

    proptest! {
        #[test]
        fn agrees_with_a_look_at_the_last_probes(
            probes in prop::collection::vec(any::<bool>(), 0..60), fall in 1_u32..5, rise in 1_u32..5,
        ) {
            let mut check = Findings::default();
            let mut is_healthy = None;
            for end in 1..=probes.len() {
                let probe = probes[end - 1];
                let news = check.learn(probe, fall, rise);
                let ends_with = |works, row: u32| {
                    let row = row as usize;
                    end >= row && probes[end - row..end].iter().all(|probe| *probe == works)
                };
                let expected = match is_healthy {
                    None => probe,
                    Some(true) => !ends_with(false, fall),
                    Some(false) => ends_with(true, rise),
                };
                prop_assert_eq!(news, (is_healthy != Some(expected)).then_some(expected));
                is_healthy = Some(expected);
            }
        }
    }
}
