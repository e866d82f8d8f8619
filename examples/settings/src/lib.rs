//! Settings of a stack from a file and from the environment, also while it runs.

use std::path::Path;
use std::time::Duration;

use buttress::{settings, stack};
use config::{Config, ConfigError, Environment, File};
use tokio::fs;
use tokio::time::sleep;

/// Reads the settings of a stack from a file in TOML, YAML or JSON, and from the environment. The environment takes
/// precedence.
///
/// With the prefix `INVENTORY`, the variable `INVENTORY__RETRY__MAX_ATTEMPTS` sets the number of attempts.
///
/// # Errors
///
/// Returns an error if the file cannot be read, or if a name or a value is wrong. The error names the value and the
/// file.
pub fn load(file: &Path, prefix: &str) -> Result<settings::Stack, ConfigError> {
    let environment = Environment::with_prefix(prefix).separator("__");
    Config::builder()
        .add_source(File::from(file))
        .add_source(environment.try_parsing(true))
        .build()?
        .try_deserialize()
}

/// Checks the file at each `interval`, and applies the settings to a running stack when the file has changed. It never
/// returns.
///
/// Calls `report` with each result. If settings cannot be read or applied, the former ones stay in force.
///
/// # Cancellation
///
/// Dropping the future ends the checks. The settings in force stay.
pub async fn watch(
    file: &Path,
    prefix: &str,
    handle: &stack::Handle,
    interval: Duration,
    report: impl Fn(Result<(), String>),
) {
    // The content tells more than the time of a change, which may be the same for two changes in a few milliseconds.
    let mut seen = None;
    loop {
        let content = fs::read(file).await.ok();
        if content.is_some() && content != seen {
            seen = content;
            let settings = load(file, prefix).map_err(|error| error.to_string());
            let apply = |settings| handle.apply(&settings).map_err(|error| error.to_string());
            report(settings.and_then(apply));
        }
        sleep(interval).await;
    }
}
