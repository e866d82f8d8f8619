//! Keys, and the memory that they hold.

use std::borrow::Cow;
use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::sync::Arc;

/// A key whose size is known, so that the memory of all keys is bounded.
///
/// It is implemented for texts, bytes, numbers, addresses, options and tuples, and with the feature `http` for `Bytes`
/// and some types of the crate `http`. A key of your own adds up its fields:
///
/// ```
/// use buttress::keyed::Key;
///
/// #[derive(PartialEq, Eq, Hash)]
/// struct Tenant {
///     region: u16,
///     name: String,
/// }
///
/// impl Key for Tenant {
///     fn heap_size(&self) -> usize {
///         self.name.heap_size()
///     }
///
///     fn into_compact(self) -> Self {
///         Self { name: self.name.into_compact(), ..self }
///     }
/// }
/// ```
///
/// In place of a type of another crate, use an equivalent that is a key: the number of a UUID, or the text of a URL.
#[diagnostic::on_unimplemented(
    message = "the size of `{Self}` is not known, so it cannot be a key",
    note = "return a `String`, a number or a tuple of them, or implement `buttress::keyed::Key` for a type of your own"
)]
pub trait Key: Hash + Eq {
    /// Returns the number of bytes that the content of the key takes on the heap; 0 if all of it is in the value
    /// itself.
    ///
    /// A key with more bytes than [`max_key_size`](super::Config::max_key_size) is not stored.
    fn heap_size(&self) -> usize;

    /// Returns the same key without memory beyond its content. Called once, before the key is stored.
    ///
    /// A text gives its spare capacity back; a slice of a larger buffer, such as `Bytes`, becomes a copy. By default
    /// the key is returned unchanged.
    #[must_use]
    fn into_compact(self) -> Self
    where
        Self: Sized,
    {
        self
    }
}

macro_rules! inline {
    ($($key:ty)+) => {$(
        impl Key for $key {
            #[inline]
            fn heap_size(&self) -> usize {
                0
            }
        }
    )+};
}

inline!(() bool char u8 u16 u32 u64 u128 usize i8 i16 i32 i64 i128 isize);
inline!(IpAddr Ipv4Addr Ipv6Addr SocketAddr SocketAddrV4 SocketAddrV6);

/// Implements it for types that hold nothing on the heap.
impl<T: Hash + Eq + ?Sized> Key for &T {
    fn heap_size(&self) -> usize {
        0
    }
}

impl Key for String {
    fn heap_size(&self) -> usize {
        self.len()
    }

    fn into_compact(mut self) -> Self {
        self.shrink_to_fit();
        self
    }
}

impl Key for Cow<'_, str> {
    fn heap_size(&self) -> usize {
        match self {
            Self::Borrowed(_) => 0,
            Self::Owned(text) => text.heap_size(),
        }
    }

    fn into_compact(self) -> Self {
        match self {
            Self::Borrowed(text) => Self::Borrowed(text),
            Self::Owned(text) => Self::Owned(text.into_compact()),
        }
    }
}

macro_rules! content {
    ($($key:ty)+) => {$(
        impl Key for $key {
            fn heap_size(&self) -> usize {
                self.len()
            }
        }
    )+};
}

content!(Box<str> Arc<str> Box<[u8]> Arc<[u8]>);

impl<T: Key> Key for Vec<T> {
    fn heap_size(&self) -> usize {
        size_of_val(&self[..]) + self.iter().map(Key::heap_size).sum::<usize>()
    }

    fn into_compact(self) -> Self {
        let mut compact: Self = self.into_iter().map(Key::into_compact).collect();
        compact.shrink_to_fit();
        compact
    }
}

impl<T: Key, const N: usize> Key for [T; N] {
    fn heap_size(&self) -> usize {
        self.iter().map(Key::heap_size).sum()
    }

    fn into_compact(self) -> Self {
        self.map(Key::into_compact)
    }
}

impl<T: Key> Key for Option<T> {
    fn heap_size(&self) -> usize {
        self.as_ref().map_or(0, Key::heap_size)
    }

    fn into_compact(self) -> Self {
        self.map(Key::into_compact)
    }
}

/// Implements it for the tuple of these keys, and for the shorter ones.
macro_rules! tuples {
    ($($first:ident $($keys:ident)*)?) => {$(
        #[allow(non_snake_case, reason = "the fields are named as their types")]
        impl<$first: Key, $($keys: Key),*> Key for ($first, $($keys,)*) {
            fn heap_size(&self) -> usize {
                let ($first, $($keys,)*) = self;
                $first.heap_size() $(+ $keys.heap_size())*
            }

            fn into_compact(self) -> Self {
                let ($first, $($keys,)*) = self;
                ($first.into_compact(), $($keys.into_compact(),)*)
            }
        }

        tuples!($($keys)*);
    )?};
}

tuples!(A B C D E F);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_the_size_of_its_content_and_is_stored_without_more() {
        let roomy = |text: &str| {
            let mut roomy = String::with_capacity(1_000);
            roomy.push_str(text);
            roomy
        };
        let key = (roomy("tenant"), 7_u64, Some(vec![roomy("a"), roomy("bc")]));
        assert_eq!(key.heap_size(), 6 + 2 * size_of::<String>() + 3);
        let (name, number, texts) = key.into_compact();
        assert_eq!((name.capacity(), number), (6, 7));
        let capacities = texts.iter().flatten().map(String::capacity);
        assert_eq!(capacities.collect::<Vec<_>>(), [1, 2]);
        assert_eq!(("static", None::<String>).heap_size(), 0);
        assert_eq!(Cow::Borrowed("static").heap_size(), 0);
        assert_eq!(Arc::<str>::from("shared").heap_size(), 6);
        assert_eq!([roomy("a")].into_compact()[0].capacity(), 1);
        let Cow::Owned(owned) = Cow::<str>::Owned(roomy("own")).into_compact() else {
            panic!("it was owned");
        };
        assert_eq!(owned.capacity(), 3);
    }
}
