//! Composable Tower layers that keep a service up when what it calls is slow, flaky, overloaded or gone.

mod availability;
mod backoff;
pub mod budget;
pub mod circuit_breaker;
mod completion;
mod context;
mod deadline;
mod error;
mod lane;
pub mod measure;
mod mode;
mod outcome;
mod random;
mod ready;
mod replay;
pub mod retry;
mod sync;
mod telemetry;
pub mod timeout;
mod window;

pub use tower::BoxError;

pub use crate::availability::Availability;
pub use crate::backoff::{Backoff, Delays, Jitter};
pub use crate::budget::Budget;
pub use crate::circuit_breaker::{CircuitBreaker, CircuitBreakerLayer};
pub use crate::completion::{AtResponse, Completion, Token};
pub use crate::deadline::{Attempt, Deadline, DeadlineScope};
pub use crate::error::{ConfigError, Error, ErrorKind};
pub use crate::measure::{Measure, MeasureLayer};
pub use crate::mode::Mode;
pub use crate::outcome::{Classify, ErrorsAreFailures, Hint, Outcome, classify_fn};
pub use crate::ready::Wrappable;
pub use crate::replay::{ByClone, Once, Replay};
pub use crate::retry::{Retry, RetryLayer};
pub use crate::timeout::{DeadlineLayer, DeadlineService, Timeout, TimeoutLayer};
