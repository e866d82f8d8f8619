//! The definition of an overlay and of the setter that applies it.

/// Defines the overlay `$name` of a configuration, and its setter `settings`.
///
/// Each field is applied by the setter of the same name, or by the closure behind `=>`.
macro_rules! overlay {
    (
        $(#[$doc:meta])*
        [$($param:ident),*] $name:ident for $config:ty {
            $($(#[$field_doc:meta])* $field:ident: $type:ty $(=> $set:expr)?,)*
        }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq)]
        #[cfg_attr(
            feature = "serde",
            derive(serde::Deserialize, serde::Serialize),
            serde(default, deny_unknown_fields)
        )]
        #[non_exhaustive]
        pub struct $name {
            $(
                $(#[$field_doc])*
                #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
                pub $field: Option<$type>,
            )*
        }

        impl<$($param),*> $config {
            /// Replaces the values that `settings` names, as the setters of the same names do. The other values stay.
            ///
            /// `build` checks the values. See [`settings`](crate::settings).
            pub fn settings(self, settings: &crate::settings::$name) -> Self {
                let config = self;
                $(let config = match settings.$field.clone() {
                    Some(value) => overlay!(@set config, $field, value $(, $set)?),
                    None => config,
                };)*
                config
            }
        }
    };
    (@set $config:ident, $field:ident, $value:ident) => {
        $config.$field($value)
    };
    (@set $config:ident, $field:ident, $value:ident, $set:expr) => {
        $set($config, $value)
    };
}

pub(super) use overlay;
