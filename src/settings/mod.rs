//! Settings as plain data, which replace those of the code.
//!
//! The settings in code are the defaults of a service. A file or the environment of a deployment can replace some of
//! them: each struct here names only the values that differ, and a value that is `None` keeps the one of the code.
//! Pass it to `settings` of a configuration. `build` checks the values, with the same messages as for values that are
//! set in code.
//!
//! With the feature `serde`, the structs can be read and written in each format that serde supports. Durations are text
//! (`"250ms"`, `"1m 30s"`), modes are `"enforce"` and `"observe"`, and an unknown name is an error.
//!
//! ```
//! use std::time::Duration;
//!
//! use buttress::settings;
//!
//! let mut settings = settings::Stack::default();
//! settings.timeout = Some(Duration::from_millis(300));
//!
//! let stack = buttress::standard("inventory").unlimited();
//! assert!(stack.clone().settings(&settings).build().is_ok());
//!
//! settings.timeout = Some(Duration::from_secs(20));
//! let error = stack.settings(&settings).build().unwrap_err();
//! assert_eq!(
//!     error.to_string(),
//!     "standard stack \"inventory\": timeout is 20s, but must be less than the response timeout of 10s"
//! );
//! ```
//!
//! In TOML:
//!
//! ```toml
//! timeout = "300ms"
//! deadline = "2s"
//!
//! [retry]
//! max_attempts = 2
//! backoff = { base = "20ms", cap = "1s" }
//!
//! [circuit_breaker]
//! failure_share = 0.3
//! slow_calls = { longer_than = "200ms", share = 0.5 }
//! mode = "observe"
//!
//! [bulkhead]
//! limit = 50
//! ```
//!
//! A part that the code leaves out cannot be switched on by settings: naming it is an error of `build`.
//!
//! # While it runs
//!
//! [`stack::Handle::apply`](crate::stack::Handle::apply) changes a running stack or whole client, all values or none.
//! The package `example-settings` reads a file and the environment, and applies the file each time that it changes.
//!
//! # Several settings in one file
//!
//! A struct of your own contains what the service needs. Each of its parts is passed where the code configures it:
//!
//! ```
//! use buttress::{Balance, ConfigError, balance, settings};
//!
//! #[derive(Default)] // and Deserialize
//! struct Settings {
//!     inventory: settings::Stack,
//!     replicas: settings::Balance,
//! }
//!
//! # fn main() -> Result<(), ConfigError> {
//! let file = Settings::default();
//! let stack = buttress::standard("inventory").settings(&file.inventory).unlimited().build()?;
//! let replicas: balance::Config = Balance::config("inventory").settings(&file.replicas);
//! # Ok(())
//! # }
//! ```

mod balance;
mod overlay;
mod parts;
#[cfg(feature = "http")]
mod server;
mod stack;

pub use self::balance::{Balance, Failover, HealthCheck, OutlierEjection};
pub use self::parts::{Bulkhead, CircuitBreaker, Hedge, OpenGrowth, RateLimit, Retry, SlowCalls};
#[cfg(feature = "http")]
pub use self::server::Server;
pub use self::stack::Stack;
