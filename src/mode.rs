//! Modes of a protective layer: enforce its decisions, or only observe.

/// Mode of a protective layer: it enforces its decisions, or only counts them.
///
/// It is a setting of [circuit breaker](crate::circuit_breaker::Config::mode), [rate
/// limit](crate::rate_limit::Config::mode), [bulkhead](crate::bulkhead::Config::mode),
/// [hedge](crate::hedge::Config::mode), [outlier ejection](crate::balance::OutlierEjection), the
/// [timeout](crate::stack::Standard::timeout_mode) of a standard stack, and the [budget](crate::budget::Config::mode)
/// of retries. The overflow of keyed layers and failover have no mode. Calls that would have been rejected are counted
/// in `buttress_rejections_total` with `mode="observe"`.
///
/// # Examples
///
/// ```
/// use buttress::circuit_breaker::State;
/// use buttress::{BoxError, ErrorKind, Mode};
/// use tower::service_fn;
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), BoxError> {
/// let stack = buttress::standard("inventory")
///     .circuit_breaker(|breaker| breaker.mode(Mode::Observe))
///     .unlimited()
///     .build()?;
/// let inventory = stack.wrap(service_fn(|()| async { Err::<(), BoxError>("reset".into()) }));
/// for _ in 0..30 {
///     let error = inventory.send(()).await.unwrap_err();
///     assert_eq!(error.kind(), ErrorKind::Service, "every call is made");
/// }
/// let handle = stack.handle();
/// assert_eq!(handle.circuit_breaker().map(|breaker| breaker.state()), Some(State::Open));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Deserialize, serde::Serialize),
    serde(rename_all = "lowercase")
)]
#[non_exhaustive]
pub enum Mode {
    /// The layer rejects the calls that it decides against.
    #[default]
    Enforce,
    /// The layer decides and counts, and lets every call pass: a way to try settings on real traffic.
    Observe,
}

impl Mode {
    pub(crate) fn word(self) -> u32 {
        match self {
            Self::Enforce => 0,
            Self::Observe => 1,
        }
    }

    pub(crate) fn from_word(word: u32) -> Self {
        match word {
            0 => Self::Enforce,
            _ => Self::Observe,
        }
    }

    /// Returns the value of the metrics label `mode`.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Observe => "observe",
        }
    }
}
