//! Copies of bodies.

use std::borrow::Cow;

use bytes::Bytes;
use http_body_util::{Empty, Full};

use crate::Upload;

/// A body that may be copied.
///
/// It is implemented for whole bodies (texts, bytes, `http_body_util::Full` and `Empty`), and for
/// [`ReplayBody`](crate::http::ReplayBody), which wraps a streamed body. Implement it for a body of your own; return
/// `None` if the body is never copied.
#[diagnostic::on_unimplemented(
    message = "bodies of type `{Self}` do not say how they are copied",
    label = "a further attempt needs a copy of the request's body",
    note = "if `{Self}` is streamed, let your client send bodies of type `buttress::http::ReplayBody<{Self}>`: `http::client` makes them by itself, and a `ReplayBodyLayer` around a stack or a layer does",
    note = "if `{Self}` is your own, implement `TryCopyBody` for it; `.replay(Never)` sends everything once"
)]
pub trait TryCopyBody: Sized {
    /// Copies the body, or returns `None` if it cannot be sent again.
    fn try_copy(&self) -> Option<Self>;

    /// Returns whether a copy that was made earlier can still be sent. By default it can.
    fn is_replayable(&self) -> bool {
        true
    }

    /// Ends the attempt from whose request this copy was made. The default does nothing.
    fn abandon(&self) {}

    /// Returns the [progress](Upload) of the body, which the body reports from now on. By default there is none.
    fn upload(&mut self) -> Option<Upload> {
        None
    }
}

macro_rules! cloned {
    ($($body:ty)+) => {
        $(impl TryCopyBody for $body {
            fn try_copy(&self) -> Option<Self> {
                Some(self.clone())
            }
        })+
    };
}

cloned!(() String Vec<u8> Bytes &'static str &'static [u8] Cow<'static, str> Cow<'static, [u8]>);

impl<D: Clone> TryCopyBody for Full<D> {
    fn try_copy(&self) -> Option<Self> {
        Some(self.clone())
    }
}

impl<D> TryCopyBody for Empty<D> {
    fn try_copy(&self) -> Option<Self> {
        Some(*self)
    }
}

impl<B: TryCopyBody> TryCopyBody for Option<B> {
    fn try_copy(&self) -> Option<Self> {
        match self {
            Some(body) => body.try_copy().map(Some),
            None => Some(None),
        }
    }

    fn is_replayable(&self) -> bool {
        self.as_ref().is_none_or(B::is_replayable)
    }

    fn abandon(&self) {
        if let Some(body) = self {
            body.abandon();
        }
    }

    fn upload(&mut self) -> Option<Upload> {
        self.as_mut()?.upload()
    }
}

impl<B: TryCopyBody> TryCopyBody for Box<B> {
    fn try_copy(&self) -> Option<Self> {
        (**self).try_copy().map(Box::new)
    }

    fn is_replayable(&self) -> bool {
        (**self).is_replayable()
    }

    fn abandon(&self) {
        (**self).abandon();
    }

    fn upload(&mut self) -> Option<Upload> {
        (**self).upload()
    }
}
