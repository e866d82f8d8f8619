//! The algorithms, as plain code: times and randomness are arguments, and decisions are return values.

pub(crate) mod failover;
pub(crate) mod load;
pub(crate) mod nanos;
pub(crate) mod outlier;
pub(crate) mod probes;
pub(crate) mod rendezvous;
pub(crate) mod rotation;
