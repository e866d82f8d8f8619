//! Metrics: a table of all metrics, and handles that are looked up once and used without a lock.
//!
//! A lookup by name costs allocations and a lock inside the recorder, so handles are kept. They become stale in two
//! ways: the recorder is installed or replaced after they were made, or an exporter with an idle timeout forgets a
//! series without updates. Handles are therefore renewed when the address of the recorder has changed, or when they
//! were last used more than a few seconds ago, five at most.
//!
//! Every thread keeps its own handles, so their use needs no lock and causes no contention. The future of a call needs
//! no reference to them: a [`Series`] is interned by name and lives as long as the process, like the label values in an
//! exporter. Names should come from a closed set, like all metrics labels.

mod changes;
mod handles;
mod list;
pub(crate) mod recent;
mod report;
mod series;
mod shown;
pub(crate) mod table;
#[cfg(feature = "tracing")]
mod trace;

pub(crate) use handles::Handles;
pub use list::{MetricInfo, MetricKind, metrics_list};
pub(crate) use report::{Listener, Report};
pub(crate) use series::{Initial, Instruments, Series};
pub(crate) use shown::{Gauges, Published, Shown};

use crate::Outcome;

/// The value of the label `outcome` for a call that an inner layer refused.
pub(crate) const REJECTED: &str = "rejected";

/// The value of the label `outcome` for a call that was ended because its time was over.
pub(crate) const TIMED_OUT: &str = "timeout";

impl Outcome {
    /// Returns the value of the label `outcome`.
    #[inline]
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Overload { .. } => "overload",
            Self::Throttled { .. } => "throttled",
            Self::Ignored => "ignored",
            Self::Cancelled => "cancelled",
        }
    }
}
