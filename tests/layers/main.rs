//! The layers, each by itself and all of them together.

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/debugging.rs"]
mod debugging;
#[path = "../common/recorded.rs"]
mod recorded;
#[path = "../common/steered.rs"]
mod steered;

mod balance;
mod bulkhead;
mod call_options;
mod cancellation;
mod chassis;
mod circuit_breaker;
mod client;
mod compile_fail;
mod config;
mod contract;
mod drain;
mod durations;
mod events;
mod failover;
mod fallback;
mod hedge;
mod keyed;
mod part;
mod rate_limit;
mod readiness;
mod retry;
mod settings;
mod standard;
mod storm;
mod timeout;
