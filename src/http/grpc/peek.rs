//! A look at trailers that follow the head of a response at once.

use std::fmt;
use std::pin::{Pin, pin};
use std::task::{self, Poll, ready};

use ::http::{HeaderMap, Request, Response, StatusCode};
use bytes::Buf;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::task::yield_now;
use tower::Service;

use super::code::{Code, STATUS};
use crate::context;
use crate::http::Protocol;

/// Number of times that a body without data is polled again, each time after a turn of the scheduler.
///
/// The connection reads head and trailers together, but a caller on another thread may be faster. Of 4,000 such calls
/// on a busy machine, one look saw the trailers of 80 to 100 %, two further looks of 90 to 100 %, and ten of 92 to 100
/// %. There is no timer, because it would delay a stream that is silent at first.
const MAX_TURNS: u8 = 2;
/// A message without content: not compressed, of length 0.
const EMPTY_MESSAGE: [u8; 5] = [0; 5];

/// Trailers that have followed the head at once: an extension of the response.
#[derive(Clone, Debug)]
struct EarlyTrailers(HeaderMap);

/// Returns the headers with the status: the headers of the head, or trailers that have followed it at once.
#[inline]
pub(super) fn with_status<B>(response: &Response<B>) -> &HeaderMap {
    let early: Option<&EarlyTrailers> = response.extensions().get();
    early.map_or(response.headers(), |early| &early.0)
}

/// A gRPC client whose responses have their status at the head if trailers follow at once.
///
/// `buttress::tonic::Client` includes it. Put it around any other client, inside all layers.
///
/// # Examples
///
/// ```
/// use std::future::ready;
///
/// use buttress::http::grpc::{self, PeekTrailers};
/// use buttress::{BoxError, circuit_breaker::State};
/// use bytes::Bytes;
/// use http::{HeaderMap, Request, Response};
/// use http_body_util::{BodyExt, Empty};
/// use tower::service_fn;
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), BoxError> {
/// let client = service_fn(|_: Request<()>| async {
///     let mut trailers = HeaderMap::new();
///     trailers.insert("grpc-status", 14.into());
///     let body = Empty::<Bytes>::new().with_trailers(ready(Some(Ok(trailers))));
///     let response = Response::builder().header("content-type", "application/grpc");
///     Ok::<_, BoxError>(response.body(body)?)
/// });
/// let stack = grpc::standard("ledger")
///     .circuit_breaker(|breaker| breaker.consecutive_failures(3))
///     .concurrency_limit(50)
///     .build()?;
/// let ledger = stack.wrap(PeekTrailers::new(client));
/// // Its body is not read.
/// drop(ledger.send(Request::new(())).await?);
/// # let handle = stack.handle();
/// # assert_eq!(handle.circuit_breaker().unwrap().state(), State::Open);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct PeekTrailers<S>(S);

impl<S> PeekTrailers<S> {
    /// Wraps `client`.
    pub fn new(client: S) -> Self {
        Self(client)
    }
}

impl<S, Req, B> Service<Request<Req>> for PeekTrailers<S>
where
    S: Service<Request<Req>, Response = Response<B>>,
    B: Body + Unpin,
{
    type Response = Response<PeekedBody<B>>;
    type Error = S::Error;
    type Future = PeekFuture<S::Future, B>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    #[inline]
    fn call(&mut self, request: Request<Req>) -> Self::Future {
        PeekFuture::new(self.0.call(request))
    }
}

pin_project! {
    /// The response future of [`PeekTrailers`].
    #[must_use = "futures do nothing unless polled"]
    pub struct PeekFuture<F, B: Body> {
        #[pin]
        call: F,
        // The answer whose first frames are read.
        answer: Option<Response<PeekedBody<B>>>,
        turns: u8,
    }
}

impl<F, B: Body> PeekFuture<F, B> {
    #[inline]
    pub(crate) fn new(call: F) -> Self {
        Self {
            call,
            answer: None,
            turns: 0,
        }
    }
}

impl<F, B, E> Future for PeekFuture<F, B>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Body + Unpin,
{
    type Output = Result<Response<PeekedBody<B>>, E>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut answer = if let Some(answer) = this.answer.take() {
            answer
        } else {
            let answer = ready!(this.call.poll(cx))?.map(PeekedBody::from);
            if context::is_stream() || !is_open(&answer) {
                return Poll::Ready(Ok(answer));
            }
            answer
        };
        if answer.body_mut().poll_peek(cx).is_pending() && *this.turns < MAX_TURNS {
            *this.turns += 1;
            *this.answer = Some(answer);
            // Its first poll wakes the task after all other tasks that are ready.
            return pin!(yield_now())
                .poll(cx)
                .map(|()| unreachable!("it yields"));
        }
        if let Some(trailers) = answer.body().failure() {
            let early = EarlyTrailers(trailers.clone());
            answer.extensions_mut().insert(early);
        }
        Poll::Ready(Ok(answer))
    }
}

/// Returns whether the status of a gRPC call is still to come.
#[inline]
fn is_open<B>(response: &Response<B>) -> bool {
    let headers = response.headers();
    response.status() == StatusCode::OK
        && Protocol::of(headers) == Protocol::Grpc
        && !headers.contains_key(&STATUS)
}

impl<F, B: Body> fmt::Debug for PeekFuture<F, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeekFuture").finish_non_exhaustive()
    }
}

pin_project! {
    /// A body whose first frames may have been read already. Made by [`PeekTrailers`].
    ///
    /// Its reader gets all frames as they came. It is `Unpin` if `B` is.
    pub struct PeekedBody<B: Body> {
        #[pin]
        body: B,
        // Data without a message.
        empty: Option<B::Data>,
        // The first frame, or the frame after the empty data.
        next: Option<Result<Frame<B::Data>, B::Error>>,
        is_over: bool,
    }
}

impl<B: Body + Unpin> PeekedBody<B> {
    /// Looks for trailers after data without a message.
    fn poll_peek(&mut self, cx: &mut task::Context<'_>) -> Poll<()> {
        while self.next.is_none() && !self.is_over {
            let Some(next) = ready!(Pin::new(&mut self.body).poll_frame(cx)) else {
                self.is_over = true;
                break;
            };
            let has_no_message = |data: &B::Data| {
                let bytes = data.chunk();
                bytes.len() == data.remaining() && (bytes.is_empty() || bytes == EMPTY_MESSAGE)
            };
            self.next = match next.map(Frame::into_data) {
                Ok(Ok(data)) if self.empty.is_none() && has_no_message(&data) => {
                    self.empty = Some(data);
                    None
                }
                Ok(Ok(data)) => Some(Ok(Frame::data(data))),
                Ok(Err(frame)) => Some(Ok(frame)),
                Err(error) => Some(Err(error)),
            };
        }
        Poll::Ready(())
    }

    /// Returns the trailers, if they have arrived and say that the call has failed.
    fn failure(&self) -> Option<&HeaderMap> {
        let trailers = self.next.as_ref()?.as_ref().ok()?.trailers_ref()?;
        Code::read(trailers).filter(|&code| code != Code::Ok)?;
        Some(trailers)
    }
}

impl<B: Body> Body for PeekedBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    #[inline]
    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut task::Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let this = self.project();
        let held = this.empty.take().map(|data| Ok(Frame::data(data)));
        match held.or_else(|| this.next.take()) {
            None if !*this.is_over => this.body.poll_frame(cx),
            held => Poll::Ready(held),
        }
    }

    fn is_end_stream(&self) -> bool {
        let is_held = self.empty.is_some() || self.next.is_some();
        !is_held && (self.is_over || self.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let next = self.next.as_ref().and_then(|next| next.as_ref().ok());
        let next = next.and_then(Frame::data_ref);
        let held = self.empty.iter().chain(next).map(Buf::remaining);
        let held = held.sum::<usize>() as u64;
        let rest = self.body.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower() + held);
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + held);
        }
        hint
    }
}

impl<B: Body> From<B> for PeekedBody<B> {
    fn from(body: B) -> Self {
        Self {
            body,
            empty: None,
            next: None,
            is_over: false,
        }
    }
}

impl<B: Body + fmt::Debug> fmt::Debug for PeekedBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut fields = f.debug_struct("PeekedBody");
        fields.field("body", &self.body).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::{OperationScope, Tried};
    use bytes::Bytes;
    use http_body_util::{BodyExt, Empty};
    use std::convert::Infallible;
    use std::future::ready;

    #[test]
    fn a_declared_stream_is_not_looked_at() {
        for is_stream in [false, true] {
            let trailers = HeaderMap::from_iter([(STATUS.clone(), 14.into())]);
            let answer = Response::builder().header("content-type", "application/grpc");
            let body = Empty::<Bytes>::new().with_trailers(ready(Some(Ok(trailers))));
            let answer = answer.body(body).unwrap();
            let _scope = OperationScope::enter(None, None, Tried::default(), Some(is_stream));
            let call = PeekFuture::new(ready(Ok::<_, Infallible>(answer)));
            let Poll::Ready(Ok(answer)) = tokio_test::task::spawn(call).poll() else {
                panic!("it is ready");
            };
            let is_known = Code::read(with_status(&answer)).is_some();
            assert_eq!(is_known, !is_stream);
        }
    }
}
