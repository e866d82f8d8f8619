//! The policy that decides whether a request may be sent again, and copies it.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;

use crate::CallOptions;
use crate::nanos::{nanos_between, saturating_add};
use crate::sync::{AtomicU64, Ordering};

/// Decides whether a request may be sent again, and copies it.
///
/// The policy is a value of the layer and not a trait of the request, because requests that are not `Clone`
/// (`reqwest::Request`, streaming bodies) belong to other crates. [`ByClone`] is the default. A closure `|request:
/// &Req| -> Option<Req>` is a policy, too, and [`Never`] never copies.
///
/// # Examples
///
/// ```
/// struct Order { id: u64, body: Option<String> }
///
/// // A request is sent again only while its body can be copied.
/// let retry = buttress::RetryLayer::config("orders")
///     .replay(|order: &Order| {
///         let body = order.body.clone()?;
///         Some(Order { id: order.id, body: Some(body) })
///     })
///     .build()?;
/// # Ok::<(), buttress::ConfigError>(())
/// ```
#[diagnostic::on_unimplemented(
    message = "requests of type `{Req}` cannot be copied by `{Self}`",
    label = "a further attempt needs a copy of the request",
    note = "derive `Clone` for the request, or give the layer's configuration `.replay(|request: &{Req}| ...)`, a closure that returns `Some(copy)` or `None`, or `.replay(Never)` to never send a request twice",
    note = "with feature `http`, `HttpReplay::new()`, which `http::standard` and `http::client` have, copies an HTTP request if its body is a text, bytes, `Full`, `Empty`, or a `ReplayBody`; a `ReplayBodyLayer` around the layer makes a `ReplayBody` of a body that is streamed"
)]
pub trait Replay<Req> {
    /// Copies the request. `None` means that this request cannot be sent again.
    ///
    /// It is called before the first attempt, and only while a further attempt is possible.
    fn copy(&self, request: &Req) -> Option<Req>;

    /// Returns whether the service may act on the request twice. By default it may.
    ///
    /// Any other request is sent again only with the [proof](crate::Cause::was_sent) that it was not sent.
    fn is_idempotent(&self, _request: &Req) -> bool {
        true
    }

    /// Returns whether a copy may be sent while another attempt is on its way. By default an idempotent request may.
    ///
    /// Two attempts at once may collide at the service, although one after the other would be harmless.
    fn is_hedgeable(&self, request: &Req) -> bool {
        self.is_idempotent(request)
    }

    /// Returns the trace that an attempt with this request may leave. By default there is none.
    ///
    /// It is called when a further attempt is sent after an attempt that may have acted. From the trace, the classifier
    /// decides whether an answer is a [`Conflict`] with the earlier attempt.
    fn effect(&self, _request: &Req) -> Effect {
        Effect::None
    }

    /// Returns the [options](CallOptions) of the call that are in the request. By default there are none.
    ///
    /// A standard stack, a retry and a hedge call it once for each call.
    fn call_options(&self, _request: &Req) -> Option<CallOptions> {
        None
    }

    /// Writes the number of the attempt (1 for the first) into the request. The default does nothing.
    fn set_attempt(&self, _request: &mut Req, _attempt: u32) {}

    /// Returns the progress of the request's body, which the client takes while the attempt runs. By default there is
    /// none.
    ///
    /// A standard stack with a timeout calls it before each attempt. With a progress, the timeout does not end an
    /// upload that goes on: see [`Upload`].
    fn upload(&self, _request: &mut Req) -> Option<Upload> {
        None
    }

    /// Returns whether a copy that was made earlier can still be sent. By default it can.
    ///
    /// It is called before the copy is sent. The copy may have been lost in the meantime: a streamed body is kept only
    /// up to a limit, and the first attempt may have read more than the limit.
    fn is_replayable(&self, _copy: &Req) -> bool {
        true
    }

    /// Ends the attempt from whose request `copy` was made. The default does nothing.
    ///
    /// A retry calls it when this attempt has failed and the copy is about to be sent. A client may continue to send a
    /// streamed body after it has returned an answer, and so consume data that the copy needs.
    fn abandon(&self, _copy: &Req) {}
}

/// The progress of a request body that a client takes while it sends it.
///
/// The timeout of an attempt is the time for the answer. With the progress of the body, this time begins when the
/// client has taken the whole body. Before that, the timeout bounds each pause in which the body has more data and the
/// client does not take it, so that a call to a service that stops reading ends. The time does not run while the client
/// waits for the body, because the sender of the body is slow, and not the service.
///
/// `ReplayBody` of the feature `http` notes its progress. In a body of your own, keep a clone, and call
/// [`note`](Self::note) at each poll and [`note_drop`](Self::note_drop) in the drop.
#[derive(Clone, Debug)]
pub struct Upload(Arc<Progress>);

/// The connection's task writes, and the attempt reads. Times are nanoseconds from the origin, and 0 if there is none.
/// Each word has its meaning without the other.
#[derive(Debug)]
struct Progress {
    origin: Instant,
    /// Time at which the client last took a part of the body, or learned of its end.
    taken: AtomicU64,
    /// Time since when the client has been waiting for the service alone, or [`STARVED`].
    waits_since: AtomicU64,
}

/// The client waits for the body.
const STARVED: u64 = u64::MAX;

impl Progress {
    /// Returns the present time, which is never 0.
    fn now(&self) -> u64 {
        nanos_between(self.origin, Instant::now()).clamp(1, STARVED - 1)
    }

    /// Returns the instant of a time.
    fn instant(&self, time: u64) -> Option<Instant> {
        (time != 0).then(|| saturating_add(self.origin, Duration::from_nanos(time)))
    }
}

/// The least extension of the time of an attempt.
const MIN_EXTENSION: Duration = Duration::from_millis(1);

impl Upload {
    /// Makes the progress of a body that the client has not polled yet.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(Progress {
            origin: Instant::now(),
            taken: AtomicU64::new(0),
            waits_since: AtomicU64::new(0),
        }))
    }

    /// Notes that the client has polled the body with this result.
    pub fn note<T>(&self, polled: &Poll<T>) {
        let mut waits_since = STARVED;
        if polled.is_ready() {
            waits_since = self.0.now();
            self.0.taken.store(waits_since, Ordering::Relaxed);
        }
        self.0.waits_since.store(waits_since, Ordering::Relaxed);
    }

    /// Notes that the client has dropped the body. A client that waited for the body waits for the service from now on.
    pub fn note_drop(&self) {
        if self.0.waits_since.load(Ordering::Relaxed) == STARVED {
            let now = self.0.now();
            self.0.waits_since.store(now, Ordering::Relaxed);
        }
    }

    /// Returns the time at which the client last took a part of the body, or learned of its end.
    #[cold]
    pub(crate) fn taken(&self) -> Option<Instant> {
        self.0.instant(self.0.taken.load(Ordering::Relaxed))
    }

    /// Returns the time since which the client has been waiting for the service alone, if it has polled the body.
    #[cold]
    pub(crate) fn waits_since(&self, now: impl FnOnce() -> Instant) -> Option<Instant> {
        match self.0.waits_since.load(Ordering::Relaxed) {
            STARVED => Some(now()),
            since => self.0.instant(since),
        }
    }

    /// Returns the time at which the time for the answer is over, if it is after `now`.
    #[cold]
    pub(crate) fn end(&self, time: Duration, now: Instant) -> Option<Instant> {
        let end = saturating_add(self.waits_since(|| now)?, time);
        (end > now).then(|| end.max(saturating_add(now, MIN_EXTENSION)))
    }
}

impl Default for Upload {
    fn default() -> Self {
        Self::new()
    }
}

/// Trace that an attempt may have left at the service for a later attempt with the same request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Effect {
    /// No trace: the answer to a later attempt does not change.
    #[default]
    None,
    /// The service knows the request by a key. While the first attempt is in progress, the answer to a later attempt
    /// may say so.
    Key,
    /// The request removes something. A later attempt does not find it.
    Removal,
}

/// The relation of an answer to an earlier attempt of the same operation that may have acted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Conflict {
    /// The answer belongs to the request.
    None,
    /// The earlier attempt is in progress. A later attempt gets the answer.
    InProgress,
    /// The answer may be the effect of the earlier attempt, and no further attempt can find out.
    Unknown,
}

/// Copies requests with `Clone`. The default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ByClone;

#[diagnostic::do_not_recommend]
impl<Req: Clone> Replay<Req> for ByClone {
    fn copy(&self, request: &Req) -> Option<Req> {
        Some(request.clone())
    }
}

/// Never copies: every request is sent once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Never;

impl<Req> Replay<Req> for Never {
    fn copy(&self, _request: &Req) -> Option<Req> {
        None
    }
}

#[diagnostic::do_not_recommend]
impl<Req, F> Replay<Req> for F
where
    F: Fn(&Req) -> Option<Req>,
{
    fn copy(&self, request: &Req) -> Option<Req> {
        self(request)
    }
}

/// Error of a request body that several attempts read.
///
/// It is in the chain of sources of the client's error. The `ReplayBody` of the feature `http` fails with it; a body of
/// your own can do the same. [`Lost`](Self::Lost) and [`Superseded`](Self::Superseded) concern a single copy, so they
/// do not end a hedged call.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ReplayBodyError {
    /// The body itself failed. Every copy reports it.
    Source(Arc<dyn StdError + Send + Sync>),
    /// Another copy has read more of the body than the limit, and this copy needs a part that is no longer kept.
    Lost,
    /// The attempt of this copy is over, and another attempt has replaced it.
    Superseded,
    /// The body panicked when another copy read it.
    Panicked,
}

impl fmt::Display for ReplayBodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Source(_) => "the request body failed",
            Self::Lost => "the beginning of the request body is no longer kept",
            Self::Superseded => "the request is sent again",
            Self::Panicked => "the request body has panicked",
        })
    }
}

impl StdError for ReplayBodyError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            // Returns the error itself, because a search by its type would not find it behind the `Arc`.
            Self::Source(error) => Some(&**error),
            Self::Lost | Self::Superseded | Self::Panicked => None,
        }
    }
}
