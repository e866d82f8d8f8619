//! Counts the endpoints of a balancer when none takes a call.

use super::host_set::EndpointState;

pub(super) use crate::shortage::Shortage;

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
