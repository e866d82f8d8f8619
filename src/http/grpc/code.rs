//! The status codes of gRPC.

use std::fmt;

use ::http::{HeaderMap, HeaderName, StatusCode};

use crate::http::retry_after::{number, text};

/// Header with the status of a gRPC call: in the head of a response without messages, else in the trailers.
pub(in crate::http) static STATUS: HeaderName = HeaderName::from_static("grpc-status");
/// Header about another attempt: milliseconds to wait for it, or a negative number for none.
pub(in crate::http) static PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");

/// Status of a gRPC call.
///
/// Convert a code of `tonic` with `Code::from(status.code() as i32)`, and back with `tonic::Code::from(code.number())`.
///
/// `Display` writes the name of the specification, such as `UNAVAILABLE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Code {
    /// The call succeeded.
    Ok = 0,
    /// The caller cancelled the call.
    Cancelled = 1,
    /// The call failed for an unknown reason.
    Unknown = 2,
    /// The request makes no sense.
    InvalidArgument = 3,
    /// The deadline passed before the call was over.
    DeadlineExceeded = 4,
    /// The requested entity does not exist.
    NotFound = 5,
    /// The entity to create exists already.
    AlreadyExists = 6,
    /// The caller has no permission for the call.
    PermissionDenied = 7,
    /// A quota or a resource is used up.
    ResourceExhausted = 8,
    /// The system is not in the state that the operation needs.
    FailedPrecondition = 9,
    /// The call was aborted because of a conflict with another one.
    Aborted = 10,
    /// A value of the request is beyond the valid range.
    OutOfRange = 11,
    /// The service does not implement the method.
    Unimplemented = 12,
    /// The service is broken.
    Internal = 13,
    /// The service cannot be reached at present.
    Unavailable = 14,
    /// Data are lost for good.
    DataLoss = 15,
    /// The caller is not authenticated.
    Unauthenticated = 16,
}

/// The codes by number, with their names.
const CODES: [(Code, &str); 17] = [
    (Code::Ok, "OK"),
    (Code::Cancelled, "CANCELLED"),
    (Code::Unknown, "UNKNOWN"),
    (Code::InvalidArgument, "INVALID_ARGUMENT"),
    (Code::DeadlineExceeded, "DEADLINE_EXCEEDED"),
    (Code::NotFound, "NOT_FOUND"),
    (Code::AlreadyExists, "ALREADY_EXISTS"),
    (Code::PermissionDenied, "PERMISSION_DENIED"),
    (Code::ResourceExhausted, "RESOURCE_EXHAUSTED"),
    (Code::FailedPrecondition, "FAILED_PRECONDITION"),
    (Code::Aborted, "ABORTED"),
    (Code::OutOfRange, "OUT_OF_RANGE"),
    (Code::Unimplemented, "UNIMPLEMENTED"),
    (Code::Internal, "INTERNAL"),
    (Code::Unavailable, "UNAVAILABLE"),
    (Code::DataLoss, "DATA_LOSS"),
    (Code::Unauthenticated, "UNAUTHENTICATED"),
];

impl From<i32> for Code {
    /// Numbers that are no code are [`Unknown`](Self::Unknown).
    fn from(number: i32) -> Self {
        let code = usize::try_from(number).ok().and_then(|n| CODES.get(n));
        code.map_or(Self::Unknown, |(code, _)| *code)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(CODES[*self as usize].1)
    }
}

impl Code {
    /// Returns the number of the code in `grpc-status`.
    #[must_use]
    pub fn number(self) -> i32 {
        self as i32
    }

    /// Reads `grpc-status`, if there is one. A value that is no code is `Unknown`.
    #[inline]
    pub(in crate::http) fn read(headers: &HeaderMap) -> Option<Self> {
        headers.get(&STATUS)?;
        let value = text(headers, &STATUS).unwrap_or_default();
        let number = number(value.as_bytes()).and_then(|number| number.try_into().ok());
        Some(Self::from(number.unwrap_or(-1)))
    }

    /// Returns the code for a response without one, which comes from a proxy and not from the service.
    pub(super) fn of_status(status: StatusCode) -> Self {
        match status.as_u16() {
            400 => Self::Internal,
            401 => Self::Unauthenticated,
            403 => Self::PermissionDenied,
            404 => Self::Unimplemented,
            429 | 502..=504 => Self::Unavailable,
            _ => Self::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::http::HeaderValue;

    fn read(value: &[u8]) -> Option<Code> {
        let value = HeaderValue::from_bytes(value).unwrap();
        Code::read(&HeaderMap::from_iter([(STATUS.clone(), value)]))
    }

    #[test]
    fn every_code_is_read_back() {
        for (number, (code, _)) in CODES.into_iter().enumerate() {
            assert_eq!(usize::try_from(code.number()), Ok(number));
            assert_eq!(Code::from(code.number()), code);
            // As `OUT_OF_RANGE` and `OutOfRange`.
            let name = code.to_string().replace('_', "");
            assert!(name.eq_ignore_ascii_case(&format!("{code:?}")), "{name}");
            assert_eq!(read(number.to_string().as_bytes()), Some(code));
        }
        assert_eq!(Code::read(&HeaderMap::new()), None);
    }

    #[test]
    fn what_is_no_code_is_unknown() {
        let garbage: [&[u8]; 9] = [
            b"",
            b"17",
            b"-1",
            b"+14",
            b"14.0",
            b"fourteen",
            b"\xff",
            b"99999999999999999999",
            b"4294967310",
        ];
        for value in garbage {
            assert_eq!(read(value), Some(Code::Unknown), "{value:?}");
        }
    }
}
