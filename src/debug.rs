//! One way to write `Debug` for types with parameters.

/// Implements `Debug` for a type whose parameters are types of the user's.
///
/// A derived implementation asks every parameter for `Debug`, which closures, clients and bodies do not have. This one takes the
/// bounds in the brackets, and prints the fields that are named: those that need no more.
macro_rules! debug_fields {
    ([$($params:tt)*] $type:ident<$($param:ident),*> { $($($field:ident).+),* }) => {
        impl<$($params)*> std::fmt::Debug for $type<$($param),*> {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($type))
                    $(.field(stringify!($($field).+), &self.$($field).+))*
                    .finish_non_exhaustive()
            }
        }
    };
}

pub(crate) use debug_fields;
