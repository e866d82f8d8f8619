//! A body that several readers read, against a plain model, and what it must not do.

#![cfg(feature = "http")]
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

use buttress::ReplayBodyError;
use buttress::circuit_breaker::State;
use buttress::http::{Classifier, ReplayBody, TryCopyBody};
use buttress::{BoxError, CircuitBreakerLayer, HedgeLayer};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::{Body, Frame, SizeHint};
use proptest::prelude::*;
use tokio::time::{Instant, sleep};
use tower::{Layer, ServiceExt, service_fn};

/// What a source does when it is polled.
#[derive(Clone, Copy, Debug)]
enum Step {
    Data(usize),
    Trailers,
    /// It is pending, once, until the test wakes it.
    Pending,
    /// It is pending and has woken its reader already.
    Yield,
    Error,
    Panic,
}

/// Counts the bytes of the source's frames that somebody holds.
#[derive(Clone, Default)]
struct Held(Arc<AtomicUsize>);

impl Held {
    fn bytes(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

struct Owned(Vec<u8>, Held);

impl AsRef<[u8]> for Owned {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        self.1.0.fetch_sub(self.0.len(), Ordering::Relaxed);
    }
}

/// A body that follows a script.
struct Source {
    steps: VecDeque<Step>,
    /// Whether it says when it is over.
    is_exact: bool,
    /// Whether it says how long it is.
    knows_length: bool,
    /// What it says instead.
    claims: Option<u64>,
    /// How many frames it has given.
    given: usize,
    waker: Arc<Mutex<Option<Waker>>>,
    held: Held,
    is_dropped: Arc<AtomicBool>,
    is_over: bool,
}

impl Source {
    fn new(steps: &[Step], is_exact: bool) -> Self {
        Self {
            steps: steps.iter().copied().collect(),
            is_exact,
            knows_length: is_exact,
            claims: None,
            given: 0,
            waker: Arc::default(),
            held: Held::default(),
            is_dropped: Arc::default(),
            is_over: false,
        }
    }
}

/// The content of the data frame with this number.
fn content(number: usize, length: usize) -> Vec<u8> {
    (0..length)
        .map(|place| (number * 7 + place) as u8)
        .collect()
}

fn trailers() -> HeaderMap {
    HeaderMap::from_iter([(http::header::ETAG, HeaderValue::from_static("abc"))])
}

/// The size of the trailers against the limit: of the map, of a field, and of the content.
const TRAILERS: usize = 512 + 256 + 7;

impl Body for Source {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        assert!(!self.is_over, "polled after its end");
        let step = self.steps.pop_front();
        self.is_over = matches!(step, None | Some(Step::Error));
        Poll::Ready(match step {
            None => None,
            Some(Step::Error) => Some(Err(io::Error::other("cut").into())),
            Some(Step::Panic) => panic!("as asked"),
            Some(Step::Pending) => {
                *self.waker.lock().unwrap() = Some(cx.waker().clone());
                return Poll::Pending;
            }
            Some(Step::Yield) => {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Some(Step::Data(length)) => {
                let number = self.given;
                self.given += 1;
                self.held.0.fetch_add(length, Ordering::Relaxed);
                let owned = Owned(content(number, length), self.held.clone());
                Some(Ok(Frame::data(Bytes::from_owner(owned))))
            }
            Some(Step::Trailers) => {
                self.given += 1;
                Some(Ok(Frame::trailers(trailers())))
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.is_exact && self.steps.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        if let Some(claims) = self.claims {
            return SizeHint::with_exact(claims);
        }
        if !self.knows_length {
            return SizeHint::default();
        }
        let length = |step: &Step| match step {
            Step::Data(length) => *length as u64,
            _ => 0,
        };
        SizeHint::with_exact(self.steps.iter().map(length).sum())
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.is_dropped.store(true, Ordering::Relaxed);
    }
}

#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// One who reads a body.
struct Reader {
    body: ReplayBody<Source>,
    woken: Arc<Woken>,
}

#[derive(Clone, Debug, PartialEq)]
enum Got {
    Data(Vec<u8>),
    Trailers,
    End,
    Lost,
    Failed,
    Panicked,
    Pending,
}

impl Reader {
    fn new(body: ReplayBody<Source>) -> Self {
        Self {
            body,
            woken: Arc::default(),
        }
    }

    fn copy(&self) -> Option<Self> {
        self.body.try_copy().map(Self::new)
    }

    fn was_woken(&self) -> bool {
        self.woken.0.swap(false, Ordering::Relaxed)
    }

    fn poll(&mut self) -> Got {
        let waker = Waker::from(Arc::clone(&self.woken));
        let mut cx = Context::from_waker(&waker);
        match Pin::new(&mut self.body).poll_frame(&mut cx) {
            Poll::Pending => Got::Pending,
            Poll::Ready(None) => Got::End,
            Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) => Got::Data(data.to_vec()),
                Err(frame) => {
                    assert_eq!(frame.into_trailers().unwrap(), trailers());
                    Got::Trailers
                }
            },
            Poll::Ready(Some(Err(error))) => match error.downcast_ref::<ReplayBodyError>() {
                Some(ReplayBodyError::Lost) => Got::Lost,
                Some(ReplayBodyError::Source(source)) => {
                    assert_eq!(source.to_string(), "cut");
                    Got::Failed
                }
                Some(ReplayBodyError::Panicked) => Got::Panicked,
                _ => panic!("{error}"),
            },
        }
    }

    /// Reads all that can be read now.
    fn read(&mut self) -> Vec<Got> {
        let mut got = Vec::new();
        loop {
            let next = self.poll();
            let is_last = !matches!(next, Got::Data(_) | Got::Trailers);
            got.push(next);
            if is_last {
                return got;
            }
        }
    }

    /// What is left, if that is known.
    fn exact(&self) -> Option<u64> {
        self.body.size_hint().exact()
    }
}

/// What a reader of the whole body gets.
fn whole(steps: &[Step]) -> Vec<Got> {
    let mut whole = Vec::new();
    for step in steps {
        whole.push(match step {
            Step::Data(length) => Got::Data(content(whole.len(), *length)),
            Step::Trailers => Got::Trailers,
            Step::Error => Got::Failed,
            _ => continue,
        });
    }
    if whole.last() != Some(&Got::Failed) {
        whole.push(Got::End);
    }
    whole
}

/// What a reader of a short body gets that another one has read: all data at once.
fn replayed(steps: &[Step]) -> Vec<Got> {
    joined(whole(steps))
}

/// Joins data that follows one another.
fn joined(all: Vec<Got>) -> Vec<Got> {
    let mut joined = Vec::new();
    for got in all {
        match (joined.last_mut(), got) {
            (Some(Got::Data(data)), Got::Data(more)) => data.extend(more),
            (_, got) => joined.push(got),
        }
    }
    joined
}

/// A body in the plainest way: all that it gives in one list, and a position in it for each reader.
struct Model {
    /// All that the source gives, its end last.
    whole: Vec<Got>,
    /// The bytes of all frames. Trailers have as many as their size.
    content: Vec<u8>,
    limit: usize,
    /// The number and the size of the frames that the source has given.
    given_frames: usize,
    given: usize,
    /// It has come to its end.
    is_ended: bool,
    /// What is before is not kept.
    first: usize,
    readers: Vec<Place>,
}

#[derive(Clone, Default)]
struct Place {
    next: usize,
    is_over: bool,
    is_waiting: bool,
}

impl Model {
    fn new(whole: Vec<Got>, limit: usize) -> Self {
        let content = whole.iter().flat_map(|got| match got {
            Got::Data(data) => data.clone(),
            Got::Trailers => vec![0; TRAILERS],
            _ => Vec::new(),
        });
        Self {
            content: content.collect(),
            whole,
            limit,
            given_frames: 0,
            given: 0,
            is_ended: false,
            first: 0,
            readers: vec![Place::default()],
        }
    }

    fn kept(&self) -> usize {
        self.given - self.first
    }

    fn forget(&mut self) {
        let first = self.first.max(self.given.saturating_sub(self.limit));
        let intact = self.readers.iter().filter(|place| place.next >= first);
        self.first = intact.map(|place| place.next).min().unwrap_or(self.given);
    }

    /// The length of the data after a position.
    fn data_after(&self, position: usize) -> usize {
        let trailers = self.whole.contains(&Got::Trailers);
        let data = self.content.len() - if trailers { TRAILERS } else { 0 };
        data.saturating_sub(position)
    }

    /// Checks what a reader at a position got, and returns its next position.
    fn check(&self, position: usize, got: &Got) -> Option<usize> {
        let is_next = position == self.given;
        let size = match got {
            Got::Data(data) => data.len(),
            Got::Trailers => TRAILERS,
            _ => 0,
        };
        let is_right = match got {
            _ if is_next => *got == self.whole[self.given_frames],
            Got::Data(data) => {
                let left = (self.given - position).min(self.data_after(position));
                0 < size && size <= left && self.content[position..].starts_with(data)
            }
            Got::Trailers => self.data_after(position) == 0,
            _ => false,
        };
        is_right.then_some(position + size)
    }

    fn has_failed(&self) -> bool {
        self.is_ended && self.whole.last() == Some(&Got::Failed)
    }
}

#[derive(Clone, Debug)]
enum Op {
    Poll(usize),
    Copy(usize),
    Drop(usize),
    Wake,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        2 => (1..40_usize).prop_map(Step::Data),
        2 => (1..900_usize).prop_map(Step::Data),
        2 => Just(Step::Pending),
        1 => Just(Step::Yield),
    ];
    let end = prop_oneof![
        3 => Just(None),
        1 => Just(Some(Step::Trailers)),
        1 => Just(Some(Step::Error)),
    ];
    (prop::collection::vec(step, 1..12), end).prop_map(|(mut steps, end)| {
        steps.extend(end);
        steps
    })
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => any::<usize>().prop_map(Op::Poll),
        2 => any::<usize>().prop_map(Op::Copy),
        1 => any::<usize>().prop_map(Op::Drop),
        2 => Just(Op::Wake),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn every_reader_gets_the_whole_body_or_is_told_that_it_cannot(
        steps in steps(),
        is_exact: bool,
        limit in 0..4_000_usize,
        ops in prop::collection::vec(op(), 1..60),
    ) {
        let source = Source::new(&steps, is_exact);
        let (held, is_dropped) = (source.held.clone(), Arc::clone(&source.is_dropped));
        let source_waker = Arc::clone(&source.waker);
        let length = source.size_hint().exact();
        let is_too_long = length.is_some_and(|length| length > limit as u64);
        let mut readers = vec![Reader::new(ReplayBody::with_limit(source, limit))];
        let limit = if is_too_long { 0 } else { limit };
        let mut model = Model::new(whole(&steps), limit);
        // The source has nothing left, and says so.
        let mut is_complete = is_exact && steps.is_empty();
        for op in ops {
            let count = readers.len();
            match op {
                Op::Wake => {
                    if let Some(waker) = source_waker.lock().unwrap().take() {
                        waker.wake();
                        for (reader, place) in readers.iter().zip(&model.readers) {
                            prop_assert!(!place.is_waiting || reader.was_woken());
                        }
                    }
                }
                Op::Copy(_) | Op::Poll(_) | Op::Drop(_) if count == 0 => {}
                Op::Copy(place) => {
                    let copy = readers[place % count].copy();
                    let can_be = model.first == 0 && !model.has_failed();
                    prop_assert_eq!(copy.is_some(), can_be);
                    if let Some(copy) = copy {
                        readers.push(copy);
                        model.readers.push(Place::default());
                    }
                }
                Op::Drop(place) => {
                    readers.swap_remove(place % count);
                    model.readers.swap_remove(place % count);
                    model.forget();
                }
                Op::Poll(place) => {
                    let place = place % count;
                    let got = readers[place].poll();
                    let Place { next, is_over, .. } = model.readers[place].clone();
                    let mut has_read = false;
                    if got == Got::Pending {
                        prop_assert!(next == model.given && !is_over);
                        model.readers[place].is_waiting = true;
                    } else if is_over {
                        prop_assert_eq!(&got, &Got::End);
                    } else if next < model.first {
                        prop_assert_eq!(&got, &Got::Lost);
                    } else {
                        let after = model.check(next, &got);
                        prop_assert!(after.is_some(), "got {got:?} at {next}");
                        model.readers[place].next = after.unwrap_or_default();
                        has_read = next == model.given && !model.is_ended;
                        if matches!(got, Got::Data(_) | Got::Trailers) {
                            model.given_frames += usize::from(next == model.given);
                            model.given = model.given.max(model.readers[place].next);
                        } else {
                            model.is_ended = true;
                        }
                    }
                    if got != Got::Pending {
                        model.readers[place].is_waiting = false;
                        readers[place].was_woken();
                        model.readers[place].is_over = !matches!(got, Got::Data(_) | Got::Trailers);
                    }
                    if has_read {
                        for (reader, place) in readers.iter().zip(&mut model.readers) {
                            prop_assert!(!place.is_waiting || reader.was_woken(), "not told");
                            place.is_waiting = false;
                        }
                    }
                    model.forget();
                    let frames = model.whole.len() - 1;
                    is_complete |= model.is_ended && !model.has_failed();
                    is_complete |= is_exact && model.given_frames == frames && !model.has_failed()
                        && steps.last().is_none_or(|step| matches!(step, Step::Data(_) | Step::Trailers));
                }
            }
            prop_assert_eq!(held.bytes(), 0, "keeps frames, which may be parts of something larger");
            prop_assert!(model.kept() <= limit);
            for (reader, place) in readers.iter().zip(&model.readers) {
                let is_replayable = place.next >= model.first && !model.has_failed();
                prop_assert_eq!(reader.body.is_replayable(), is_replayable);
                if place.is_over {
                    continue;
                }
                let is_end = is_complete && place.next == model.content.len();
                prop_assert_eq!(reader.body.is_end_stream(), is_end);
                if !is_replayable {
                    continue;
                }
                let left = model.data_after(place.next) as u64;
                // What is sent with a length is always, and what is not never.
                let exact = (length.is_some() || is_end).then_some(left);
                prop_assert_eq!(reader.exact(), exact);
            }
        }
        drop(readers);
        prop_assert_eq!(held.bytes(), 0);
        prop_assert!(is_dropped.load(Ordering::Relaxed));
    }
}

fn reader(steps: &[Step], limit: usize) -> Reader {
    Reader::new(ReplayBody::with_limit(Source::new(steps, true), limit))
}

#[test]
fn a_copy_reads_on_where_the_first_one_was_dropped() {
    let steps = [
        Step::Data(10),
        Step::Data(20),
        Step::Pending,
        Step::Trailers,
    ];
    let mut first = reader(&steps, 100);
    let mut copy = first.copy().unwrap();
    assert_eq!(
        first.read(),
        [&whole(&steps)[..2], &[Got::Pending]].concat()
    );
    drop(first);
    assert_eq!(copy.exact(), Some(30));
    assert_eq!(copy.read(), replayed(&steps));
}

#[test]
fn a_copy_gets_many_small_frames_as_few_large_ones() {
    let steps = vec![Step::Data(1); 10_000];
    let mut first = reader(&steps, 10_000);
    let mut copy = first.copy().unwrap();
    assert_eq!(first.read(), whole(&steps));
    let got = copy.read();
    assert!(got.len() < 20, "{} frames", got.len());
    let data = got.into_iter().flat_map(|got| match got {
        Got::Data(data) => data,
        _ => Vec::new(),
    });
    assert!(data.eq((0..10_000).map(|number| content(number, 1)[0])));
}

#[test]
fn what_is_kept_holds_no_frame_of_the_body() {
    let steps = [Step::Data(10), Step::Data(70_000), Step::Data(30)];
    let source = Source::new(&steps, false);
    let held = source.held.clone();
    let mut first = Reader::new(ReplayBody::with_limit(source, 100_000));
    let mut copy = first.copy().unwrap();
    for _ in 0..3 {
        first.poll();
        assert_eq!(held.bytes(), 0, "a frame may be part of a larger buffer");
    }
    drop(first);
    copy.poll();
    assert!(copy.copy().is_none(), "nothing is kept for the last copy");
}

#[test]
fn a_body_that_is_too_long_is_still_read_to_its_end() {
    let steps = [Step::Data(60), Step::Data(60), Step::Data(60)];
    let mut first = Reader::new(ReplayBody::with_limit(Source::new(&steps, false), 100));
    let mut copy = first.copy().unwrap();
    first.poll();
    assert!(copy.body.is_replayable());
    first.poll();
    assert!(!copy.body.is_replayable());
    assert_eq!(first.read(), whole(&steps)[2..]);
    assert_eq!(copy.read(), [Got::Lost]);
    assert_eq!(copy.poll(), Got::End, "once");
}

#[test]
fn the_limit_is_the_same_for_tiny_frames() {
    let is_kept = |count| {
        let mut first = Reader::new(ReplayBody::with_limit(
            Source::new(&vec![Step::Data(1); count], false),
            2_000,
        ));
        let copy = first.copy().unwrap();
        assert_eq!(first.read().len(), count + 1);
        copy.body.is_replayable()
    };
    assert!(is_kept(2_000));
    assert!(!is_kept(2_001));
}

#[test]
fn a_body_that_goes_on_after_its_trailers_is_not_kept() {
    let steps = [Step::Data(10), Step::Trailers, Step::Data(10)];
    let mut first = reader(&steps, 10_000);
    let mut copy = first.copy().unwrap();
    assert_eq!(first.read(), whole(&steps));
    assert!(!copy.body.is_replayable());
    assert_eq!(copy.read(), [Got::Lost]);
}

#[test]
fn a_body_that_is_known_to_be_too_long_is_not_kept_at_all() {
    let steps = [Step::Data(60), Step::Data(60), Step::Trailers];
    let source = Source::new(&steps, true);
    let held = source.held.clone();
    let mut first = Reader::new(ReplayBody::with_limit(source, 100));
    let (mut lost, mut copy) = (first.copy().unwrap(), first.copy().unwrap());
    assert_eq!(first.poll(), Got::Data(content(0, 60)));
    assert_eq!((held.bytes(), first.exact()), (0, Some(60)));
    assert!(!lost.body.is_replayable() && first.copy().is_none());
    assert_eq!(lost.poll(), Got::Lost);
    assert_eq!(copy.poll(), Got::Lost);
    assert_eq!(first.read(), whole(&steps)[1..]);
}

#[test]
fn a_copy_of_what_was_sent_without_a_length_has_none_either() {
    // The source knows at its end how long it was.
    let steps = [Step::Data(10), Step::Yield, Step::Data(20), Step::Trailers];
    let mut source = Source::new(&steps, true);
    source.knows_length = false;
    let mut first = Reader::new(ReplayBody::with_limit(source, 1_000));
    let mut copy = first.copy().unwrap();
    assert_eq!(first.poll(), Got::Data(content(0, 10)));
    assert_eq!(first.poll(), Got::Pending);
    assert_eq!(first.read(), whole(&steps)[1..]);
    assert_eq!(first.exact(), Some(0));
    assert_eq!((copy.exact(), copy.body.size_hint().lower()), (None, 30));
    assert_eq!(copy.read(), replayed(&steps));
}

#[test]
fn of_two_readers_beyond_the_limit_those_go_on_that_are_close_to_the_front() {
    let steps = vec![Step::Data(30); 20];
    let source = Source::new(&steps, false);
    let mut first = Reader::new(ReplayBody::with_limit(source, 100));
    let (mut close, mut far) = (first.copy().unwrap(), first.copy().unwrap());
    far.poll();
    for _ in 0..10 {
        first.poll();
        close.poll();
    }
    assert_eq!(far.read(), [Got::Lost]);
    assert_eq!(first.read(), whole(&steps)[10..]);
    assert_eq!(close.poll(), Got::Lost, "200 bytes behind");
}

#[test]
fn a_further_attempt_ends_what_it_was_copied_from_and_nobody_further_out() {
    let steps = [Step::Data(10), Step::Pending, Step::Pending, Step::Data(10)];
    let mut first = reader(&steps, 100);
    // An outer hedge, a retry, and a hedge in its attempt.
    let mut further_out = first.copy().unwrap();
    let mut next = first.copy().unwrap();
    let mut inside = first.copy().unwrap();
    first.read();
    further_out.read();
    assert_eq!(inside.poll(), Got::Data(content(0, 10)));
    next.body.abandon();
    assert!(first.was_woken() && !further_out.was_woken());
    assert!(!first.body.is_replayable() && !inside.body.is_replayable());
    let error = |reader: &mut Reader| {
        let frame = Pin::new(&mut reader.body).poll_frame(&mut Context::from_waker(Waker::noop()));
        let Poll::Ready(Some(Err(error))) = frame else {
            panic!("it goes on");
        };
        error.service_error().unwrap().to_string()
    };
    assert_eq!(error(&mut first), "the request is sent again");
    assert_eq!(error(&mut inside), "the request is sent again");
    assert_eq!(first.poll(), Got::End);
    assert!(next.body.is_replayable() && further_out.body.is_replayable());
    assert_eq!(next.poll(), Got::Data(content(0, 10)));
    assert_eq!(next.poll(), Got::Data(content(1, 10)));
    assert_eq!(further_out.poll(), Got::Data(content(1, 10)));
    // The first reader is nobody's copy.
    first.body.abandon();
    assert!(next.body.is_replayable() && further_out.body.is_replayable());
}

#[test]
fn an_error_of_the_body_reaches_every_copy() {
    let steps = [Step::Data(10), Step::Error];
    let mut first = reader(&steps, 100);
    let mut copy = first.copy().unwrap();
    assert_eq!(first.read(), whole(&steps));
    assert!(!copy.body.is_replayable());
    assert!(first.copy().is_none() && copy.copy().is_none());
    assert_eq!(copy.read(), whole(&steps));
    assert!(copy.body.is_end_stream());
}

#[test]
fn the_error_of_the_body_is_in_the_chain_of_sources() {
    let mut body = ReplayBody::new(Source::new(&[Step::Error], true));
    let mut cx = Context::from_waker(Waker::noop());
    let Poll::Ready(Some(Err(error))) = Pin::new(&mut body).poll_frame(&mut cx) else {
        panic!("no error");
    };
    let source = error.downcast_ref::<io::Error>();
    assert_eq!(source.expect("found by its type").to_string(), "cut");
}

#[test]
fn a_panic_of_the_body_is_the_end_for_those_who_come_later() {
    let mut first = reader(&[Step::Data(10), Step::Panic], 100);
    let mut copy = first.copy().unwrap();
    first.poll();
    assert!(catch_unwind(AssertUnwindSafe(|| first.poll())).is_err());
    assert!(!copy.body.is_replayable());
    drop(first);
    assert_eq!(copy.poll(), Got::Data(content(0, 10)));
    assert_eq!(copy.poll(), Got::Panicked);
}

#[test]
fn a_body_that_goes_on_wakes_all_who_wait_for_it() {
    let steps = [Step::Pending, Step::Pending, Step::Data(10)];
    let source = Source::new(&steps, true);
    let waker = Arc::clone(&source.waker);
    let mut first = Reader::new(ReplayBody::with_limit(source, 100));
    let mut copy = first.copy().unwrap();
    assert_eq!(first.poll(), Got::Pending);
    assert_eq!(copy.poll(), Got::Pending);
    waker.lock().unwrap().take().unwrap().wake();
    // The first one's connection may have stalled, so that it does not read, or the copy's.
    assert!(first.was_woken() && copy.was_woken());
    assert_eq!(copy.poll(), Got::Data(content(0, 10)));
    assert!(first.was_woken(), "it still waits");
}

/// A body that lets another reader of it poll while it is polled, as happens with two threads.
struct Inviting {
    other: Arc<Mutex<Option<ReplayBody<Inviting>>>>,
    woken: Arc<Woken>,
    polls: u32,
}

impl Body for Inviting {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.polls += 1;
        if let Some(other) = &mut *self.other.lock().unwrap() {
            let waker = Waker::from(Arc::clone(&self.woken));
            let polled = Pin::new(other).poll_frame(&mut Context::from_waker(&waker));
            assert!(polled.is_pending());
        }
        match self.polls {
            1 => Poll::Pending,
            2 => Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"12 bolts"))))),
            _ => Poll::Ready(None),
        }
    }
}

#[test]
fn one_who_comes_while_another_polls_the_body_is_woken_afterwards() {
    let other = Arc::<Mutex<Option<ReplayBody<Inviting>>>>::default();
    let woken = Arc::<Woken>::default();
    let mut first = ReplayBody::new(Inviting {
        other: Arc::clone(&other),
        woken: Arc::clone(&woken),
        polls: 0,
    });
    *other.lock().unwrap() = first.try_copy();
    let mut cx = Context::from_waker(Waker::noop());
    // The body does not know of the other one's waker.
    assert!(Pin::new(&mut first).poll_frame(&mut cx).is_pending());
    assert!(woken.0.swap(false, Ordering::Relaxed));
    assert!(Pin::new(&mut first).poll_frame(&mut cx).is_ready());
    assert!(woken.0.swap(false, Ordering::Relaxed));
    let mut other = other.lock().unwrap().take().unwrap();
    let polled = Pin::new(&mut other).poll_frame(&mut cx);
    assert!(matches!(polled, Poll::Ready(Some(Ok(_)))));
}

#[test]
fn threads_that_read_one_body_all_get_it() {
    for round in 0..50 {
        let steps = [
            Step::Data(10 + round),
            Step::Yield,
            Step::Data(20),
            Step::Yield,
        ];
        let steps = steps.repeat(10);
        let first = reader(&steps, 10_000);
        let copies = (0..3).map(|_| first.copy().unwrap()).collect::<Vec<_>>();
        let expected = replayed(&steps);
        std::thread::scope(|scope| {
            for mut reader in copies.into_iter().chain([first]) {
                let expected = &expected;
                scope.spawn(move || {
                    let mut got = Vec::new();
                    while got.last() != Some(&Got::End) {
                        got.extend(reader.read());
                        got.retain(|got| *got != Got::Pending);
                        while got.last() != Some(&Got::End) && !reader.was_woken() {
                            std::thread::yield_now();
                        }
                    }
                    assert_eq!(joined(got), *expected);
                });
            }
        });
    }
}

#[test]
fn an_empty_body_is_empty_and_can_always_be_copied() {
    let empty = Reader::new(ReplayBody::with_limit(Source::new(&[], true), 0));
    let mut copy = empty.copy().unwrap();
    assert!(copy.body.is_end_stream());
    assert_eq!((copy.exact(), copy.poll()), (Some(0), Got::End));
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_is_too_far_behind_is_neither_the_services_fault_nor_the_end_of_a_race() {
    const SECOND: Duration = Duration::from_secs(1);
    let breaker = CircuitBreakerLayer::config("lost").consecutive_failures(1);
    let breaker = breaker.classify(Classifier::new()).build().unwrap();
    let hedge = HedgeLayer::config("lost").delay(SECOND).burst(1);
    let hedge = hedge.classify(Classifier::new()).build().unwrap();
    let sent = Arc::new(AtomicUsize::new(0));
    let service = service_fn(move |_: Request<()>| {
        let number = sent.fetch_add(1, Ordering::Relaxed);
        async move {
            sleep(2 * SECOND).await;
            if number == 0 {
                return Err(BoxError::from(ReplayBodyError::Lost));
            }
            Ok(Response::new(()))
        }
    });
    let client = hedge.layer(breaker.layer(service));
    let began = Instant::now();
    let answer = client.oneshot(Request::new(())).await;
    assert!(answer.is_ok(), "{answer:?}");
    assert_eq!(began.elapsed(), 3 * SECOND);
    assert_eq!(breaker.handle().state(), State::Closed);
}

#[test]
fn a_source_that_never_changes_its_size_hint_does_not_make_copies_longer() {
    /// Says what it said at first.
    struct Fixed(Source, SizeHint);

    impl Body for Fixed {
        type Data = Bytes;
        type Error = BoxError;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
            Pin::new(&mut self.0).poll_frame(cx)
        }

        fn size_hint(&self) -> SizeHint {
            self.1
        }
    }

    let source = Source::new(&[Step::Data(10), Step::Data(20)], true);
    let hint = source.size_hint();
    let mut first = ReplayBody::new(Fixed(source, hint));
    let copy = first.try_copy().unwrap();
    let exact = |body: &ReplayBody<Fixed>| body.size_hint().exact();
    let mut left = vec![(exact(&first), exact(&copy))];
    let mut cx = Context::from_waker(Waker::noop());
    while let Poll::Ready(Some(_)) = Pin::new(&mut first).poll_frame(&mut cx) {
        left.push((exact(&first), exact(&copy)));
    }
    let expected = [30, 20, 0].map(|rest| (Some(rest), Some(30)));
    assert_eq!(left, expected);
}

#[test]
fn a_copy_of_a_body_that_ends_too_early_does_not_look_like_the_whole() {
    for steps in [&[Step::Data(10), Step::Data(20)][..], &[Step::Yield]] {
        let mut source = Source::new(steps, true);
        source.is_exact = false;
        source.claims = Some(100);
        let mut first = Reader::new(ReplayBody::new(source));
        let mut copy = first.copy().unwrap();
        while first.poll() != Got::End {}
        assert_eq!(copy.exact(), Some(100), "{steps:?}");
        assert!(!copy.body.is_end_stream());
        assert_eq!(copy.read(), replayed(steps));
    }
}

/// Asks a copy what is left of it, on another thread, when this is dropped, as a waker or a frame.
#[derive(Clone, Default)]
struct Asks {
    copy: Arc<Mutex<Option<ReplayBody<Asking>>>>,
    answers: Arc<Mutex<Vec<bool>>>,
}

struct AskingFrame(Asks);

impl AsRef<[u8]> for AskingFrame {
    fn as_ref(&self) -> &[u8] {
        &[0; 100]
    }
}

impl Wake for AskingFrame {
    fn wake(self: Arc<Self>) {}
}

impl Drop for AskingFrame {
    fn drop(&mut self) {
        let (answer, answered) = mpsc::channel();
        let copy = Arc::clone(&self.0.copy);
        thread::spawn(move || {
            let copy = copy.lock().unwrap();
            answer
                .send(copy.as_ref().map(Body::size_hint))
                .unwrap_or_default();
        });
        // So long only if it hangs.
        let answer = answered.recv_timeout(Duration::from_secs(5));
        self.0.answers.lock().unwrap().push(answer.is_ok());
    }
}

/// A body of three such frames, which then waits.
struct Asking(Asks, usize);

impl Body for Asking {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.1 == 3 {
            return Poll::Pending;
        }
        self.1 += 1;
        let data = Bytes::from_owner(AskingFrame(self.0.clone()));
        Poll::Ready(Some(Ok(Frame::data(data))))
    }
}

#[test]
fn what_is_dropped_may_use_the_body() {
    let asks = Asks::default();
    let mut first = ReplayBody::with_limit(Asking(asks.clone(), 0), 1_000);
    *asks.copy.lock().unwrap() = first.try_copy();
    let mut poll = |waker: &Waker| {
        let polled = Pin::new(&mut first).poll_frame(&mut Context::from_waker(waker));
        polled.is_ready()
    };
    let count = || asks.answers.lock().unwrap().len();
    let waker = || Waker::from(Arc::new(AskingFrame(asks.clone())));
    while poll(Waker::noop()) {}
    assert_eq!(count(), 3, "the frames");
    poll(&waker());
    poll(&waker());
    assert_eq!(count(), 4, "the first waker");
    drop(first);
    assert_eq!(count(), 5, "the second one");
    let answers = asks.answers.lock().unwrap().clone();
    assert!(answers.iter().all(|answered| *answered));
    // Not a circle of references any more.
    drop(asks.copy.lock().unwrap().take());
}
