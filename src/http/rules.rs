//! User-defined rules for single statuses.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use crate::{Error, Outcome, ReplayBodyError, Stage};

/// Outcomes by number of the status. The last rule for a number applies.
///
/// Shared, because layers keep a clone of the classifier for each call. Without rules, a clone counts no reference.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Rules(Option<Arc<Vec<Rule>>>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    numbers: RangeInclusive<u16>,
    outcome: Outcome,
}

impl Rules {
    pub(super) fn set(&mut self, numbers: RangeInclusive<u16>, outcome: Outcome) {
        let rules = self.0.get_or_insert_default();
        Arc::make_mut(rules).push(Rule { numbers, outcome });
    }

    #[inline]
    pub(super) fn find(&self, number: u16) -> Option<Outcome> {
        let rules = self.0.as_ref()?;
        let mut latest_first = rules.iter().rev();
        let rule = latest_first.find(|rule| rule.numbers.contains(&number))?;
        Some(rule.outcome)
    }
}

/// Classifies an error. If the body of the request has failed or did not arrive in time, for example because its sender
/// has gone away, the error says nothing about the service.
#[cold]
pub(super) fn of_error(error: &Error) -> Outcome {
    let is_of_request = error.stage() == Stage::Request;
    if is_of_request || error.downcast_ref::<ReplayBodyError>().is_some() || was_reset_here(error) {
        Outcome::Ignored
    } else {
        Outcome::Failure
    }
}

/// Returns whether this side has reset the HTTP/2 stream.
///
/// hyper reports nothing else when the body of the request has failed. The error is of the crate `h2`, which is not a
/// dependency of the feature `http`, so it is recognized by its text.
fn was_reset_here(error: &Error) -> bool {
    error
        .service_sources()
        .any(|error| error.to_string().starts_with("stream error sent by user"))
}

/// Adds the time for which the service asked callers to stay away to an overload or a throttled call.
#[inline]
pub(super) fn with_retry_after(
    outcome: Outcome,
    asked: impl FnOnce() -> Option<Duration>,
) -> Outcome {
    match outcome {
        Outcome::Overload { retry_after } => Outcome::Overload {
            retry_after: asked().or(retry_after),
        },
        Outcome::Throttled { retry_after } => Outcome::Throttled {
            retry_after: asked().or(retry_after),
        },
        outcome => outcome,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const OUTCOMES: [Outcome; 3] = [Outcome::Success, Outcome::Failure, Outcome::Ignored];

    proptest! {
        #[test]
        fn the_last_rule_for_a_number_holds(
            given in prop::collection::vec((0..40u16, 0..40u16, 0..3usize), 0..8),
        ) {
            let mut rules = Rules::default();
            let mut model = [None; 40];
            for (first, last, outcome) in given {
                let outcome = OUTCOMES[outcome];
                rules.set(first..=last, outcome);
                for number in first..=last {
                    model[usize::from(number)] = Some(outcome);
                }
            }
            for (number, outcome) in model.into_iter().enumerate() {
                prop_assert_eq!(rules.find(number as u16), outcome);
            }
        }
    }

    #[test]
    fn a_change_of_one_clone_is_none_of_the_other() {
        let mut one = Rules::default();
        one.set(404..=404, Outcome::Failure);
        let mut other = one.clone();
        assert_eq!(one, other);
        other.set(404..=404, Outcome::Ignored);
        assert_eq!(one.find(404), Some(Outcome::Failure));
        assert_ne!(one, other);
    }
}
