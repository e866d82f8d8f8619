//! What the layers are put around.

use std::fmt;
use std::future::{Ready, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use tower::Service;

/// What goes wrong in an inner service. Can be cloned, because some layers ask for it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Failed;

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("failed")
    }
}

impl std::error::Error for Failed {}

pub(crate) type Answer = Result<u64, Failed>;

/// Answers at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AtOnce;

/// Answers when it is polled a second time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PendingOnce;

/// Does what the request says, and counts how often it began. For the checks and for what has to go wrong
/// before a rejection can be measured.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scripted {
    attempts: Arc<AtomicU64>,
}

/// The request for which [`Scripted`] fails.
pub(crate) const FAIL: u64 = u64::MAX;
/// … never answers.
pub(crate) const HANG: u64 = u64::MAX - 1;
/// … fails at the first attempt only.
pub(crate) const FAIL_FIRST: u64 = u64::MAX - 2;
/// … does not answer the first attempt.
pub(crate) const HANG_FIRST: u64 = u64::MAX - 3;

impl Scripted {
    /// How many attempts there were since the last time.
    pub(crate) fn take_attempts(&self) -> u64 {
        self.attempts.swap(0, Ordering::Relaxed)
    }
}

/// A call of [`PendingOnce`].
#[derive(Debug)]
pub(crate) struct Second {
    is_second: bool,
    request: u64,
}

impl Future for Second {
    type Output = Answer;

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Answer> {
        if self.is_second {
            return Poll::Ready(Ok(self.request + 1));
        }
        self.is_second = true;
        Poll::Pending
    }
}

/// A call of [`Scripted`], which begins when it is polled.
#[derive(Debug)]
pub(crate) struct Script {
    request: u64,
    attempts: Option<Arc<AtomicU64>>,
}

impl Future for Script {
    type Output = Answer;

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Answer> {
        let Some(attempts) = self.attempts.take() else {
            return Poll::Pending;
        };
        let is_first = attempts.fetch_add(1, Ordering::Relaxed) == 0;
        match self.request {
            HANG => Poll::Pending,
            HANG_FIRST if is_first => Poll::Pending,
            FAIL => Poll::Ready(Err(Failed)),
            FAIL_FIRST if is_first => Poll::Ready(Err(Failed)),
            FAIL_FIRST | HANG_FIRST => Poll::Ready(Ok(0)),
            request => Poll::Ready(Ok(request + 1)),
        }
    }
}

/// The same service for Tower and for `layered`, which is the native form of seatbelt.
macro_rules! service {
    ($service:ty, $future:ty, |$this:ident, $request:ident| $call:expr) => {
        impl Service<u64> for $service {
            type Response = u64;
            type Error = Failed;
            type Future = $future;

            fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failed>> {
                Poll::Ready(Ok(()))
            }

            fn call(&mut self, $request: u64) -> $future {
                let $this = self;
                $call
            }
        }

        impl layered::Service<u64> for $service {
            type Out = Answer;

            fn execute(&self, $request: u64) -> impl Future<Output = Answer> + Send {
                let $this = self;
                $call
            }
        }
    };
}

service!(AtOnce, Ready<Answer>, |_this, request| ready(Ok(
    request + 1
)));
service!(PendingOnce, Second, |_this, request| Second {
    is_second: false,
    request,
});
service!(Scripted, Script, |this, request| Script {
    request,
    attempts: Some(Arc::clone(&this.attempts)),
});

/// Answers at once through a future of 1,000 bytes, which shows how often a layer holds it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bulky;

pub(crate) const BULK: usize = 1_000;

/// A call of [`Bulky`].
#[derive(Debug)]
pub(crate) struct Bulk {
    request: u64,
    ballast: [u8; BULK - size_of::<u64>()],
}

impl Future for Bulk {
    type Output = Answer;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Answer> {
        Poll::Ready(Ok(self.request + u64::from(self.ballast[0])))
    }
}

service!(Bulky, Bulk, |_this, request| Bulk {
    request,
    ballast: [1; BULK - size_of::<u64>()],
});
