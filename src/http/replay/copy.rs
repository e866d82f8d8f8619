//! How bodies are copied.

use std::borrow::Cow;

use bytes::Bytes;

use crate::ByClone;

/// A body that may be copied.
///
/// Implemented for the bodies that are whole, texts and bytes, and for
/// [`ReplayBody`](crate::http::ReplayBody), which makes one of a body that is streamed.
#[diagnostic::on_unimplemented(
    message = "bodies of type `{Self}` do not say how they are copied",
    note = "if `{Self}` is `Clone`, as `http_body_util::Full` is, use `HttpReplay::by_clone()`; if it is streamed, put a `ReplayBodyLayer` around the layer; or give a closure, `HttpReplay::new().copy_body(|body: &{Self}| ...)`"
)]
pub trait TryCopyBody: Sized {
    /// Copies the body, or says with `None` that it cannot be sent again.
    fn try_copy(&self) -> Option<Self>;

    /// Returns whether a copy that was made earlier can still be sent. By default it can.
    fn is_replayable(&self) -> bool {
        true
    }

    /// Ends what is left of the attempt that this is a copy of. By default nothing.
    fn abandon(&self) {}
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
}

/// How [`HttpReplay`](super::HttpReplay) copies bodies of type `B`.
///
/// [`TryCopy`] leaves it to the body, [`ByClone`] clones it, and a closure `|body: &B| -> Option<B>` works, too.
#[diagnostic::on_unimplemented(
    message = "bodies of type `{B}` cannot be copied by `{Self}`",
    label = "a further attempt needs a copy of the request's body",
    note = "`HttpReplay::by_clone()`, which `http::standard` begins with, copies bodies that are `Clone`, as `http_body_util::Full` is",
    note = "for a body that is streamed put a `ReplayBodyLayer` around the layer, and `.replay(HttpReplay::new())` in its configuration, which copies a `ReplayBody`; `.replay(Never)` sends everything once; `HttpReplay::new().copy_body(|body: &{B}| ...)` takes a closure"
)]
pub trait CopyBody<B> {
    /// Copies the body, or says with `None` that it cannot be sent again.
    fn copy_body(&self, body: &B) -> Option<B>;

    /// Returns whether a copy that was made earlier can still be sent. By default it can.
    fn is_replayable(&self, _copy: &B) -> bool {
        true
    }

    /// Ends what is left of the attempt that `copy` was made of. By default nothing.
    fn abandon(&self, _copy: &B) {}
}

/// Copies bodies that say themselves how that is done: [`TryCopyBody`]. The default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TryCopy;

impl<B: TryCopyBody> CopyBody<B> for TryCopy {
    fn copy_body(&self, body: &B) -> Option<B> {
        body.try_copy()
    }

    fn is_replayable(&self, copy: &B) -> bool {
        copy.is_replayable()
    }

    fn abandon(&self, copy: &B) {
        copy.abandon();
    }
}

#[diagnostic::do_not_recommend]
impl<B: Clone> CopyBody<B> for ByClone {
    fn copy_body(&self, body: &B) -> Option<B> {
        Some(body.clone())
    }
}

#[diagnostic::do_not_recommend]
impl<B, F> CopyBody<B> for F
where
    F: Fn(&B) -> Option<B>,
{
    fn copy_body(&self, body: &B) -> Option<B> {
        self(body)
    }
}
