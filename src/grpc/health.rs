//! The health check of a gRPC server, without generated code.

use std::future::poll_fn;

use ::http::{Request, Response, Version};
use ::tonic::body::Body;
use bytes::{BufMut, Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use tower::Service;

use crate::balance::Probe;
use crate::http::ReplayBody;
use crate::{BoxError, Error};

/// A probe that asks the health service of a gRPC server. Made by [`health_check`](super::health_check).
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
        poll_fn(|cx| service.poll_ready(cx)).await?;
        let body = Body::new(Full::new(self.message.clone()));
        let request = Request::post("/grpc.health.v1.Health/Check")
            .version(Version::HTTP_2)
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(ReplayBody::new(body))?;
        let (head, body) = service.call(request).await?.into_parts();
        let body = body.collect().await.map_err(Into::into)?;
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
