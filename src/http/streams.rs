//! The calls whose answers are streams.

/// Says of one request whether its answer is a stream, which may go on for longer than the time of an answer: an extension of
/// the request.
///
/// Goes before all else that a stack knows about its streams.
///
/// # Examples
///
/// ```
/// use buttress::http::Streamed;
/// use http::Request;
///
/// let events = Request::get("/events").extension(Streamed(true)).body("")?;
/// # Ok::<(), http::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Streamed(pub bool);
