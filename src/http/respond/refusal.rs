//! Answers for errors, in HTTP and in gRPC.

use std::borrow::Cow;
use std::fmt::Write;
use std::time::Duration;

use ::http::header::{CONNECTION, CONTENT_TYPE, RETRY_AFTER};
use ::http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Uri, Version};
use bytes::Bytes;

use crate::http::Protocol;
use crate::http::grpc::{Code, PUSHBACK, STATUS};
use crate::{Error, ErrorKind, Stage};

/// The time for which a client should stay away if the end of the overload is not known.
const OVERLOADED_FOR: Duration = Duration::from_secs(1);

static GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// The reason of a refusal, and the protocol of its answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reason<'a> {
    error: &'a Error,
    protocol: Protocol,
    /// `true` if the answer stays in this process.
    is_for_client: bool,
    /// `true` if the request came over HTTP/1.
    is_http1: bool,
}

impl<'a> Reason<'a> {
    pub(super) fn new(error: &'a Error, protocol: Protocol, is_for_client: bool) -> Self {
        Self {
            error,
            protocol,
            is_for_client,
            is_http1: false,
        }
    }

    /// Returns the same for a request of this HTTP version.
    pub(super) fn over(self, version: Version) -> Self {
        let is_http1 = version <= Version::HTTP_11;
        Self { is_http1, ..self }
    }

    /// Returns the status of the error in both protocols, and the text that a caller may see.
    fn meaning(&self) -> (StatusCode, Code, &'static str) {
        let (status, code, message) = match self.error.kind() {
            _ if self.is_of_dependency() => (503, Code::Unavailable, "unavailable for now"),
            // The caller is slow, not the service.
            _ if self.error.stage() == Stage::Request => {
                (408, Code::Cancelled, "the request came too slowly")
            }
            ErrorKind::Draining => (503, Code::Unavailable, "shutting down"),
            ErrorKind::CircuitOpen
            | ErrorKind::NoEndpoints
            | ErrorKind::DiscoveryStopped
            | ErrorKind::Refused => (503, Code::Unavailable, "unavailable for now"),
            // Not `RESOURCE_EXHAUSTED`, which concerns the caller. The time in the answer slows clients down.
            ErrorKind::BulkheadFull | ErrorKind::QueueTimeout => {
                (503, Code::Unavailable, "overloaded")
            }
            ErrorKind::RateLimited => (429, Code::ResourceExhausted, "too many requests"),
            ErrorKind::TooCostly => {
                let message = "more than is ever allowed at once";
                (413, Code::ResourceExhausted, message)
            }
            ErrorKind::Timeout | ErrorKind::DeadlineExceeded => {
                (504, Code::DeadlineExceeded, "not done in time")
            }
            ErrorKind::Service => (500, Code::Internal, "internal error"),
        };
        let status = StatusCode::from_u16(status).expect("is a status");
        (status, code, message)
    }

    /// Returns whether a dependency has refused a call of the service. For the caller, the service is then unavailable
    /// for an unknown time, whatever the reason. A deadline is an exception, because it is the caller's own.
    fn is_of_dependency(&self) -> bool {
        self.error.is_foreign_rejection() && self.error.kind() != ErrorKind::DeadlineExceeded
    }

    /// Returns whether the answer closes the connection: the server takes no more calls, or would have to read the rest
    /// of the request first. HTTP/2 has no such header.
    fn closes_connection(&self) -> bool {
        let is_last =
            self.error.kind() == ErrorKind::Draining || self.error.stage() == Stage::Request;
        is_last && !self.is_of_dependency() && self.is_http1
    }

    /// Returns the time for which the client is asked to stay away, if it is known.
    fn retry_after(&self) -> Option<Duration> {
        if self.is_of_dependency() {
            return None;
        }
        let is_overload = matches!(
            self.error.kind(),
            ErrorKind::BulkheadFull | ErrorKind::QueueTimeout
        );
        // Without a time, a client would consider the service broken.
        let usual = is_overload.then_some(OVERLOADED_FOR);
        self.error.retry_after().or(usual)
    }

    pub(super) fn response<T>(&self, body: T) -> Response<T> {
        let mut response = Response::new(body);
        match self.protocol {
            Protocol::Http => {
                *response.status_mut() = self.meaning().0;
                if let Some(wait) = self.retry_after() {
                    let seconds = HeaderValue::from(whole_seconds(wait));
                    response.headers_mut().insert(RETRY_AFTER, seconds);
                }
                if self.closes_connection() {
                    let close = HeaderValue::from_static("close");
                    response.headers_mut().insert(CONNECTION, close);
                }
            }
            Protocol::Grpc => {
                // The trailers are in the head, because there is no message before them.
                let headers = response.headers_mut();
                headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
                self.trailers(headers);
            }
        }
        response
    }

    /// Writes the trailers of a gRPC answer.
    fn trailers(&self, headers: &mut HeaderMap) {
        let (_, code, message) = self.meaning();
        headers.insert(&STATUS, code.number().into());
        let message: Cow<'_, str> = match self.error.kind() {
            ErrorKind::Service => message.into(),
            _ if self.is_for_client => format!("{:#}", self.error).into(),
            _ => message.into(),
        };
        if let Ok(message) = HeaderValue::try_from(percent_encoded(&message)) {
            headers.insert(&GRPC_MESSAGE, message);
        }
        let is_too_costly = self.error.kind() == ErrorKind::TooCostly;
        let pushback = if is_too_costly && !self.is_of_dependency() {
            // A negative number: do not try again.
            Some(-1)
        } else {
            self.retry_after().map(whole_millis)
        };
        if let Some(pushback) = pushback {
            headers.insert(&PUSHBACK, pushback.into());
        }
    }
}

/// Returns the trailers of a gRPC answer that ended in `error` after it had begun.
#[cold]
pub(crate) fn trailers(error: &Error, is_for_client: bool) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    Reason::new(error, Protocol::Grpc, is_for_client).trailers(&mut trailers);
    trailers
}

/// Parts of a request that are kept for a function that writes the answer.
pub(super) type RequestHead = (Method, Uri);

/// A refused call: its error, and its request.
///
/// It is the argument of the function of [`RespondLayer::respond`](super::RespondLayer::respond).
#[derive(Clone, Copy, Debug)]
pub struct Refusal<'a> {
    reason: Reason<'a>,
    head: &'a RequestHead,
}

impl<'a> Refusal<'a> {
    pub(super) fn new(reason: Reason<'a>, head: &'a RequestHead) -> Self {
        Self { reason, head }
    }

    /// Returns the error of the call. Its text is not meant for other parties.
    #[must_use]
    pub fn error(&self) -> &'a Error {
        self.reason.error
    }

    /// Returns the kind of the error.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.reason.error.kind()
    }

    /// Returns the wait before another try can succeed, if it is known.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.reason.retry_after()
    }

    /// Returns the protocol of the answer.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        self.reason.protocol
    }

    /// Returns the method of the request.
    #[must_use]
    pub fn method(&self) -> &'a Method {
        &self.head.0
    }

    /// Returns the URI of the request.
    #[must_use]
    pub fn uri(&self) -> &'a Uri {
        &self.head.1
    }

    /// Returns the HTTP status for the error, whatever the protocol of the answer is.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.reason.meaning().0
    }

    /// Returns the gRPC status for the error, whatever the protocol of the answer is.
    #[must_use]
    pub fn code(&self) -> Code {
        self.reason.meaning().1
    }

    /// Returns a short message, without names that only this process knows.
    #[must_use]
    pub fn message(&self) -> &'static str {
        self.reason.meaning().2
    }

    /// Returns the default answer, with an empty body. Return it unchanged, or replace its body.
    #[must_use]
    pub fn response(&self) -> Response<Bytes> {
        self.reason.response(Bytes::new())
    }
}

/// Returns the value of `Retry-After`, which has only seconds. It is rounded up, because a caller that comes back too
/// early is refused once more.
fn whole_seconds(wait: Duration) -> u64 {
    let begun = u64::from(wait.subsec_nanos() > 0);
    wait.as_secs().saturating_add(begun).max(1)
}

/// Returns the pushback of gRPC, which has 32 bits with a sign.
fn whole_millis(wait: Duration) -> i32 {
    let millis = wait.as_nanos().div_ceil(1_000_000);
    i32::try_from(millis).unwrap_or(i32::MAX).max(1)
}

/// Encodes a text for `grpc-message`: visible ASCII and spaces stay, and `%` and all other bytes become `%` and two
/// digits.
fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if matches!(byte, b' '..=b'~') && byte != b'%' {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Classify, Outcome};
    use proptest::prelude::*;

    fn rejected(kind: ErrorKind, retry_after: Option<Duration>) -> Error {
        Error::rejected(kind, "inventory", retry_after)
    }

    #[test]
    fn every_error_has_its_status_in_both_protocols() {
        for (kind, status, code) in [
            (ErrorKind::CircuitOpen, 503, Code::Unavailable),
            (ErrorKind::NoEndpoints, 503, Code::Unavailable),
            (ErrorKind::DiscoveryStopped, 503, Code::Unavailable),
            (ErrorKind::Refused, 503, Code::Unavailable),
            (ErrorKind::Draining, 503, Code::Unavailable),
            (ErrorKind::BulkheadFull, 503, Code::Unavailable),
            (ErrorKind::QueueTimeout, 503, Code::Unavailable),
            (ErrorKind::RateLimited, 429, Code::ResourceExhausted),
            (ErrorKind::TooCostly, 413, Code::ResourceExhausted),
            (ErrorKind::Timeout, 504, Code::DeadlineExceeded),
            (ErrorKind::DeadlineExceeded, 504, Code::DeadlineExceeded),
        ] {
            let error = rejected(kind, None);
            let meaning = Reason::new(&error, Protocol::Http, false).meaning();
            assert_eq!(meaning.0, status, "{kind:?}");
            assert_eq!(meaning.1, code, "{kind:?}");
        }
        let foreign = Error::of_service("password", || "");
        let meaning = Reason::new(&foreign, Protocol::Http, false).meaning();
        assert_eq!((meaning.0.as_u16(), meaning.1), (500, Code::Internal));
    }

    #[test]
    fn the_wait_is_rounded_up() {
        for (millis, seconds) in [(0, 1), (1, 1), (1_000, 1), (1_001, 2), (4_200, 5)] {
            assert_eq!(whole_seconds(Duration::from_millis(millis)), seconds);
        }
        assert_eq!(whole_seconds(Duration::MAX), u64::MAX);
        assert_eq!(whole_millis(Duration::from_nanos(1)), 1);
        assert_eq!(whole_millis(Duration::from_micros(4_001)), 5);
        assert_eq!(whole_millis(Duration::MAX), i32::MAX);
    }

    #[test]
    fn a_server_does_not_tell_its_names() {
        let error = rejected(ErrorKind::CircuitOpen, Some(Duration::from_millis(4_200)));
        let message = |is_for_client| {
            let reason = Reason::new(&error, Protocol::Grpc, is_for_client);
            let value = reason.response(()).headers()["grpc-message"].clone();
            value.to_str().expect("is ASCII").to_owned()
        };
        assert_eq!(message(false), "unavailable for now");
        let told = "circuit breaker \"inventory\" is open, retry after 4.2s";
        assert_eq!(message(true), told);
    }

    #[test]
    fn our_own_classifiers_take_a_full_bulkhead_for_an_overload() {
        let second = Some(Duration::from_secs(1));
        for kind in [ErrorKind::BulkheadFull, ErrorKind::QueueTimeout] {
            let error = rejected(kind, None);
            let answer = |protocol| Reason::new(&error, protocol, false).response(());
            let http = crate::http::Classifier::new().classify(Ok(&answer(Protocol::Http)));
            assert_eq!(
                http,
                Outcome::Overload {
                    retry_after: second
                }
            );
            let grpc = crate::http::grpc::Classifier::new().classify(Ok(&answer(Protocol::Grpc)));
            assert_eq!(grpc, http);
        }
    }

    #[test]
    fn what_costs_too_much_is_not_worth_another_try() {
        let error = rejected(ErrorKind::TooCostly, None);
        let response = Reason::new(&error, Protocol::Grpc, false).response(());
        assert_eq!(response.headers()["grpc-retry-pushback-ms"], "-1");
    }

    /// The opposite, as a client does it.
    fn decoded(text: &str) -> Vec<u8> {
        let mut bytes = text.bytes();
        let mut decoded = Vec::new();
        while let Some(byte) = bytes.next() {
            if byte == b'%' {
                let digits = [bytes.next().expect("two"), bytes.next().expect("digits")];
                let digits = std::str::from_utf8(&digits).expect("ASCII");
                decoded.push(u8::from_str_radix(digits, 16).expect("digits"));
            } else {
                decoded.push(byte);
            }
        }
        decoded
    }

    proptest! {
        #[test]
        fn every_text_is_a_message(text in any::<String>()) {
            let encoded = percent_encoded(&text);
            prop_assert!(HeaderValue::try_from(&encoded).is_ok());
            prop_assert_eq!(decoded(&encoded), text.as_bytes());
        }
    }
}
