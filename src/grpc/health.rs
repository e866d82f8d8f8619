//! The health check of a gRPC server, without generated code.

use std::future::poll_fn;

use ::http::{Request, Response, Version};
use ::tonic::body::Body;
use bytes::{BufMut, Bytes, BytesMut};
use http_body_util::{BodyExt, Full, Limited};
use tower::Service;

use crate::balance::Probe;
use crate::http::ReplayBody;
use crate::{BoxError, Error};

/// A probe that calls the health service of a gRPC server. Made by [`health_check`](super::health_check).
#[derive(Clone, Debug)]
pub struct GrpcProbe {
    pub(super) message: Bytes,
}

/// Encodes `HealthCheckRequest { service }`, with the five bytes that gRPC writes before a message.
pub(super) fn message(service: &str) -> Bytes {
    const SERVICE: u8 = 0x0a;
    let mut message = BytesMut::new();
    if !service.is_empty() {
        message.put_u8(SERVICE);
        let mut length = service.len();
        while length > 0x7f {
            message.put_u8(length as u8 | 0x80);
            length >>= 7;
        }
        message.put_u8(length as u8);
        message.put_slice(service.as_bytes());
    }
    let mut framed = BytesMut::new();
    framed.put_u8(0);
    framed.put_u32(message.len() as u32);
    framed.put(message);
    framed.freeze()
}

impl<S, R> Probe<S> for GrpcProbe
where
    S: Service<Request<ReplayBody<Body>>, Response = Response<R>, Error = Error, Future: Send>
        + Send,
    R: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send,
{
    async fn probe(&self, mut service: S) -> Result<(), BoxError> {
        /// `HealthCheckResponse { status: SERVING }`.
        const SERVING: &[u8] = &[0x08, 0x01];
        /// The longest answer that is read, in bytes. A valid answer has seven.
        const MAX_ANSWER: usize = 4096;
        poll_fn(|cx| service.poll_ready(cx)).await?;
        let body = Body::new(Full::new(self.message.clone()));
        let request = Request::post("/grpc.health.v1.Health/Check")
            .version(Version::HTTP_2)
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(ReplayBody::new(body))?;
        let (head, body) = service.call(request).await?.into_parts();
        let body = Limited::new(body, MAX_ANSWER).collect().await?;
        let trailers = body.trailers().unwrap_or(&head.headers);
        let status = trailers.get("grpc-status");
        if status.is_none_or(|status| status != "0") {
            return Err(format!("answered with the status {status:?}").into());
        }
        match body.to_bytes().get(5..) {
            Some(SERVING) => Ok(()),
            _ => Err("is not serving".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::stream;
    use http_body::Frame;
    use http_body_util::StreamBody;
    use tower::service_fn;

    use super::*;

    #[tokio::test]
    async fn an_answer_without_an_end_is_not_read_without_a_bound() {
        let read = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&read);
        let service = service_fn(move |_: Request<ReplayBody<Body>>| {
            let counter = Arc::clone(&counter);
            let chunks = stream::iter((0..1_000).map(move |_| {
                counter.fetch_add(1, Ordering::Relaxed);
                Ok::<_, BoxError>(Frame::data(Bytes::from_static(&[0; 1_024])))
            }));
            std::future::ready(Ok::<_, Error>(Response::new(StreamBody::new(chunks))))
        });
        let probe = GrpcProbe {
            message: message(""),
        };
        let error = probe.probe(service).await.unwrap_err();
        assert!(error.to_string().contains("limit"), "{error}");
        assert!(read.load(Ordering::Relaxed) <= 5);
    }
}
