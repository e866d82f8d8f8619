//! Calls that end with their response body.

use std::fmt;
use std::pin::Pin;
use std::task::{self, Poll, ready};
use std::thread;

use ::http::{HeaderMap, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::time::Instant;

use super::rules::of_error;
use crate::context::DeadlineScope;
use crate::timer::Timer;
use crate::{
    BoxError, Deadline, Error, ErrorKind, ErrorsAreFailures, Outcome, Permit, Stage,
    TrackCompletion, context,
};

/// Classifies a call whose response has ended.
///
/// The classifier of a stack with the completion [at the end of the body](CompleteOnBodyEnd) implements it. It is not
/// called if the head was a failure, nor if the body ended in an error, which is a [`Failure`](Outcome::Failure).
///
/// # Examples
///
/// A classifier of your own. It classifies bodies of any type, because each layer wraps the body.
///
/// ```
/// use buttress::http::ClassifyEos;
/// use buttress::{Classify, Error, Outcome};
/// use http::{HeaderMap, Response};
///
/// #[derive(Clone)]
/// struct Exports;
///
/// impl<B> Classify<Response<B>> for Exports {
///     fn classify(&self, result: Result<&Response<B>, &Error>) -> Outcome {
///         match result {
///             Ok(response) if !response.status().is_server_error() => Outcome::Success,
///             _ => Outcome::Failure,
///         }
///     }
/// }
///
/// impl ClassifyEos for Exports {
///     fn classify_eos(&self, trailers: Option<&HeaderMap>) -> Outcome {
///         match trailers.and_then(|trailers| trailers.get("export-status")) {
///             Some(status) if status == "complete" => Outcome::Success,
///             _ => Outcome::Failure,
///         }
///     }
/// }
/// # assert_eq!(Exports.classify_eos(None), Outcome::Failure);
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not classify how a response body ends",
    label = "needed by `.completion(CompleteOnBodyEnd)`",
    note = "use `buttress::http::Classifier` or `buttress::http::grpc::Classifier`, or implement `ClassifyEos` beside `Classify<http::Response<B>>`, for every `B`: each layer wraps the body"
)]
pub trait ClassifyEos {
    /// Classifies a response whose body has ended, by its trailers if there are any.
    ///
    /// After a [`Success`](Outcome::Success), the call has the outcome of its head.
    fn classify_eos(&self, trailers: Option<&HeaderMap>) -> Outcome;

    /// Returns whether the head has decided the outcome of the call, whatever the end of the body. By default only a
    /// failure has.
    fn is_decided(&self, status: StatusCode, headers: &HeaderMap) -> bool {
        let _ = (status, headers);
        false
    }

    /// Returns whether the end of a body says that the deadline of the call had passed. `false` by default.
    ///
    /// Such an end does not count against the service if the call was declared a stream, or had a deadline that was
    /// sooner than the timeout of the attempt or very near.
    fn ended_at_deadline(&self, trailers: Option<&HeaderMap>) -> bool {
        let _ = trailers;
        false
    }
}

impl ClassifyEos for ErrorsAreFailures {
    fn classify_eos(&self, _trailers: Option<&HeaderMap>) -> Outcome {
        Outcome::Success
    }
}

/// A call is over when the body of its response has been read to the end, has failed, or has been dropped.
///
/// Until then the call is in flight: it holds its permit of the bulkhead, and its time runs. See the
/// [module documentation](crate::http).
///
/// # Examples
///
/// ```
/// use buttress::BulkheadLayer;
/// use buttress::http::{CompleteOnBodyEnd, Classifier};
///
/// let downloads = BulkheadLayer::config("downloads", 50)
///     .classify(Classifier::new())
///     .completion(CompleteOnBodyEnd)
///     .build()?;
/// # Ok::<(), buttress::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CompleteOnBodyEnd;

impl<B, K> TrackCompletion<Response<B>, K> for CompleteOnBodyEnd
where
    B: Body<Error: Into<BoxError> + 'static>,
    K: ClassifyEos + Clone,
{
    type Response<T: Permit> = Response<TrackedBody<B, T, K>>;

    #[inline]
    fn ended(&self, response: &Response<B>, head: Outcome, classify: &K) -> Option<Outcome> {
        if !has_no_body(response.status()) && !response.body().is_end_stream() {
            return None;
        }
        Some(if is_decided(response, head, classify) {
            head
        } else {
            at_end(head, classify, None)
        })
    }

    #[inline]
    fn attach<T: Permit>(
        &self,
        response: Response<B>,
        head: Outcome,
        classify: &K,
        permit: Option<T>,
    ) -> Self::Response<T> {
        let Some(mut permit) = permit else {
            return response.map(TrackedBody::from);
        };
        permit.head(head);
        let call = Call {
            ends_at: permit.deadline().map(Deadline::instant),
            permit: Some(permit),
            outcome: head,
            is_decided: is_decided(&response, head, classify),
            is_stream: context::is_stream(),
            deadline: context::deadline(),
            timer: None,
            classify: classify.clone(),
        };
        response.map(|body| TrackedBody {
            body: Some(body),
            call: Some(call),
        })
    }
}

/// Returns whether a response with this status has no body, whatever its type says.
///
/// After an upgrade the connection belongs to another protocol.
fn has_no_body(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::SWITCHING_PROTOCOLS | StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
    )
}

/// Returns whether a call has the outcome of its head, whatever happens to the body.
#[inline]
fn is_decided<B, K: ClassifyEos>(response: &Response<B>, head: Outcome, classify: &K) -> bool {
    head.is_declined() || classify.is_decided(response.status(), response.headers())
}

/// Returns the outcome of a call whose body has ended.
#[inline]
fn at_end<K: ClassifyEos>(head: Outcome, classify: &K, trailers: Option<&HeaderMap>) -> Outcome {
    match classify.classify_eos(trailers) {
        Outcome::Success => head,
        end => end,
    }
}

pin_project! {
    /// A response body that carries the permit of its call. Made by [`CompleteOnBodyEnd`].
    ///
    /// It passes data, trailers, the size and the end on unchanged. Its error is [`Error`](crate::Error), which
    /// contains the error of the inner body. A reader that waits at the [deadline](Permit::deadline) of its call, or
    /// reads on after it, gets an error of this crate, and the inner body is dropped before.
    ///
    /// `From<B>` makes a body without a call, such as the answer of a [fallback](crate::fallback).
    pub struct TrackedBody<B: Body, T: Permit, K: ClassifyEos> {
        // Declared before the call, so that its resources are given back first when both are dropped. `None` after the
        // deadline.
        #[pin]
        body: Option<B>,
        // Until the call is over.
        call: Option<Call<T, K>>,
    }

    impl<B: Body, T: Permit, K: ClassifyEos> PinnedDrop for TrackedBody<B, T, K> {
        fn drop(this: Pin<&mut Self>) {
            let this = this.project();
            if let (Some(call), Some(body)) = (this.call, this.body.as_ref().as_pin_ref()) {
                // A body that has panicked is not used again.
                if !thread::panicking() {
                    call.leave(body.get_ref());
                }
            }
        }
    }
}

/// A call whose head has been classified.
struct Call<T: Permit, K> {
    permit: Option<T>,
    /// Outcome of the call so far.
    outcome: Outcome,
    /// `true` if the outcome is final, whatever happens to the body.
    is_decided: bool,
    /// `true` if it was declared a stream, whose end by a deadline says nothing about the service.
    is_stream: bool,
    /// The deadline that was in force at the head.
    deadline: Option<Instant>,
    /// The deadline of the permit.
    ends_at: Option<Instant>,
    // Boxed, so that the body is `Unpin` if the inner body is, as readers expect. Made when a reader has to wait.
    timer: Option<Pin<Box<Timer>>>,
    classify: K,
}

impl<T: Permit, K: ClassifyEos> Call<T, K> {
    #[inline]
    fn at_end(&self, trailers: Option<&HeaderMap>) -> Outcome {
        if self.is_decided {
            self.outcome
        } else {
            at_end(self.outcome, &self.classify, trailers)
        }
    }

    /// Waits for the deadline, if there is one.
    #[cold]
    fn poll_deadline(&mut self, cx: &mut task::Context<'_>) -> Poll<()> {
        let Some(ends_at) = self.ends_at else {
            return Poll::Pending;
        };
        let timer = self.timer.get_or_insert_with(|| Box::pin(Timer::default()));
        timer.as_mut().poll_at(ends_at, cx)
    }

    /// Returns whether the deadline has passed for a reader that does not wait for the body.
    #[inline]
    fn is_late(&self) -> bool {
        self.ends_at.is_some_and(|at| at < Instant::now())
    }

    /// Ends the call at its deadline.
    #[cold]
    fn expire(mut self, stage: Stage) -> Error {
        let permit = self.permit.take();
        let mut error = permit.map_or_else(|| Error::late(""), Permit::expire);
        error.0.stage = stage;
        error
    }

    /// Ends a call whose service says that the deadline has passed.
    #[cold]
    fn exceed_deadline(mut self, outcome: Outcome) {
        let permit = self.permit.take().filter(|_| !self.is_stream);
        match (permit, self.deadline) {
            (Some(permit), Some(deadline)) => {
                let _scope = DeadlineScope::enter(deadline);
                permit.exceed_deadline(outcome);
            }
            (Some(permit), None) => permit.resolve(outcome),
            (None, _) => {}
        }
    }

    /// Ends the call at the end of its body.
    #[inline]
    fn end(mut self, trailers: Option<&HeaderMap>) {
        let outcome = self.at_end(trailers);
        if outcome.is_failure() && !self.is_decided && self.classify.ended_at_deadline(trailers) {
            self.exceed_deadline(outcome);
            return;
        }
        if let Some(permit) = self.permit.take() {
            permit.resolve(outcome);
        }
    }

    #[cold]
    fn fail(mut self, error: &Error) {
        let is_late = error.kind() == ErrorKind::DeadlineExceeded;
        let is_end_of_stream = (self.is_stream || error.is_of_stream) && error.is_timeout();
        if error.is_of_slow_reader() || is_late || is_end_of_stream {
            // The call ends as if the reader had dropped the body: a short deadline of the caller says nothing about
            // the service, and a stream may be silent.
            return;
        }
        let outcome = if self.is_decided {
            self.outcome
        } else {
            of_error(error)
        };
        match self.permit.take() {
            Some(permit) if error.is_timeout() => permit.time_out(outcome),
            Some(permit) => permit.resolve(outcome),
            None => {}
        }
    }

    /// Notes that the body is about to be dropped.
    ///
    /// A reader that knows that the body is complete does not poll for its end.
    fn leave<B: Body>(&mut self, body: &B) {
        let is_at_end = body.is_end_stream();
        if self.is_decided || !is_at_end && body.size_hint().exact() != Some(0) {
            return;
        }
        let outcome = self.at_end(None);
        // Trailers may follow. If the outcome depends on them, it is not known.
        if is_at_end || !outcome.is_failure() {
            self.outcome = outcome;
            self.is_decided = true;
        }
    }
}

impl<T: Permit, K> Drop for Call<T, K> {
    #[inline]
    fn drop(&mut self) {
        if let (Some(permit), true) = (self.permit.take(), self.is_decided) {
            permit.resolve(self.outcome);
        }
    }
}

impl<B: Body, T: Permit, K: ClassifyEos> TrackedBody<B, T, K> {
    /// Returns the body of the inner service, unless it was dropped at the deadline.
    pub fn get_ref(&self) -> Option<&B> {
        self.body.as_ref()
    }
}

impl<B, T, K> Body for TrackedBody<B, T, K>
where
    B: Body<Error: Into<BoxError> + 'static>,
    T: Permit,
    K: ClassifyEos,
{
    type Data = B::Data;
    type Error = Error;

    #[inline]
    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut task::Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, Error>>> {
        let mut this = self.project();
        let Some(mut body) = this.body.as_mut().as_pin_mut() else {
            return Poll::Ready(None);
        };
        let Poll::Ready(frame) = body.as_mut().poll_frame(cx) else {
            let Some(call) = this.call.as_mut() else {
                return Poll::Pending;
            };
            ready!(call.poll_deadline(cx));
            this.body.set(None);
            let call = this.call.take();
            return Poll::Ready(call.map(|call| Err(call.expire(Stage::WholeAnswer))));
        };
        let frame = frame.map(|frame| frame.map_err(Error::of_body));
        if let Some(call) = this.call.as_ref() {
            match &frame {
                Some(Ok(frame)) => {
                    let trailers = frame.trailers_ref();
                    // Some readers do not poll again after the last frame.
                    if trailers.is_some() || body.is_end_stream() {
                        if let Some(call) = this.call.take() {
                            call.end(trailers);
                        }
                    } else if call.is_late() {
                        // A slow reader might always find a frame, and never wait for the deadline.
                        this.body.set(None);
                        let call = this.call.take();
                        return Poll::Ready(call.map(|call| Err(call.expire(Stage::Reader))));
                    }
                }
                Some(Err(error)) => {
                    if let Some(call) = this.call.take() {
                        call.fail(error);
                    }
                }
                None => {
                    if let Some(call) = this.call.take() {
                        call.end(None);
                    }
                }
            }
        }
        Poll::Ready(frame)
    }

    #[inline]
    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(B::is_end_stream)
    }

    #[inline]
    fn size_hint(&self) -> SizeHint {
        let body = self.body.as_ref();
        body.map_or(SizeHint::with_exact(0), B::size_hint)
    }
}

impl<B: Body, T: Permit, K: ClassifyEos> From<B> for TrackedBody<B, T, K> {
    /// Makes a body without a call.
    fn from(body: B) -> Self {
        Self {
            body: Some(body),
            call: None,
        }
    }
}

impl<B: Body + Default, T: Permit, K: ClassifyEos> Default for TrackedBody<B, T, K> {
    fn default() -> Self {
        Self::from(B::default())
    }
}

impl<B, T, K> fmt::Debug for TrackedBody<B, T, K>
where
    B: Body + fmt::Debug,
    T: Permit + fmt::Debug,
    K: ClassifyEos,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let permit = self.call.as_ref().and_then(|call| call.permit.as_ref());
        f.debug_struct("TrackedBody")
            .field("body", &self.body)
            .field("permit", &permit)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;
    use crate::completion::complete;
    use ::http::HeaderValue;
    use proptest::prelude::*;
    use std::collections::VecDeque;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::{Arc, Mutex};
    use std::task::{Context, Waker};
    use std::time::Duration;

    const OVERLOAD: Outcome = Outcome::Overload { retry_after: None };

    /// End of a permit.
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum End {
        Resolved(Outcome),
        TimedOut(Outcome),
        Dropped,
    }

    /// A permit that notes its head, how it ended, and whether the body was still there.
    struct Note {
        ends: Arc<Mutex<Vec<(End, bool)>>>,
        heads: Arc<Mutex<Vec<Outcome>>>,
        body: Arc<()>,
        is_open: bool,
    }

    impl Note {
        fn end(&mut self, end: End) {
            self.is_open = false;
            let has_body = Arc::strong_count(&self.body) > 2;
            self.ends.lock().unwrap().push((end, has_body));
        }
    }

    impl Permit for Note {
        fn head(&mut self, outcome: Outcome) {
            assert!(self.ends.lock().unwrap().is_empty());
            self.heads.lock().unwrap().push(outcome);
        }

        fn resolve(mut self, outcome: Outcome) {
            self.end(End::Resolved(outcome));
        }

        fn time_out(mut self, outcome: Outcome) {
            self.end(End::TimedOut(outcome));
        }
    }

    impl Drop for Note {
        fn drop(&mut self) {
            if self.is_open {
                self.end(End::Dropped);
            }
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Pending,
        Data(u8),
        Trailers(Outcome),
        Fails,
        TimesOut,
        IsTooLate,
        IsRefused,
        Panics,
    }

    /// A body that follows a script.
    #[derive(Clone, Debug)]
    struct Script {
        steps: VecDeque<Step>,
        /// Knows when nothing is left.
        knows_end: bool,
        /// Knows the number of bytes that are left.
        knows_size: bool,
        alive: Arc<()>,
    }

    impl Script {
        fn left(&self) -> u64 {
            let bytes = self.steps.iter().map(|step| match step {
                Step::Data(bytes) => u64::from(*bytes),
                _ => 0,
            });
            bytes.sum()
        }
    }

    impl Body for Script {
        type Data = bytes::Bytes;
        type Error = BoxError;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Self::Data>, BoxError>>> {
            let second = Duration::from_secs(1);
            let ours = match self.steps.pop_front() {
                None => return Poll::Ready(None),
                Some(Step::Pending) => return Poll::Pending,
                Some(Step::Data(length)) => {
                    let data = vec![0; usize::from(length)];
                    return Poll::Ready(Some(Ok(Frame::data(data.into()))));
                }
                Some(Step::Trailers(outcome)) => {
                    let value = HeaderValue::from_str(&format!("{outcome:?}")).unwrap();
                    let trailers = HeaderMap::from_iter([("outcome".parse().unwrap(), value)]);
                    return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
                }
                Some(Step::Fails) => return Poll::Ready(Some(Err("connection reset".into()))),
                Some(Step::TimesOut) => Error::timed_out(ErrorKind::Timeout, "db", second),
                Some(Step::IsTooLate) => {
                    Error::body_timed_out(ErrorKind::Timeout, "db", second, Stage::Reader)
                }
                Some(Step::IsRefused) => Error::rejected(ErrorKind::BulkheadFull, "db", None),
                Some(Step::Panics) => panic!("in the body"),
            };
            // An error of this crate may be anywhere in the chain.
            Poll::Ready(Some(Err(std::io::Error::other(ours).into())))
        }

        fn is_end_stream(&self) -> bool {
            self.knows_end && self.steps.is_empty()
        }

        fn size_hint(&self) -> SizeHint {
            if self.knows_size {
                SizeHint::with_exact(self.left())
            } else {
                SizeHint::default()
            }
        }
    }

    /// Classifies by the trailers. Without trailers, the outcome is fixed.
    #[derive(Clone, Copy, Debug)]
    struct Judge {
        without: Outcome,
    }

    impl ClassifyEos for Judge {
        fn classify_eos(&self, trailers: Option<&HeaderMap>) -> Outcome {
            let Some(trailers) = trailers else {
                return self.without;
            };
            match trailers["outcome"].to_str().unwrap() {
                "Success" => Outcome::Success,
                "Failure" => Outcome::Failure,
                _ => Outcome::Ignored,
            }
        }

        fn is_decided(&self, _: StatusCode, headers: &HeaderMap) -> bool {
            headers.contains_key("decided")
        }
    }

    #[derive(Clone, Debug)]
    struct Case {
        head: Outcome,
        is_decided: bool,
        judge: Judge,
        body: Script,
    }

    impl Case {
        fn new(steps: impl Into<VecDeque<Step>>) -> Self {
            Self {
                head: Outcome::Success,
                is_decided: false,
                judge: Judge {
                    without: Outcome::Success,
                },
                body: Script {
                    steps: steps.into(),
                    knows_end: false,
                    knows_size: false,
                    alive: Arc::default(),
                },
            }
        }

        /// Polls the body this number of times and drops it. Returns the end of its permit.
        fn run(&self, polls: usize) -> End {
            self.run_and_drop(polls).0
        }

        /// Also returns whether the permit ended before the body was dropped.
        fn run_and_drop(&self, polls: usize) -> (End, bool) {
            let ends = Arc::default();
            let alive = Arc::new(());
            let body = Script {
                alive: Arc::clone(&alive),
                ..self.body.clone()
            };
            let heads = Arc::default();
            let note = Note {
                ends: Arc::clone(&ends),
                heads: Arc::clone(&heads),
                body: alive,
                is_open: true,
            };
            let mut response = Response::new(body);
            if self.is_decided {
                let value = HeaderValue::from_static("yes");
                response.headers_mut().insert("decided", value);
            }
            // The note, the body, and one here.
            let alive = Arc::clone(&note.body);
            let response = complete(&CompleteOnBodyEnd, response, self.head, &self.judge, note);
            let has_ended = !ends.lock().unwrap().is_empty();
            let heads = heads.lock().unwrap().clone();
            assert_eq!(heads, if has_ended { vec![] } else { vec![self.head] });
            let polled = catch_unwind(AssertUnwindSafe(|| {
                let mut body = response.into_body();
                for _ in 0..polls {
                    let mut cx = Context::from_waker(Waker::noop());
                    drop(Pin::new(&mut body).poll_frame(&mut cx));
                }
                ends.lock().unwrap().len()
            }));
            drop(alive);
            let ends = ends.lock().unwrap();
            let [(end, has_body)] = ends[..] else {
                panic!("a permit ends once: {ends:?}");
            };
            let is_early = matches!(polled, Ok(1));
            assert_eq!(has_body, is_early, "the body is dropped first");
            (end, is_early)
        }

        /// Returns the expected result of `run_and_drop`.
        fn model(&self, polls: usize) -> (End, bool) {
            let is_decided = self.is_decided || self.head.is_declined();
            let end = |outcome| match outcome {
                _ if is_decided => self.head,
                Outcome::Success => self.head,
                outcome => outcome,
            };
            let failed = if is_decided {
                self.head
            } else {
                Outcome::Failure
            };
            let mut body = self.body.clone();
            if body.is_end_stream() {
                return (End::Resolved(end(self.judge.without)), true);
            }
            for _ in 0..polls {
                let ended = match body.steps.pop_front() {
                    Some(Step::Pending) => continue,
                    Some(Step::Data(_)) if !body.is_end_stream() => continue,
                    None | Some(Step::Data(_)) => End::Resolved(end(self.judge.without)),
                    Some(Step::Trailers(outcome)) => End::Resolved(end(outcome)),
                    Some(Step::Fails | Step::IsRefused) => End::Resolved(failed),
                    Some(Step::TimesOut) => End::TimedOut(failed),
                    Some(Step::IsTooLate) if is_decided => End::Resolved(self.head),
                    Some(Step::IsTooLate) => End::Dropped,
                    Some(Step::Panics) if is_decided => return (End::Resolved(self.head), false),
                    Some(Step::Panics) => return (End::Dropped, false),
                };
                return (ended, true);
            }
            let last = end(self.judge.without);
            let may_be_whole = body.knows_size && body.left() == 0 && !last.is_failure();
            let dropped = if is_decided {
                End::Resolved(self.head)
            } else if body.is_end_stream() || may_be_whole {
                End::Resolved(last)
            } else {
                End::Dropped
            };
            (dropped, false)
        }
    }

    fn steps() -> impl Strategy<Value = VecDeque<Step>> {
        const OUTCOMES: &[Outcome] = &[Outcome::Success, Outcome::Failure, Outcome::Ignored];
        let step = prop_oneof![
            2 => Just(Step::Pending),
            4 => (0..4u8).prop_map(Step::Data),
        ];
        let last = prop_oneof![
            4 => Just(None),
            4 => prop::sample::select(OUTCOMES).prop_map(|it| Some(Step::Trailers(it))),
            1 => Just(Some(Step::Fails)),
            1 => Just(Some(Step::TimesOut)),
            1 => Just(Some(Step::IsTooLate)),
            1 => Just(Some(Step::IsRefused)),
            1 => Just(Some(Step::Panics)),
        ];
        (prop::collection::vec(step, 0..5), last)
            .prop_map(|(steps, last)| steps.into_iter().chain(last).collect())
    }

    fn case() -> impl Strategy<Value = Case> {
        const HEADS: &[Outcome] = &[
            Outcome::Success,
            Outcome::Failure,
            OVERLOAD,
            Outcome::Ignored,
        ];
        const ENDS: &[Outcome] = &[Outcome::Success, Outcome::Failure];
        let outcomes = (prop::sample::select(HEADS), prop::sample::select(ENDS));
        (steps(), outcomes, any::<(bool, bool, bool)>()).prop_map(
            |(steps, (head, without), (is_decided, knows_end, knows_size))| {
                let mut case = Case::new(steps);
                case.head = head;
                case.is_decided = is_decided;
                case.judge = Judge { without };
                case.body.knows_end = knows_end;
                case.body.knows_size = knows_size;
                case
            },
        )
    }

    proptest! {
        #[test]
        fn a_token_ends_once_and_as_the_model_says(case in case(), polls in 0..8usize) {
            prop_assert_eq!(case.run_and_drop(polls), case.model(polls));
        }
    }

    const SUCCESS: End = End::Resolved(Outcome::Success);
    const FAILURE: End = End::Resolved(Outcome::Failure);

    #[test]
    fn a_body_that_is_read_to_its_end_is_a_success_and_one_that_is_not_is_cancelled() {
        let case = Case::new([Step::Data(1), Step::Pending, Step::Data(1)]);
        for polls in 0..=3 {
            assert_eq!(case.run(polls), End::Dropped, "{polls}");
        }
        assert_eq!(case.run(4), SUCCESS);
        assert_eq!(case.run(9), SUCCESS);
    }

    #[test]
    fn a_body_that_is_not_asked_for_its_end_is_a_success_all_the_same() {
        let mut case = Case::new([Step::Data(1), Step::Data(1)]);
        case.body.knows_end = true;
        assert_eq!(case.run(1), End::Dropped);
        assert_eq!(case.run(2), SUCCESS);
        case.body.knows_end = false;
        case.body.knows_size = true;
        assert_eq!(case.run(1), End::Dropped);
        assert_eq!(case.run(2), SUCCESS);
    }

    #[test]
    fn trailers_that_are_needed_but_were_not_read_leave_a_call_cancelled() {
        let mut case = Case::new([Step::Data(1), Step::Trailers(Outcome::Success)]);
        case.judge.without = Outcome::Failure;
        case.body.knows_size = true;
        assert_eq!(case.run(1), End::Dropped);
        assert_eq!(case.run(2), SUCCESS);
        case.body.steps.pop_back();
        assert_eq!(case.run(2), FAILURE);
    }

    #[test]
    fn a_failure_of_the_head_is_one_whatever_becomes_of_the_body() {
        let mut case = Case::new([Step::Data(1), Step::Fails]);
        case.head = OVERLOAD;
        for polls in 0..4 {
            assert_eq!(case.run(polls), End::Resolved(OVERLOAD), "{polls}");
        }
    }

    #[test]
    fn what_the_head_has_decided_is_not_changed_by_the_body() {
        let mut case = Case::new([Step::Data(1), Step::Trailers(Outcome::Failure)]);
        case.is_decided = true;
        for polls in 0..4 {
            assert_eq!(case.run(polls), SUCCESS, "{polls}");
        }
    }

    #[test]
    fn a_timeout_of_ours_in_the_body_is_told_from_an_error_of_the_service() {
        assert_eq!(Case::new([Step::Fails]).run(1), FAILURE);
        let timed_out = End::TimedOut(Outcome::Failure);
        assert_eq!(Case::new([Step::TimesOut]).run(1), timed_out);
        assert_eq!(Case::new([Step::IsRefused]).run(1), FAILURE, "elsewhere");
        let late = Case::new([Step::IsTooLate]).run(1);
        assert_eq!(late, End::Dropped, "the reader was");
    }

    #[test]
    fn an_empty_body_and_a_status_without_one_end_the_call_at_the_head() {
        let attach = |status, body: Script| {
            let ends = Arc::default();
            let note = Note {
                ends: Arc::clone(&ends),
                heads: Arc::default(),
                body: Arc::clone(&body.alive),
                is_open: true,
            };
            let mut response = Response::new(body);
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            let judge = Case::new([]).judge;
            let response = complete(&CompleteOnBodyEnd, response, Outcome::Success, &judge, note);
            let ended = ends.lock().unwrap().first().map(|end| end.0);
            drop(response);
            ended
        };
        let body = Case::new([]).body;
        assert_eq!(attach(200, body.clone()), None);
        for status in [101, 204, 304] {
            assert_eq!(attach(status, body.clone()), Some(SUCCESS), "{status}");
        }
        let empty = Script {
            knows_end: true,
            ..body
        };
        assert_eq!(attach(200, empty), Some(SUCCESS));
    }
}
