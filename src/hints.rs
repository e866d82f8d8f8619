//! Hints of the compiler for mistakes that would otherwise fail at a trait of another crate.
//!
//! Each hint is a trait that no type implements, as the condition of an implementation of the other trait. The compiler then
//! complains about our trait, with our text. Where a *method* needs the other trait, as `ServiceBuilder::service` does,
//! it prints the name of our trait instead of the text, so that the name is a hint too. The condition is about a reference
//! to the type, because about the type itself the compiler would complain of the other trait.

use std::convert::Infallible;

use crate::Error;

/// The configuration of a layer in the place of the layer.
///
/// `Result<Layer, ConfigError>` in the place of the layer stays with the compiler's own message: neither the type nor tower's
/// trait is ours.
#[diagnostic::on_unimplemented(
    message = "the configuration of a layer is not the layer",
    label = "`.build()?` is missing",
    note = "call `.build()?`: it checks the configuration and makes the layer"
)]
pub trait CallBuildFirst<S> {
    #[doc(hidden)]
    fn layer(self, inner: S) -> S;
}

/// Makes the compiler tell that a configuration must be built before it is a layer.
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

/// Errors of layers in a server that must answer.
#[diagnostic::on_unimplemented(
    message = "this server must answer every request, but a layer of buttress returns an error",
    label = "`RespondLayer::for_servers()` is missing outside the other layers of buttress",
    note = "put `buttress::http::RespondLayer::for_servers()` (feature `http`) outside all layers of buttress, also outside a `MeasureLayer`: it turns their errors into responses"
)]
pub trait RespondLayerOutside {
    #[doc(hidden)]
    fn respond(self) -> Infallible;
}

// A condition without parameters is checked where it stands, and would not compile. One over all lifetimes is checked where
// the implementation is used.
#[doc(hidden)]
impl From<Error> for Infallible
where
    for<'a> &'a Error: RespondLayerOutside,
{
    fn from(error: Error) -> Self {
        RespondLayerOutside::respond(&error)
    }
}
