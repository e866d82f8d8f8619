//! The body of a request to reqwest.

use ::reqwest::Body;
use bytes::Bytes;
use futures::FutureExt;
use http_body_util::BodyExt;

use crate::Upload;
use crate::http::{ReplayBody, TryCopyBody};

/// The body of a request that goes through a [`Client`](super::Client).
///
/// A whole body is cloned for each further attempt. Up to 64 KiB of a streamed body are kept while it is sent, as in
/// [`ReplayBody`].
#[derive(Debug)]
pub struct RequestBody(Kind);

#[derive(Debug)]
enum Kind {
    Whole(Bytes),
    Streamed(ReplayBody<Body>),
}

impl From<Body> for RequestBody {
    fn from(mut body: Body) -> Self {
        if body.as_bytes().is_none() {
            return Self(Kind::Streamed(ReplayBody::new(body)));
        }
        // A whole body returns all its data in its first frame, without a copy. Only an empty body has no frame.
        let frame = body.frame().now_or_never().flatten().and_then(Result::ok);
        let bytes = frame.and_then(|frame| frame.into_data().ok());
        Self(Kind::Whole(bytes.unwrap_or_default()))
    }
}

impl From<RequestBody> for Body {
    fn from(body: RequestBody) -> Self {
        match body.0 {
            Kind::Whole(bytes) => bytes.into(),
            Kind::Streamed(body) => Self::wrap(body),
        }
    }
}

/// A body without data.
impl Default for RequestBody {
    fn default() -> Self {
        Self(Kind::Whole(Bytes::new()))
    }
}

impl TryCopyBody for RequestBody {
    fn try_copy(&self) -> Option<Self> {
        Some(Self(match &self.0 {
            Kind::Whole(bytes) => Kind::Whole(bytes.clone()),
            Kind::Streamed(body) => Kind::Streamed(body.try_copy()?),
        }))
    }

    fn is_replayable(&self) -> bool {
        match &self.0 {
            Kind::Whole(_) => true,
            Kind::Streamed(body) => body.is_replayable(),
        }
    }

    fn abandon(&self) {
        if let Kind::Streamed(body) = &self.0 {
            body.abandon();
        }
    }

    fn upload(&mut self) -> Option<Upload> {
        match &mut self.0 {
            Kind::Whole(_) => None,
            Kind::Streamed(body) => body.upload(),
        }
    }
}
