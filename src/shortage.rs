//! The numbers of endpoints of a balancer by state, as a part of the error of a call that finds no endpoint.

use std::fmt;
use std::time::Duration;

/// The numbers of endpoints of a balancer by state, when none of them would take a call.
///
/// [`Cause::shortage`](crate::Cause::shortage) returns it for an error of kind
/// [`NoEndpoints`](crate::ErrorKind::NoEndpoints), and for the refusal of an endpoint if all other endpoints would have
/// refused as well. Each endpoint is counted once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Shortage {
    /// The name of the balancer.
    pub balancer: &'static str,
    /// The time that the call waited for an endpoint.
    pub waited: Duration,
    /// The number of endpoints.
    pub known: usize,
    /// The number of endpoints that are ejected.
    pub ejected: usize,
    /// The number of endpoints that are unhealthy, by a health check.
    pub unhealthy: usize,
    /// The number of other endpoints that have just refused a call, or are not [available](crate::Availability).
    pub unavailable: usize,
    /// `true` while endpoints are still being discovered.
    pub is_discovering: bool,
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.known == 0 {
            f.write_str("none is known")?;
            return f.write_str(if self.is_discovering {
                ", discovery goes on"
            } else {
                ""
            });
        }
        write!(f, "of {} known", self.known)?;
        let parts = [
            (self.ejected, "ejected"),
            (self.unhealthy, "unhealthy"),
            (self.unavailable, "not available"),
        ];
        for (count, state) in parts.into_iter().filter(|(count, _)| *count > 0) {
            let verb = if count == 1 { "is" } else { "are" };
            write!(f, ", {count} {verb} {state}")?;
        }
        Ok(())
    }
}
