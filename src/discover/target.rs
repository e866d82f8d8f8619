//! Addresses with properties from a registry.

use std::sync::Arc;
use std::time::Duration;

/// An address with the properties that a registry may set.
///
/// A resolver or a list may also return plain addresses, which convert to targets. Inside a [`Change`](super::Change),
/// a target has the service that was made for the address. A property that is not set does not change the
/// [`Endpoint`](crate::balance::Endpoint): weight 1, priority 0, no standby, no zone.
///
/// A new weight applies to the endpoint in use. After a change of priority, standby or zone, the endpoint keeps its
/// service and begins its statistics anew. An endpoint whose weight or priority is outside its range is left out; a
/// change to such a value is ignored.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use buttress::discover::Target;
///
/// let alone: Target<&str> = "10.0.0.1:80".into();
/// let target = Target::new("10.0.0.2:80").weight(2.0).zone("eu-1a").ttl(Duration::from_secs(30));
/// assert_eq!((alone.weight, target.weight), (None, Some(2.0)));
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Target<A> {
    /// The address; in a [`Change`](super::Change), the service.
    pub address: A,
    /// The capacity relative to the other endpoints; 0.001 to 1000.
    pub weight: Option<f64>,
    /// The number of the [priority group](crate::balance#priority-groups); 0 to 7.
    pub priority: Option<u8>,
    /// `true` if the group of its priority is a [standby](crate::balance::Endpoint::standby).
    pub standby: bool,
    /// The zone of the endpoint, which the status of the endpoint shows. It does not affect the choice of endpoints.
    pub zone: Option<Arc<str>>,
    /// The time for which the answer may be used. [`Dns`](super::Dns) asks again after the shortest time in an answer.
    pub ttl: Option<Duration>,
}

impl<A> Target<A> {
    /// Makes a target without properties.
    #[must_use]
    pub fn new(address: A) -> Self {
        Self {
            address,
            weight: None,
            priority: None,
            standby: false,
            zone: None,
            ttl: None,
        }
    }

    /// Sets the capacity relative to the other endpoints; 0.001 to 1000.
    #[must_use]
    pub fn weight(mut self, weight: f64) -> Self {
        self.weight = Some(weight);
        self
    }

    /// Sets the number of the [priority group](crate::balance#priority-groups); 0 to 7.
    #[must_use]
    pub fn priority(mut self, priority: u8) -> Self {
        self.priority = Some(priority);
        self
    }

    /// Sets that the group of its priority is a [standby](crate::balance::Endpoint::standby).
    #[must_use]
    pub fn standby(mut self) -> Self {
        self.standby = true;
        self
    }

    /// Sets the zone, which the status of the endpoint shows. It does not affect the choice of endpoints.
    #[must_use]
    pub fn zone(mut self, zone: impl Into<Arc<str>>) -> Self {
        self.zone = Some(zone.into());
        self
    }

    /// Sets the time for which the answer of a [`Resolve`](super::Resolve) may be used. A list in a
    /// [`Watch`](super::Watch) is pushed and ignores this time.
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// Replaces the address by another value. Also returns the address.
    fn replace<B>(self, address: B) -> (Target<B>, A) {
        let target = Target {
            address,
            weight: self.weight,
            priority: self.priority,
            standby: self.standby,
            zone: self.zone,
            ttl: self.ttl,
        };
        (target, self.address)
    }

    /// Replaces the address by another value.
    pub(super) fn with<B>(self, address: B) -> Target<B> {
        self.replace(address).0
    }

    /// Returns the properties, and the address.
    pub(crate) fn split(self) -> (Target<()>, A) {
        self.replace(())
    }

    /// Returns the difference from `former` to this target.
    pub(super) fn difference(&self, former: &Self) -> Difference
    where
        A: PartialEq,
    {
        // A property that is no longer set needs a new endpoint, because an endpoint does not store its former value.
        let is_unset = |before: bool, after: bool| before && !after;
        if self.address != former.address
            || is_unset(former.weight.is_some(), self.weight.is_some())
            || is_unset(former.priority.is_some(), self.priority.is_some())
            || is_unset(former.standby, self.standby)
            || is_unset(former.zone.is_some(), self.zone.is_some())
        {
            Difference::Insert
        } else if (self.weight, self.priority, self.standby, &self.zone)
            != (former.weight, former.priority, former.standby, &former.zone)
        {
            Difference::Update
        } else {
            Difference::None
        }
    }
}

/// The change that leads from one target to another one with the same key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Difference {
    None,
    /// The service stays.
    Update,
    /// The service is made anew.
    Insert,
}

impl<A> From<A> for Target<A> {
    fn from(address: A) -> Self {
        Self::new(address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_another_address_or_a_property_that_is_gone_needs_a_new_service() {
        let target = || Target::new(1).weight(2.0).zone("a");
        let cases = [
            (target(), Difference::None),
            (target().ttl(Duration::from_secs(1)), Difference::None),
            (target().weight(3.0), Difference::Update),
            (target().priority(1), Difference::Update),
            (target().standby(), Difference::Update),
            (target().zone("b"), Difference::Update),
            (Target::new(1).weight(2.0), Difference::Insert),
            (Target::new(1), Difference::Insert),
            (target().with(2), Difference::Insert),
        ];
        for (after, expected) in cases {
            assert_eq!(after.difference(&target()), expected, "{after:?}");
        }
        let standby = target().standby();
        assert_eq!(target().difference(&standby), Difference::Insert);
    }
}
