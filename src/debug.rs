//! `Debug` for types that cannot derive it.

/// Implements `Debug` for a type. It prints the named fields: `debug_fields!([S, K: Debug] Pool<S, K> { about.key,
/// len() })`.
///
/// A derived implementation requires `Debug` of every parameter, which closures, clients and bodies do not have, and
/// prints every field. This one has only the bounds in the brackets. A field is a path of fields and methods that
/// begins at `self`, and is shown under the name of its last step. `as` shows the type under another name.
macro_rules! debug_fields {
    (
        $([$($params:tt)*])? $type:ident $(<$($param:tt),*>)? $(as $shown:ident)?
        { $($($step:ident $(($($arg:tt)*))?).+),* }
    ) => {
        impl<$($($params)*)?> std::fmt::Debug for $type $(<$($param),*>)? {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct([$(stringify!($shown),)? stringify!($type)][0])
                    $(.field(
                        $crate::debug::last_step(stringify!($($step).+)),
                        &self$(.$step $(($($arg)*))?)+,
                    ))*
                    .finish_non_exhaustive()
            }
        }
    };
}

pub(crate) use debug_fields;

/// Returns the name under which a field is shown.
pub(crate) fn last_step(path: &str) -> &str {
    path.rsplit_once('.').map_or(path, |(_, last)| last.trim())
}

#[cfg(test)]
mod tests {
    struct Inner {
        len: u32,
    }

    struct Outer<T> {
        inner: Inner,
        _unseen: T,
    }

    impl<T> Outer<T> {
        fn inner(&self) -> &Inner {
            &self.inner
        }
    }

    debug_fields!(Inner { len });
    debug_fields!([T] Outer<T> as Shown { inner, inner().len });

    #[test]
    fn a_field_is_shown_under_the_name_of_its_last_step() {
        let outer = Outer {
            inner: Inner { len: 3 },
            _unseen: || (),
        };
        let expected = "Shown { inner: Inner { len: 3, .. }, len: 3, .. }";
        assert_eq!(format!("{outer:?}"), expected);
    }
}
