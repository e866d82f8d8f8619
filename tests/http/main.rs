//! The layers of HTTP that need no client and no server.

#[path = "../common/debugging.rs"]
mod debugging;
#[path = "../feed/mod.rs"]
mod feed;

mod http_body;
mod http_body_timeout;
mod http_call_options;
mod http_client;
mod http_conflicts;
mod http_replay_body;
mod http_server;
mod http_statuses;
