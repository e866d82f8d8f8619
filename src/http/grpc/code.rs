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
/// From `tonic`: `Code::from(status.code() as i32)`, and back: `tonic::Code::from(code.number())`.
///
/// Displays its name as the specification writes it: `UNAVAILABLE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Code {
    /// It succeeded.
    Ok = 0,
    /// The caller gave it up.
    Cancelled = 1,
    /// It failed, and nobody says how.
    Unknown = 2,
    /// The request makes no sense.
    InvalidArgument = 3,
    /// It was not done by its deadline.
    DeadlineExceeded = 4,
    /// The requested entity does not exist.
    NotFound = 5,
    /// The entity to create exists already.
    AlreadyExists = 6,
    /// The caller may not do that.
    PermissionDenied = 7,
    /// A quota or a resource is used up.
    ResourceExhausted = 8,
    /// The system is not in the state that the operation needs.
    FailedPrecondition = 9,
    /// It lost to another operation.
    Aborted = 10,
    /// It went past the end.
    OutOfRange = 11,
    /// The service does not do that.
    Unimplemented = 12,
    /// The service is broken.
    Internal = 13,
    /// The service cannot be reached at present.
    Unavailable = 14,
    /// Data are lost for good.
    DataLoss = 15,
    /// Nobody knows who the caller is.
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
    /// Returns the number that stands for it in `grpc-status`.
    #[must_use]
    pub fn number(self) -> i32 {
        self as i32
    }

    /// Reads `grpc-status`, if it is there. A value that is no code is `Unknown`.
    #[inline]
    pub(in crate::http) fn read(headers: &HeaderMap) -> Option<Self> {
        headers.get(&STATUS)?;
        let value = text(headers, &STATUS).unwrap_or_default();
        let number = number(value.as_bytes()).and_then(|number| number.try_into().ok());
        Some(Self::from(number.unwrap_or(-1)))
    }

    /// Returns the code for a response that gives none: something in between answered, and not the
    /// service.
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
