//! Classification of gRPC calls by their status.

use std::time::Duration;

use ::http::{HeaderMap, Response, StatusCode};

use super::code::{Code, PUSHBACK, STATUS};
use super::peek::with_status;
use crate::http::ClassifyEos;
use crate::http::classify::annotate;
use crate::http::retry_after::{number, retry_after, text};
use crate::http::rules::{Rules, of_error, with_retry_after};
use crate::{Attempts, Classify, Error, Outcome, Pushback, Reattempt};

/// Classifies gRPC responses by their status. See the [module documentation](crate::http::grpc).
///
/// # Examples
///
/// ```
/// use buttress::Outcome;
/// use buttress::http::grpc::{Classifier, Code};
///
/// // Here a transaction that lost says that the service is in trouble.
/// let classify = Classifier::new().code(Code::Aborted, Outcome::Failure);
/// let stack = buttress::http::grpc::standard("ledger")
///     .classify(classify)
///     .concurrency_limit(50)
///     .build()?;
/// # Ok::<(), buttress::ConfigError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Classifier {
    rules: Rules,
    retry_unauthorized: bool,
}

impl Classifier {
    /// Makes a classifier with the rules of the [module documentation](crate::http::grpc).
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Classifies calls that end with `code` as `outcome`. The last setting of a code applies.
    ///
    /// An [`Overload`](Outcome::Overload) and a [`Throttled`](Outcome::Throttled) get the time of the service's
    /// pushback; without a pushback, their own time applies.
    #[must_use]
    pub fn code(mut self, code: Code, outcome: Outcome) -> Self {
        let number = code as u16;
        self.rules.set(number..=number, outcome);
        self
    }

    /// Retries a call that ends with `UNAUTHENTICATED` once, at once, because an inner layer renews the token. By
    /// default this status is returned.
    #[must_use]
    pub fn retry_unauthorized(mut self) -> Self {
        self.retry_unauthorized = true;
        self
    }

    /// Classifies a call that ended with `code`. `headers` are the headers or trailers with the code.
    #[inline]
    fn classify_code(&self, code: Code, headers: Option<&HeaderMap>) -> Outcome {
        let outcome = match (self.rules.find(code as u16), code) {
            (Some(outcome), _) => outcome,
            // The caller has used up its quota.
            (None, Code::ResourceExhausted) => Outcome::Throttled { retry_after: None },
            // A pushback distinguishes an overloaded service from a broken one.
            (None, Code::Unavailable) if asked(headers).is_some() => {
                Outcome::Overload { retry_after: None }
            }
            (None, Code::Unauthenticated) if self.retry_unauthorized => Outcome::Ignored,
            (None, Code::Cancelled) => Outcome::Ignored,
            (
                None,
                Code::Unknown
                | Code::DeadlineExceeded
                | Code::Internal
                | Code::Unavailable
                | Code::DataLoss,
            ) => Outcome::Failure,
            (None, _) => Outcome::Success,
        };
        with_retry_after(outcome, || asked(headers))
    }

    /// Classifies the head. Without a status in it, the trailers decide.
    #[inline]
    fn classify_head(&self, status: StatusCode, headers: &HeaderMap) -> Outcome {
        match Code::read(headers) {
            Some(code) => self.classify_code(code, Some(headers)),
            None if status == StatusCode::OK => Outcome::Success,
            None => match (status.as_u16(), self.rules.find(Code::Unknown as u16)) {
                // As for HTTP, although `Code::of_status` knows no code for them.
                (501 | 505, None) => Outcome::Ignored,
                (429, _) if self.rules.find(Code::Unavailable as u16).is_none() => {
                    let retry_after = retry_after(headers);
                    Outcome::Throttled { retry_after }
                }
                _ => self.classify_code(Code::of_status(status), Some(headers)),
            },
        }
    }
}

impl<B> Classify<Response<B>> for Classifier {
    #[inline]
    fn classify(&self, result: Result<&Response<B>, &Error>) -> Outcome {
        match result {
            Ok(response) => self.classify_head(response.status(), with_status(response)),
            Err(error) => of_error(error),
        }
    }

    fn reattempt(&self, result: Result<&Response<B>, &Error>) -> Reattempt {
        let code = (result.ok()).and_then(|response| Code::read(with_status(response)));
        let rule = code.and_then(|code| self.rules.find(code as u16));
        match (rule, code) {
            (None, Some(Code::Unauthenticated)) if self.retry_unauthorized => Reattempt::OnceAtOnce,
            // The time of a pushback applies before this, if there is one.
            (None, Some(Code::Unavailable)) => Reattempt::Soon,
            _ => self.classify(result).into(),
        }
    }

    fn annotate(&self, response: &mut Response<B>, attempts: Attempts) {
        annotate(response, attempts);
    }

    fn pushback(&self, result: Result<&Response<B>, &Error>) -> Option<Pushback> {
        let headers = with_status(result.ok()?);
        pushback(headers).or_else(|| {
            let own = self.classify(result).retry_after();
            // A response without a status comes from a proxy, which knows HTTP only.
            let knows_grpc = headers.contains_key(&STATUS);
            let asked = own.or_else(|| retry_after(headers).filter(|_| !knows_grpc));
            asked.map(Pushback::RetryAfter)
        })
    }

    fn is_deadline_exceeded(&self, response: &Response<B>) -> bool {
        match Code::read(with_status(response)) {
            Some(code) => code == Code::DeadlineExceeded,
            None => response.status() == StatusCode::GATEWAY_TIMEOUT,
        }
    }
}

impl ClassifyEos for Classifier {
    #[inline]
    fn classify_eos(&self, trailers: Option<&HeaderMap>) -> Outcome {
        let code = trailers.and_then(Code::read).unwrap_or(Code::Unknown);
        self.classify_code(code, trailers)
    }

    fn is_decided(&self, status: StatusCode, headers: &HeaderMap) -> bool {
        status != StatusCode::OK || headers.contains_key(&STATUS)
    }

    fn ended_at_deadline(&self, trailers: Option<&HeaderMap>) -> bool {
        trailers.and_then(Code::read) == Some(Code::DeadlineExceeded)
    }
}

/// Returns the time after which the service asks to be tried again.
fn asked(headers: Option<&HeaderMap>) -> Option<Duration> {
    match headers.and_then(pushback)? {
        Pushback::RetryAfter(wait) => Some(wait),
        Pushback::DoNotRetry => None,
    }
}

/// Reads the pushback, if there is one. A malformed pushback asks for no further attempt.
fn pushback(headers: &HeaderMap) -> Option<Pushback> {
    let mut all = headers.get_all(&PUSHBACK).iter();
    all.next()?;
    if all.next().is_some() {
        return Some(Pushback::DoNotRetry);
    }
    let number = text(headers, &PUSHBACK).and_then(|text| number(text.as_bytes()));
    Some(
        match number.filter(|&number| i32::try_from(number).is_ok()) {
            Some(wait) => Pushback::RetryAfter(Duration::from_millis(wait)),
            None => Pushback::DoNotRetry,
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::http::HeaderValue;
    use proptest::prelude::*;

    fn headers(all: &[(&'static str, &[u8])]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in all {
            headers.append(*name, HeaderValue::from_bytes(value).unwrap());
        }
        headers
    }

    fn response(status: u16, headers: HeaderMap) -> Response<()> {
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        *response.headers_mut() = headers;
        response
    }

    fn overload(millis: Option<u64>) -> Outcome {
        Outcome::Overload {
            retry_after: millis.map(Duration::from_millis),
        }
    }

    fn throttled(millis: Option<u64>) -> Outcome {
        Outcome::Throttled {
            retry_after: millis.map(Duration::from_millis),
        }
    }

    fn by_default(code: u16) -> Outcome {
        match code {
            2 | 4 | 13 | 14 | 15 => Outcome::Failure,
            8 => throttled(None),
            1 => Outcome::Ignored,
            0..=16 => Outcome::Success,
            _ => Outcome::Failure,
        }
    }

    #[test]
    fn every_code_is_classified_as_documented_in_the_head_and_in_the_trailers() {
        let classify = Classifier::new();
        for code in 0..=20 {
            let status = headers(&[("grpc-status", code.to_string().as_bytes())]);
            let expected = by_default(code);
            assert_eq!(classify.classify_eos(Some(&status)), expected, "{code}");
            assert!(classify.is_decided(StatusCode::OK, &status));
            let head = response(200, status);
            assert_eq!(classify.classify(Ok(&head)), expected, "{code}");
        }
    }

    #[test]
    fn an_end_without_a_status_is_a_failure() {
        let classify = Classifier::new();
        assert_eq!(classify.classify_eos(None), Outcome::Failure);
        let none = HeaderMap::new();
        assert_eq!(classify.classify_eos(Some(&none)), Outcome::Failure);
        let head = response(200, none);
        assert_eq!(classify.classify(Ok(&head)), Outcome::Success, "not yet");
        assert!(!classify.is_decided(StatusCode::OK, head.headers()));
    }

    #[test]
    fn an_answer_of_something_in_between_is_classified_by_its_http_status() {
        let classify = Classifier::new();
        let judge = |status| classify.classify(Ok(&response(status, HeaderMap::new())));
        assert_eq!(judge(429), throttled(None));
        for status in [400, 500, 502, 503, 504, 204, 302] {
            assert_eq!(judge(status), Outcome::Failure, "{status}");
        }
        for status in [401, 403, 404] {
            assert_eq!(judge(status), Outcome::Success, "{status}");
        }
        for status in [501, 505] {
            assert_eq!(judge(status), Outcome::Ignored, "{status}");
            let classify = Classifier::new().code(Code::Unknown, Outcome::Failure);
            let answer = response(status, HeaderMap::new());
            assert_eq!(classify.classify(Ok(&answer)), Outcome::Failure, "{status}");
        }
        assert!(classify.is_decided(StatusCode::NOT_FOUND, &HeaderMap::new()));
        // The status of gRPC comes first.
        let ok = headers(&[("grpc-status", b"0")]);
        assert_eq!(classify.classify(Ok(&response(503, ok))), Outcome::Success);
    }

    fn pushback(pushbacks: &[&[u8]]) -> Option<Pushback> {
        let mut all: Vec<(&'static str, &[u8])> = vec![("grpc-status", b"14")];
        all.extend(
            pushbacks
                .iter()
                .map(|&value| ("grpc-retry-pushback-ms", value)),
        );
        Classifier::new().pushback(Ok(&response(200, headers(&all))))
    }

    #[test]
    fn a_pushback_says_when_to_try_again_or_not_to() {
        let after = |millis| Some(Pushback::RetryAfter(Duration::from_millis(millis)));
        assert_eq!(pushback(&[]), None);
        assert_eq!(pushback(&[b"0"]), after(0));
        assert_eq!(pushback(&[b"1500"]), after(1_500));
        assert_eq!(pushback(&[b"2147483647"]), after(2_147_483_647));
        let never: [&[u8]; 9] = [
            b"-1",
            b"+1",
            b"2147483648",
            b"-2147483648",
            b"soon",
            b"",
            b"1.5",
            b"\xff\xfe",
            b"99999999999999999999",
        ];
        for value in never {
            assert_eq!(pushback(&[value]), Some(Pushback::DoNotRetry), "{value:?}");
        }
        assert_eq!(pushback(&[b"1", b"1"]), Some(Pushback::DoNotRetry));
        let error = Error::of_service("connection reset", || "");
        let result: Result<&Response<()>, _> = Err(&error);
        assert_eq!(Classifier::new().pushback(result), None);
        assert_eq!(Classifier::new().classify(result), Outcome::Failure);
    }

    #[test]
    fn a_proxy_says_when_to_come_back_as_http_does() {
        let classify = Classifier::new();
        let pushback = |all: &[(&'static str, &[u8])]| {
            let mut response = response(503, headers(all));
            let pushback = classify.pushback(Ok(&response));
            *response.status_mut() = StatusCode::OK;
            response.headers_mut().insert(&STATUS, 14.into());
            assert_eq!(
                classify.pushback(Ok(&response)),
                pushback.filter(|_| all.len() > 1),
                "a service of gRPC says it otherwise"
            );
            pushback
        };
        let after = |millis| Some(Pushback::RetryAfter(Duration::from_millis(millis)));
        assert_eq!(pushback(&[("retry-after", b"3")]), after(3_000));
        assert_eq!(pushback(&[("retry-after", b"soon")]), None);
        let both: [(_, &[u8]); 2] = [("retry-after", b"3"), ("grpc-retry-pushback-ms", b"500")];
        assert_eq!(pushback(&both), after(500));
    }

    #[test]
    fn an_overload_has_the_time_of_the_pushback() {
        let classify = Classifier::new();
        let end = |code: &[u8], pushback: &[u8]| {
            headers(&[("grpc-status", code), ("grpc-retry-pushback-ms", pushback)])
        };
        for (code, asked, unasked) in [
            (&b"8"[..], throttled(Some(1_500)), throttled(None)),
            // That it says when to come back tells a service that is overloaded from one that is broken.
            (&b"14"[..], overload(Some(1_500)), Outcome::Failure),
        ] {
            let trailers = end(code, b"1500");
            assert_eq!(classify.classify_eos(Some(&trailers)), asked);
            let head = response(200, trailers);
            assert_eq!(classify.classify(Ok(&head)), asked);
            let negative = end(code, b"-1");
            assert_eq!(classify.classify_eos(Some(&negative)), unasked);
        }
        let own = classify.code(Code::Unavailable, overload(Some(9)));
        let head = response(200, headers(&[("grpc-status", b"14")]));
        assert_eq!(
            own.pushback(Ok(&head)),
            Some(Pushback::RetryAfter(Duration::from_millis(9)))
        );
    }

    #[test]
    fn a_call_without_a_valid_token_is_tried_once_more_only_if_something_renews_it() {
        let head = response(200, headers(&[("grpc-status", b"16")]));
        let classify = Classifier::new();
        assert_eq!(classify.reattempt(Ok(&head)), Reattempt::Never);
        let classify = classify.retry_unauthorized();
        assert_eq!(classify.reattempt(Ok(&head)), Reattempt::OnceAtOnce);
        assert_eq!(classify.classify(Ok(&head)), Outcome::Ignored);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(
            status in prop::collection::vec(0x20..=0xffu8, 0..30),
            pushback in prop::collection::vec(0x20..=0xffu8, 0..30),
        ) {
            prop_assume!(!status.contains(&0x7f) && !pushback.contains(&0x7f));
            let headers = headers(&[("grpc-status", &status), ("grpc-retry-pushback-ms", &pushback)]);
            let classify = Classifier::new();
            let end = classify.classify_eos(Some(&headers));
            let head = response(200, headers);
            prop_assert_eq!(classify.classify(Ok(&head)), end);
            prop_assert!(classify.pushback(Ok(&head)).is_some());
        }

        #[test]
        fn each_code_can_be_classified_otherwise(code in 0..=16i32, ignored in 0..=16i32) {
            let classify = Classifier::new().code(Code::from(ignored), Outcome::Ignored);
            let status = headers(&[("grpc-status", code.to_string().as_bytes())]);
            let expected = if code == ignored { Outcome::Ignored } else { by_default(code as u16) };
            prop_assert_eq!(classify.classify_eos(Some(&status)), expected);
        }
    }
}
