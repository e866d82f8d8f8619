//! What the status of a response means.

use std::ops::RangeInclusive;

use ::http::{HeaderMap, Response, StatusCode};

use super::body::ClassifyEos;
use super::retry_after::retry_after;
use super::rules::{Rules, of_error, with_retry_after};
use crate::{Classify, Error, Outcome, Pushback};

/// Classifies HTTP responses by their status. See the [module documentation](crate::http).
///
/// # Examples
///
/// ```
/// use buttress::http::Classifier;
/// use buttress::{Classify, Outcome};
/// use http::{Response, StatusCode};
///
/// let classify = Classifier::new()
///     .status(StatusCode::NOT_FOUND, Outcome::Ignored)
///     .statuses(520..=527, Outcome::Ignored);
/// let answer = |status| Response::builder().status(status).body(()).unwrap();
/// assert_eq!(classify.classify(Ok(&answer(200))), Outcome::Success);
/// assert_eq!(classify.classify(Ok(&answer(500))), Outcome::Failure);
/// assert_eq!(classify.classify(Ok(&answer(404))), Outcome::Ignored);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Classifier {
    rules: Rules,
}

impl Classifier {
    /// Classifies as the [module documentation](crate::http) says.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Classifies responses with `status` as `outcome`. What is said last holds.
    ///
    /// An [`Overload`](Outcome::Overload) has the time of the header `Retry-After`, and its own where there is
    /// none.
    #[must_use]
    pub fn status(self, status: StatusCode, outcome: Outcome) -> Self {
        self.statuses(status.as_u16()..=status.as_u16(), outcome)
    }

    /// Classifies responses with a status in `statuses` as `outcome`: `.statuses(400..=499, Outcome::Ignored)`.
    #[must_use]
    pub fn statuses(mut self, statuses: RangeInclusive<u16>, outcome: Outcome) -> Self {
        self.rules.set(statuses, outcome);
        self
    }

    #[inline]
    fn classify_status(&self, status: StatusCode, headers: &HeaderMap) -> Outcome {
        let outcome = match (self.rules.find(status.as_u16()), status.as_u16()) {
            (Some(outcome), _) => outcome,
            (None, 429) => Outcome::Overload { retry_after: None },
            // That it says when to come back tells a service that has too much to do from one that is broken.
            (None, 503) => match retry_after(headers) {
                None => Outcome::Failure,
                asked => return Outcome::Overload { retry_after: asked },
            },
            // They say what the service never does, and another attempt would get the same answer.
            (None, 501 | 505) => Outcome::Ignored,
            // Statuses from 600 are invalid, and stand for 5xx.
            (None, 408 | 425 | 500..) => Outcome::Failure,
            (None, _) => Outcome::Success,
        };
        match outcome {
            Outcome::Overload { .. } => with_retry_after(outcome, retry_after(headers)),
            outcome => outcome,
        }
    }
}

impl<B> Classify<Response<B>> for Classifier {
    #[inline]
    fn classify(&self, result: Result<&Response<B>, &Error>) -> Outcome {
        match result {
            Ok(response) => self.classify_status(response.status(), response.headers()),
            Err(error) => of_error(error),
        }
    }

    fn pushback(&self, result: Result<&Response<B>, &Error>) -> Option<Pushback> {
        let response = result.ok()?;
        let headers = response.headers();
        let asked = match self.classify_status(response.status(), headers) {
            Outcome::Overload { retry_after } => retry_after,
            Outcome::Failure => retry_after(headers),
            _ => None,
        };
        asked.map(Pushback::RetryAfter)
    }

    fn is_deadline_exceeded(&self, response: &Response<B>) -> bool {
        response.status() == StatusCode::GATEWAY_TIMEOUT
    }
}

impl ClassifyEos for Classifier {
    fn classify_eos(&self, _trailers: Option<&HeaderMap>) -> Outcome {
        Outcome::Success
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn response(status: u16, retry_after: Option<&str>) -> Response<()> {
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        if let Some(value) = retry_after {
            let value = value.parse().unwrap();
            response.headers_mut().insert("retry-after", value);
        }
        response
    }

    fn classify_status(classify: &Classifier, status: u16, retry_after: Option<&str>) -> Outcome {
        classify.classify(Ok(&response(status, retry_after)))
    }

    fn pushback(classify: &Classifier, status: u16, retry_after: Option<&str>) -> Option<Pushback> {
        classify.pushback(Ok(&response(status, retry_after)))
    }

    fn overload(seconds: Option<u64>) -> Outcome {
        Outcome::Overload {
            retry_after: seconds.map(Duration::from_secs),
        }
    }

    fn after(seconds: u64) -> Pushback {
        Pushback::RetryAfter(Duration::from_secs(seconds))
    }

    #[test]
    fn every_status_is_classified_as_documented() {
        let classify = Classifier::default();
        for status in 100..=999 {
            let expected = match status {
                429 => overload(None),
                501 | 505 => Outcome::Ignored,
                408 | 425 | 500.. => Outcome::Failure,
                _ => Outcome::Success,
            };
            assert_eq!(
                classify_status(&classify, status, None),
                expected,
                "{status}"
            );
        }
    }

    #[test]
    fn what_a_service_never_does_asks_for_no_time_and_can_be_classified_otherwise() {
        for status in [501, 505] {
            let classify = Classifier::new();
            assert_eq!(pushback(&classify, status, Some("3")), None);
            let status_code = StatusCode::from_u16(status).unwrap();
            let classify = classify.status(status_code, Outcome::Failure);
            assert_eq!(classify_status(&classify, status, None), Outcome::Failure);
            assert_eq!(pushback(&classify, status, Some("3")), Some(after(3)));
        }
    }

    #[test]
    fn an_error_is_a_failure() {
        let error = Error::of_service("connection reset", || "");
        let result: Result<&Response<()>, _> = Err(&error);
        assert_eq!(Classifier::new().classify(result), Outcome::Failure);
        assert_eq!(Classifier::new().pushback(result), None);
    }

    #[test]
    fn an_overload_says_when_to_come_back() {
        let classify = Classifier::new();
        assert_eq!(
            classify_status(&classify, 429, Some("3")),
            overload(Some(3))
        );
        assert_eq!(
            classify_status(&classify, 429, Some("soon")),
            overload(None)
        );
        assert_eq!(
            classify_status(&classify, 503, Some("3")),
            overload(Some(3))
        );
        assert_eq!(
            classify_status(&classify, 503, Some("-3")),
            Outcome::Failure
        );
        let past = "Sun, 06 Nov 1994 08:49:37 GMT";
        assert_eq!(
            classify_status(&classify, 503, Some(past)),
            overload(Some(0))
        );
    }

    #[test]
    fn any_failure_may_hint_and_nothing_else() {
        let classify = Classifier::new();
        assert_eq!(pushback(&classify, 429, Some("3")), Some(after(3)));
        assert_eq!(pushback(&classify, 503, Some("3")), Some(after(3)));
        assert_eq!(pushback(&classify, 500, Some("3")), Some(after(3)));
        assert_eq!(pushback(&classify, 500, Some("soon")), None);
        assert_eq!(pushback(&classify, 500, None), None);
        assert_eq!(pushback(&classify, 301, Some("3")), None);
        let most = Some(after(u64::MAX));
        assert_eq!(pushback(&classify, 500, Some("99999999999999999999")), most);
    }

    #[test]
    fn what_is_said_last_about_a_status_holds() {
        let classify = Classifier::new()
            .statuses(400..=499, Outcome::Ignored)
            .status(StatusCode::NOT_FOUND, Outcome::Failure)
            .status(StatusCode::SERVICE_UNAVAILABLE, Outcome::Failure);
        assert_eq!(classify_status(&classify, 400, None), Outcome::Ignored);
        assert_eq!(classify_status(&classify, 429, Some("3")), Outcome::Ignored);
        assert_eq!(classify_status(&classify, 404, None), Outcome::Failure);
        assert_eq!(classify_status(&classify, 503, Some("3")), Outcome::Failure);
        assert_eq!(pushback(&classify, 503, Some("3")), Some(after(3)));
        assert_eq!(classify_status(&classify, 502, None), Outcome::Failure);
    }

    #[test]
    fn an_overload_of_the_users_own_has_a_time_of_its_own_where_the_service_gives_none() {
        let own = overload(Some(9));
        let classify = Classifier::new().statuses(529..=529, own);
        assert_eq!(classify_status(&classify, 529, None), own);
        assert_eq!(
            classify_status(&classify, 529, Some("3")),
            overload(Some(3))
        );
        assert_eq!(pushback(&classify, 529, None), Some(after(9)));
    }
}
