//! Protocol of a request: plain HTTP or gRPC.

use ::http::HeaderMap;
use ::http::header::CONTENT_TYPE;

/// The protocol of a request, which determines the header of its timeout and the form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Protocol {
    /// Plain HTTP: the result of the call is in the status of the response.
    Http,
    /// gRPC: the result of the call is in `grpc-status`, and the status of the response is 200.
    Grpc,
}

impl Protocol {
    /// Returns the protocol by the `content-type` of a request. It is gRPC for `application/grpc`, alone or with the
    /// name of a codec, as in `application/grpc+proto`.
    ///
    /// A gRPC-Web request (`application/grpc-web`) counts as plain HTTP. Clients of gRPC-Web understand HTTP statuses,
    /// and a layer that translates to gRPC changes the `content-type`.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Self {
        const GRPC: &[u8] = b"application/grpc";
        let Some(value) = headers.get(CONTENT_TYPE) else {
            return Self::Http;
        };
        let value = value.as_bytes();
        match value.split_at_checked(GRPC.len()) {
            Some((kind, codec))
                if kind.eq_ignore_ascii_case(GRPC)
                    && matches!(codec.first(), None | Some(b'+' | b';' | b' ')) =>
            {
                Self::Grpc
            }
            _ => Self::Http,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::http::HeaderValue;

    #[test]
    fn the_content_type_tells_grpc_from_http() {
        let protocol = |value: &'static str| {
            let value = HeaderValue::from_static(value);
            Protocol::of(&HeaderMap::from_iter([(CONTENT_TYPE, value)]))
        };
        assert_eq!(Protocol::of(&HeaderMap::new()), Protocol::Http);
        for grpc in [
            "application/grpc",
            "application/grpc+proto",
            "application/grpc;charset=utf-8",
            "Application/gRPC",
        ] {
            assert_eq!(protocol(grpc), Protocol::Grpc, "{grpc}");
        }
        for http in [
            "",
            "application/json",
            "application/grp",
            "application/grpc-web",
        ] {
            assert_eq!(protocol(http), Protocol::Http, "{http}");
        }
    }
}
