//! Compiler hints for mistakes that would otherwise fail at a trait of another crate.
//!
//! Each hint is a trait that no type implements. It is the condition of an implementation of the other trait, so the
//! compiler reports our trait, with our text. If a *method* such as `ServiceBuilder::service` needs the other trait,
//! the compiler prints only the name of our trait, so the name is a hint too. The condition concerns a reference to the
//! type: for the type itself, the compiler would report the other trait.

use std::convert::Infallible;

use crate::Error;

/// Hint for a configuration that is used in place of its layer.
///
/// A `Result<Layer, ConfigError>` in place of the layer gets the compiler's own message, because neither the type nor
/// tower's trait is ours.
#[diagnostic::on_unimplemented(
    message = "the configuration of a layer is not the layer",
    label = "`.build()?` is missing",
    note = "call `.build()?`: it checks the configuration and makes the layer"
)]
pub trait CallBuildFirst<S> {
    #[doc(hidden)]
    fn layer(self, inner: S) -> S;
}

/// Implements `tower::Layer` for a configuration with the hint that it must be built first.
macro_rules! layer_after_build {
    ([$($param:ident),*] $config:ty) => {
        #[doc(hidden)]
        impl<S, $($param),*> tower::Layer<S> for $config
        where
            for<'a> &'a Self: $crate::hints::CallBuildFirst<S>,
        {
            type Service = S;

            fn layer(&self, inner: S) -> S {
                $crate::hints::CallBuildFirst::layer(self, inner)
            }
        }
    };
}

pub(crate) use layer_after_build;

/// Hint for errors of layers in a server that must answer every request.
#[diagnostic::on_unimplemented(
    message = "this server must answer every request, but a layer of buttress returns an error",
    label = "`RespondLayer::for_servers()` is missing outside the other layers of buttress",
    note = "put `buttress::http::RespondLayer::for_servers()` (feature `http`) outside all layers of buttress, also outside a `MeasureLayer`: it turns their errors into responses. Give an axum `Router` all of them in one `tower::ServiceBuilder`, or use `buttress::http::server(name)`, which has it"
)]
pub trait RespondLayerOutside {
    #[doc(hidden)]
    fn respond(self) -> Infallible;
}

// The compiler checks a condition without parameters at once, so it would not compile. A condition over all lifetimes
// is checked where the implementation is used.
#[doc(hidden)]
impl From<Error> for Infallible
where
    for<'a> &'a Error: RespondLayerOutside,
{
    fn from(error: Error) -> Self {
        RespondLayerOutside::respond(&error)
    }
}
