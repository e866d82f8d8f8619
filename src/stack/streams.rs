//! The calls whose answers are streams.

/// Declares the requests that ask for a stream: an answer that may go on after the `deadline` of the stack. See
/// [streams](crate::stack#streams).
///
/// Use a closure `|request: &Req| -> bool`, or for HTTP `http::HttpStreams` of the feature `http`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not tell which requests of type `{Req}` ask for streams",
    note = "write `.streaming(|request: &{Req}| false)`, or a condition of your own"
)]
pub trait Streams<Req> {
    /// Returns whether the answer to `request` is a stream.
    fn is_stream(&self, request: &Req) -> bool;
}

/// No request asks for a stream. The default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NoStreams;

impl<Req> Streams<Req> for NoStreams {
    #[inline(always)]
    fn is_stream(&self, _request: &Req) -> bool {
        false
    }
}

#[diagnostic::do_not_recommend]
impl<Req, F> Streams<Req> for F
where
    F: Fn(&Req) -> bool,
{
    fn is_stream(&self, request: &Req) -> bool {
        self(request)
    }
}
