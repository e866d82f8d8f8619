//! The algorithms of the layers, as plain code.
//!
//! Time and randomness are arguments of an algorithm, and it returns its decision. It knows no service, no metrics, no
//! listener and no thread, and calls no code of the layers. If threads share it, its state is in atomics or short locks
//! of [`crate::sync`], so that `tests/loom` can try every interleaving.

pub(crate) mod aimd;
pub(crate) mod backoff;
pub(crate) mod breaker;
pub(crate) mod budget;
pub(crate) mod drain;
pub(crate) mod evidence;
pub(crate) mod failover;
pub(crate) mod gcra;
pub(crate) mod hedge_quota;
pub(crate) mod last_calls;
pub(crate) mod load;
pub(crate) mod lru;
pub(crate) mod outlier;
pub(crate) mod probes;
pub(crate) mod queue;
pub(crate) mod rate;
pub(crate) mod rendezvous;
pub(crate) mod retry;
pub(crate) mod rotation;
pub(crate) mod shares;
pub(crate) mod sketch;
pub(crate) mod weights;
pub(crate) mod window;
