//! Classification of responses by their status.

use std::ops::RangeInclusive;

use ::http::{HeaderMap, Response, StatusCode};

use super::body::ClassifyEos;
use super::retry_after::retry_after;
use super::rules::{Rules, of_error, with_retry_after};
use crate::{Attempts, Classify, Conflict, Effect, Error, Outcome, Pushback, Reattempt};

/// Extension of a response that may be the effect of an earlier attempt of the same request: the result of the request
/// is unknown.
///
/// It occurs when the answer to the first attempt is lost, and all further attempts get 409 for the same
/// `Idempotency-Key`, or 404 or 410 for the same `DELETE`. The response is the unchanged response to the last attempt.
///
/// # Examples
///
/// ```
/// use buttress::http::ResultUnknown;
/// use http::Response;
///
/// fn is_gone<B>(response: &Response<B>) -> bool {
///     // Somebody has removed it: this request, or another one before.
///     response.status() == 404 && response.extensions().get::<ResultUnknown>().is_some()
/// }
/// # assert!(!is_gone(&Response::new(())));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ResultUnknown;

/// Adds the extensions [`Attempts`] and [`ResultUnknown`].
pub(super) fn annotate<B>(response: &mut Response<B>, attempts: Attempts) {
    let extensions = response.extensions_mut();
    extensions.insert(attempts);
    if attempts.is_result_unknown {
        extensions.insert(ResultUnknown);
    }
}

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
    retry_unauthorized: bool,
}

impl Classifier {
    /// Makes a classifier with the rules of the [module documentation](crate::http).
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Classifies responses with `status` as `outcome`. The last setting of a status applies.
    ///
    /// An [`Overload`](Outcome::Overload) and a [`Throttled`](Outcome::Throttled) get the time of the header
    /// `Retry-After`; without the header, their own time applies. Another attempt follows from the outcome, as in
    /// [`Reattempt`].
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

    /// Retries a request that is answered with 401 once, at once, because an inner layer renews the token. This
    /// includes requests that are not idempotent, because a service does not act before it has authenticated the
    /// caller. By default the 401 is returned.
    #[must_use]
    pub fn retry_unauthorized(mut self) -> Self {
        self.retry_unauthorized = true;
        self
    }

    #[inline]
    fn classify_status(&self, status: StatusCode, headers: &HeaderMap) -> Outcome {
        let outcome = match (self.rules.find(status.as_u16()), status.as_u16()) {
            (Some(outcome), _) => outcome,
            // The caller has used up its quota.
            (None, 429) => Outcome::Throttled { retry_after: None },
            // The service is overloaded.
            (None, 503) => Outcome::Overload { retry_after: None },
            (None, 401) if self.retry_unauthorized => Outcome::Ignored,
            // The service never serves such a request (501, 505), or the request did not arrive in time (408, 425).
            (None, 501 | 505 | 408 | 425) => Outcome::Ignored,
            // Statuses from 600 are invalid, and count as 5xx.
            (None, 500..) => Outcome::Failure,
            (None, _) => Outcome::Success,
        };
        with_retry_after(outcome, || retry_after(headers))
    }

    fn reattempt_status(&self, status: StatusCode, headers: &HeaderMap) -> Reattempt {
        let outcome = self.classify_status(status, headers);
        match (self.rules.find(status.as_u16()), status.as_u16()) {
            (None, 401) if self.retry_unauthorized => Reattempt::OnceAtOnce,
            (None, 408 | 425) => Reattempt::Soon,
            // A `Retry-After` distinguishes an overloaded service from a broken one.
            (None, 503) if outcome.retry_after().is_none() => Reattempt::Soon,
            _ => outcome.into(),
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

    fn reattempt(&self, result: Result<&Response<B>, &Error>) -> Reattempt {
        match result {
            Ok(response) => self.reattempt_status(response.status(), response.headers()),
            Err(error) => of_error(error).into(),
        }
    }

    fn conflict(&self, response: &Response<B>, effect: Effect) -> Conflict {
        match (effect, response.status()) {
            (Effect::Key, StatusCode::CONFLICT) => Conflict::InProgress,
            (Effect::Removal, StatusCode::NOT_FOUND | StatusCode::GONE) => Conflict::Unknown,
            _ => Conflict::None,
        }
    }

    fn annotate(&self, response: &mut Response<B>, attempts: Attempts) {
        annotate(response, attempts);
    }

    fn pushback(&self, result: Result<&Response<B>, &Error>) -> Option<Pushback> {
        let response = result.ok()?;
        let headers = response.headers();
        let asked = match self.classify_status(response.status(), headers) {
            Outcome::Overload { retry_after } | Outcome::Throttled { retry_after } => retry_after,
            // A 409 may come from an attempt that is in progress.
            _ if response.status() == StatusCode::CONFLICT => retry_after(headers),
            _ if self.reattempt(result) == Reattempt::Never => None,
            _ => retry_after(headers),
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

    fn reattempt(classify: &Classifier, status: u16, retry_after: Option<&str>) -> Reattempt {
        classify.reattempt(Ok(&response(status, retry_after)))
    }

    fn pushback(classify: &Classifier, status: u16, retry_after: Option<&str>) -> Option<Pushback> {
        classify.pushback(Ok(&response(status, retry_after)))
    }

    fn overload(seconds: Option<u64>) -> Outcome {
        Outcome::Overload {
            retry_after: seconds.map(Duration::from_secs),
        }
    }

    fn throttled(seconds: Option<u64>) -> Outcome {
        Outcome::Throttled {
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
                429 => throttled(None),
                503 => overload(None),
                408 | 425 | 501 | 505 => Outcome::Ignored,
                500.. => Outcome::Failure,
                _ => Outcome::Success,
            };
            assert_eq!(
                classify_status(&classify, status, None),
                expected,
                "{status}"
            );
            let expected = match status {
                408 | 425 | 503 => Reattempt::Soon,
                _ => expected.into(),
            };
            assert_eq!(reattempt(&classify, status, None), expected, "{status}");
        }
        assert_eq!(reattempt(&classify, 503, Some("3")), Reattempt::Later);
    }

    #[test]
    fn a_request_without_a_valid_token_is_sent_once_more_only_if_something_renews_it() {
        let classify = Classifier::new();
        assert_eq!(reattempt(&classify, 401, None), Reattempt::Never);
        let classify = classify.retry_unauthorized();
        assert_eq!(reattempt(&classify, 401, None), Reattempt::OnceAtOnce);
        assert_eq!(classify_status(&classify, 401, None), Outcome::Ignored);
        let classify = classify.status(StatusCode::UNAUTHORIZED, Outcome::Ignored);
        assert_eq!(reattempt(&classify, 401, None), Reattempt::Never);
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
    fn a_word_about_the_service_or_the_caller_says_when_to_come_back() {
        let classify = Classifier::new();
        assert_eq!(
            classify_status(&classify, 429, Some("3")),
            throttled(Some(3))
        );
        assert_eq!(
            classify_status(&classify, 429, Some("soon")),
            throttled(None)
        );
        assert_eq!(
            classify_status(&classify, 503, Some("3")),
            overload(Some(3))
        );
        assert_eq!(classify_status(&classify, 503, Some("-3")), overload(None));
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
        assert_eq!(pushback(&classify, 408, Some("3")), Some(after(3)));
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
