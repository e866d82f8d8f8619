//! Sizes of keys that are parts of a request.
//!
//! All of them may be slices of the buffer with the head of the request, so each is copied before it is stored.

use ::http::uri::{Authority, Scheme};
use ::http::{HeaderName, HeaderValue, Method};
use bytes::Bytes;

use crate::keyed::Key;

impl Key for Bytes {
    fn heap_size(&self) -> usize {
        self.len()
    }

    fn into_compact(self) -> Self {
        Self::copy_from_slice(&self)
    }
}

macro_rules! texts {
    ($($key:ty)+) => {$(
        impl Key for $key {
            fn heap_size(&self) -> usize {
                self.as_str().len()
            }

            fn into_compact(self) -> Self {
                // It was valid before.
                Self::try_from(self.as_str()).unwrap_or(self)
            }
        }
    )+};
}

texts!(Authority HeaderName Method Scheme);

impl Key for HeaderValue {
    fn heap_size(&self) -> usize {
        self.len()
    }

    fn into_compact(self) -> Self {
        let Ok(mut compact) = Self::from_bytes(self.as_bytes()) else {
            return self;
        };
        compact.set_sensitive(self.is_sensitive());
        compact
    }
}
