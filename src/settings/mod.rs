//! Settings as plain data, which replace those of the code.
//!
//! # When to use it
//!
//! Use it if a deployment needs other numbers than the code, for example from a file or from the environment. Settings
//! change numbers and modes; code alone decides which parts a stack has.
//!
//! # How it works
//!
//! Each struct has a field for each setter of a configuration. A field that is `None` keeps the value of the code. Pass
//! the struct to `settings` of the configuration.
//!
//! In a [stack](crate::stack::Standard::settings), settings also replace values that the code sets after this call. In
//! the configuration of a balancer, a health check, a server or a single layer, a later setter replaces them.
//!
//! # Examples
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
//! # Formats
//!
//! With the feature `serde`, the structs can be read and written in each format that serde supports. Durations are text
//! (`"250ms"`, `"1m 30s"`), modes are `"enforce"` and `"observe"`. In TOML:
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
//! # Errors
//!
//! `build` checks the values as if they were set in code, and its error has the same text. It also returns an error if
//! the settings name a part that the stack or the server does not have. Settings can only switch on times, such as a
//! deadline, and [outlier ejection](Balance::outlier_ejection).
//!
//! With `serde`, an unknown name is an error, and so is a duration without a unit.
//!
//! # Changes at run time
//!
//! [`stack::Handle::apply`](crate::stack::Handle::apply) changes a running stack or whole client. It changes either all
//! values or none. The package `example-settings` reads a file and the environment, and applies the file each time that
//! the file changes.
//!
//! # Several settings in one file
//!
//! Define a struct with one field for each part that the file configures, and pass each field to its configuration:
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
