//! The body of a request that several attempts read: one of them polls it, and hands over what it has read.

#[allow(dead_code)]
#[path = "../../src/http/replay_body/source.rs"]
mod source;
#[allow(dead_code)]
#[path = "../../src/http/replay_body/state.rs"]
mod state;

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{self, Poll, Wake, Waker};

use bytes::Bytes;
use http_body::{Body, Frame};
use loom::sync::{Arc, Notify};
use loom::thread;

use self::source::Reader;
use crate::http::TryCopyBody;
use crate::sync::{AtomicU32, Mutex, Ordering, lock};
use crate::{BoxError, ReplayBodyError, on_threads};

const LIMIT: usize = 1_024;

/// The sender's side of a body.
#[derive(Default)]
struct Sender {
    sent: VecDeque<Bytes>,
    has_ended: bool,
    /// The last one that polled it, as `Body` requires no more.
    waker: Option<Waker>,
}

struct Received(Arc<Mutex<Sender>>);

impl Body for Received {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let mut sender = lock(&self.0);
        if let Some(data) = sender.sent.pop_front() {
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        if sender.has_ended {
            return Poll::Ready(None);
        }
        let former = sender.waker.replace(cx.waker().clone());
        drop(sender);
        drop(former);
        Poll::Pending
    }
}

fn send(sender: &Mutex<Sender>, data: Option<&'static [u8]>) {
    let mut sender = lock(sender);
    match data {
        Some(data) => sender.sent.push_back(Bytes::from_static(data)),
        None => sender.has_ended = true,
    }
    let waker = sender.waker.take();
    drop(sender);
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// A body of which nothing was sent yet, its sender, and two readers.
fn two_readers() -> (Arc<Mutex<Sender>>, [Reader<Received>; 2]) {
    let sender = Arc::new(Mutex::new(Sender::default()));
    let first = Reader::new(Box::pin(Received(Arc::clone(&sender))), LIMIT);
    let second = first.try_copy().expect("nothing was read");
    (sender, [first, second])
}

type Read = Poll<Option<Result<Frame<Bytes>, ReplayBodyError>>>;

fn poll(reader: &mut Reader<Received>, waker: &Waker) -> Read {
    reader.poll(&mut task::Context::from_waker(waker))
}

/// Counts how often it wakes.
struct Count(AtomicU32);

impl Wake for Count {
    fn wake(self: std::sync::Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// Two readers poll once while data is sent. For each of them: whether it waits, and whether it was woken.
fn polled_while(sends: impl FnOnce(&Mutex<Sender>) + Send + 'static) -> [(bool, bool); 2] {
    let (sender, readers) = two_readers();
    let sends = thread::spawn(move || sends(&sender));
    let readers = readers.map(|reader| Mutex::new(Some(reader)));
    let polled = on_threads(&Arc::new(readers), [0, 1], |readers, place| {
        let mut reader = lock(&readers[place]).take().expect("is read once");
        let count = std::sync::Arc::new(Count(AtomicU32::new(0)));
        let polled = poll(&mut reader, &count.clone().into());
        // Not dropped here: one that is gone need not be woken.
        (reader, polled.is_pending(), count)
    });
    sends.join().expect("sends");
    let result = |(_, waits, count): &(_, _, std::sync::Arc<Count>)| {
        let is_woken = count.0.load(Ordering::SeqCst) > 0;
        (*waits, is_woken)
    };
    polled.each_ref().map(result)
}

pub(crate) fn who_waits_for_data_is_woken_when_it_comes() {
    for (waits, is_woken) in polled_while(|sender| send(sender, Some(b"12 bolts"))) {
        assert!(!waits || is_woken, "it waits, and is not woken");
    }
}

pub(crate) fn who_waits_is_woken_by_another_that_reads() {
    // As a timer in the body that is found to have fired: it wakes nobody any more.
    let sends = |sender: &Mutex<Sender>| lock(sender).sent.push_back(Bytes::from_static(b"12"));
    let readers = polled_while(sends);
    let has_data = readers.iter().any(|(waits, _)| !waits);
    for (waits, is_woken) in readers {
        assert!(
            !has_data || !waits || is_woken,
            "it waits, and is not woken"
        );
    }
}

/// Wakes a thread of the model.
struct Unpark(Notify);

impl Wake for Unpark {
    fn wake(self: std::sync::Arc<Self>) {
        self.0.notify();
    }
}

/// All that a reader gets, or its error. It polls only when it is woken, so that the model ends in a deadlock if it is not.
fn read_to_end(reader: &mut Reader<Received>) -> Result<Vec<u8>, ReplayBodyError> {
    let unpark = std::sync::Arc::new(Unpark(Notify::new()));
    let waker = Waker::from(std::sync::Arc::clone(&unpark));
    let mut whole = Vec::new();
    loop {
        match poll(reader, &waker) {
            Poll::Ready(Some(Ok(frame))) => whole.extend(frame.into_data().expect("is data")),
            Poll::Ready(Some(Err(error))) => return Err(error),
            Poll::Ready(None) => return Ok(whole),
            Poll::Pending => unpark.0.wait(),
        }
    }
}

pub(crate) fn two_readers_of_one_body_get_the_whole_of_it() {
    let (sender, [mut first, mut second]) = two_readers();
    let reads = thread::spawn(move || read_to_end(&mut first));
    send(&sender, Some(b"12"));
    send(&sender, None);
    assert_eq!(read_to_end(&mut second).expect("is whole"), b"12");
    assert_eq!(reads.join().expect("reads").expect("is whole"), b"12");
}

pub(crate) fn an_attempt_that_is_over_is_told_so_and_leaves_the_data_to_the_next() {
    let (sender, [mut first, mut second]) = two_readers();
    let reads = thread::spawn(move || read_to_end(&mut first));
    let sends = thread::spawn({
        let sender = Arc::clone(&sender);
        move || send(&sender, Some(b"12"))
    });
    second.abandon();
    // Nothing more comes before the former attempt is over.
    let former = reads.join().expect("reads");
    assert!(
        matches!(former, Err(ReplayBodyError::Superseded)),
        "{former:?}"
    );
    sends.join().expect("sends");
    send(&sender, None);
    assert_eq!(read_to_end(&mut second).expect("is whole"), b"12");
}
