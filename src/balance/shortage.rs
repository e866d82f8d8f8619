//! What a balancer had when a call found no endpoint that takes it.

use std::fmt;
use std::time::Duration;

use super::host_set::EndpointState;

/// The endpoints of a balancer when none of them would take a call.
///
/// [`Cause::shortage`](crate::Cause::shortage) returns it for an error of kind
/// [`NoEndpoints`](crate::ErrorKind::NoEndpoints), and for the refusal of an endpoint if all others would have refused
/// as well. Each endpoint is counted once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Shortage {
    /// The name of the balancer.
    pub balancer: &'static str,
    /// How long the call waited for an endpoint.
    pub waited: Duration,
    /// How many endpoints there are.
    pub known: usize,
    /// How many of them are ejected.
    pub ejected: usize,
    /// How many of them are unhealthy, by a health check.
    pub unhealthy: usize,
    /// How many of the others have just refused a call, or are not [available](crate::Availability).
    pub unavailable: usize,
    /// Whether endpoints are still being discovered.
    pub is_discovering: bool,
}

impl Shortage {
    /// Counts an endpoint that would not take a call.
    pub(super) fn add(&mut self, state: EndpointState) {
        self.known += 1;
        *match state {
            EndpointState::Ejected => &mut self.ejected,
            EndpointState::Unhealthy => &mut self.unhealthy,
            EndpointState::Ready | EndpointState::SlowStart => &mut self.unavailable,
        } += 1;
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_there_is() {
        let mut shortage = Shortage::default();
        assert_eq!(shortage.to_string(), "none is known");
        shortage.is_discovering = true;
        assert_eq!(shortage.to_string(), "none is known, discovery goes on");
        shortage.add(EndpointState::SlowStart);
        assert_eq!(shortage.to_string(), "of 1 known, 1 is not available");
        for state in [
            EndpointState::Ejected,
            EndpointState::Unhealthy,
            EndpointState::Ejected,
        ] {
            shortage.add(state);
        }
        assert_eq!(
            shortage.to_string(),
            "of 4 known, 2 are ejected, 1 is unhealthy, 1 is not available"
        );
    }
}
