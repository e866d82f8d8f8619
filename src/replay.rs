//! Decision about sending a request again, and its copy.

use std::error::Error as StdError;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;

use crate::nanos::saturating_add;
use crate::sync::lock;

/// Decides whether a request may be sent again, and copies it.
///
/// This is a value given to the layer and not a trait on the request, because requests that are not
/// `Clone` (`reqwest::Request`, streaming bodies) belong to other crates. [`ByClone`] is the default;
/// a closure `|request: &Req| -> Option<Req>` works; [`Never`] never copies.
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
    /// Called before the first attempt, and only while a further attempt is possible.
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
    /// Called when a further attempt is sent after an attempt that may have acted. From the trace, the classifier finds out
    /// whether an answer is a [`Conflict`] with the earlier attempt.
    fn effect(&self, _request: &Req) -> Effect {
        Effect::None
    }

    /// Returns whether the request asks for a [stream](crate::stack#streams). By default none does.
    ///
    /// Asked by a standard stack, besides what it was told with [`streaming`](crate::stack::Standard::streaming).
    fn is_stream(&self, _request: &Req) -> bool {
        false
    }

    /// Writes the number of the attempt (1 for the first) into the request. By default it does nothing.
    fn set_attempt(&self, _request: &mut Req, _attempt: u32) {}

    /// Returns the progress of the request's body, which the client takes while the attempt runs. By default there is none.
    ///
    /// Asked before each attempt of a standard stack with a timeout. With it, the timeout does not end an upload that goes on:
    /// see [`Upload`].
    fn upload(&self, _request: &mut Req) -> Option<Upload> {
        None
    }

    /// Returns whether a copy that was made earlier can still be sent. By default it can.
    ///
    /// Called before the copy is sent. The copy may have been lost since: a streamed body is kept only up to a limit,
    /// and the first attempt may have read more than that.
    fn is_replayable(&self, _copy: &Req) -> bool {
        true
    }

    /// Ends the rest of the attempt that `copy` was made of. By default it does nothing.
    ///
    /// A retry calls it when that attempt has failed and the copy is about to be sent. A client may go on to send a
    /// streamed body after it has given an answer, and consume data that the copy needs.
    fn abandon(&self, _copy: &Req) {}
}

/// The progress of a request body that a client takes while it sends it.
///
/// The timeout of an attempt is the time for the answer. With the progress of the body at hand, that time begins when the
/// client has taken all of the body. Until then, the timeout bounds each stretch in which the body has more and the client does
/// not take it: a service that stops reading is given up. While the client waits for the body, no time runs, because the
/// sender of the body is slow, and not the service.
///
/// `ReplayBody` of the feature `http` notes its progress. A body of your own that does so keeps a clone, and also notes that it
/// is dropped.
#[derive(Clone, Debug, Default)]
pub struct Upload(Arc<Mutex<Progress>>);

#[derive(Debug, Default)]
struct Progress {
    /// Time at which the client last took a part of the body, or learned of its end.
    taken: Option<Instant>,
    /// The client waits for the body.
    is_starved: bool,
    /// Time at which a client that waited for the body dropped it.
    dropped: Option<Instant>,
}

/// The least time that an attempt is given when its time goes on.
const MIN_EXTENSION: Duration = Duration::from_millis(1);

impl Upload {
    /// The progress of a body that the client has not polled yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes that the client has polled the body with this result.
    pub fn note<T>(&self, polled: &Poll<T>) {
        let mut progress = lock(&self.0);
        progress.is_starved = polled.is_pending();
        if polled.is_ready() {
            progress.taken = Some(Instant::now());
        }
    }

    /// Notes that the client has dropped the body. If it waited for the body, it waits for the service from now on.
    pub fn note_drop(&self) {
        let mut progress = lock(&self.0);
        if std::mem::take(&mut progress.is_starved) {
            progress.dropped = Some(Instant::now());
        }
    }

    /// Returns when the client last took a part of the body, or learned of its end.
    #[cold]
    pub(crate) fn taken(&self) -> Option<Instant> {
        lock(&self.0).taken
    }

    /// Returns since when the client has been waiting for the service alone, if it has polled the body.
    #[cold]
    pub(crate) fn waits_since(&self, now: impl FnOnce() -> Instant) -> Option<Instant> {
        let progress = lock(&self.0);
        if progress.is_starved {
            Some(now())
        } else {
            progress.dropped.or(progress.taken)
        }
    }

    /// Returns when this time for the answer is over, if that is after `now`.
    #[cold]
    pub(crate) fn end(&self, time: Duration, now: Instant) -> Option<Instant> {
        let end = saturating_add(self.waits_since(|| now)?, time);
        (end > now).then(|| end.max(saturating_add(now, MIN_EXTENSION)))
    }
}

/// Trace that an attempt may have left at the service for a later attempt with the same request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Effect {
    /// A later attempt finds nothing that changes its answer.
    #[default]
    None,
    /// The service knows the request by a key. While the first attempt is in progress, it may answer a later one with that fact.
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
    /// The answer may be due to the earlier attempt, and no further attempt can find out.
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

/// Reason why a request body that several attempts read could not be read on.
///
/// It is in the chain of sources of the client's error. The `ReplayBody` of the feature `http` fails with it;
/// a body of your own can do the same. [`Lost`](Self::Lost) and [`Superseded`](Self::Superseded) concern one copy alone, so that
/// they do not end a hedged call.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ReplayBodyError {
    /// The body itself failed. Every copy reports it.
    Source(Arc<dyn StdError + Send + Sync>),
    /// More of the body was read than is kept, and this copy needs a part that is gone.
    Lost,
    /// The attempt that reads it is over, and another attempt has replaced it.
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
            // The error itself: behind the `Arc` nobody would find it by its type.
            Self::Source(error) => Some(&**error),
            Self::Lost | Self::Superseded | Self::Panicked => None,
        }
    }
}
