//! A stack follows a file: `cargo run --package example-settings`.

use std::future::pending;
use std::time::Duration;

use buttress::BoxError;
use example_settings::{load, watch};
use tokio::time::{Instant, sleep};
use tower::service_fn;

const INTERVAL: Duration = Duration::from_millis(20);

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let file = std::env::temp_dir().join(format!("inventory-{}.toml", std::process::id()));
    std::fs::write(&file, "timeout = \"100ms\"\nretry = { max_attempts = 1 }\n")?;
    let stack = buttress::standard("inventory")
        .settings(&load(&file, "INVENTORY")?)
        .unlimited()
        .build()?;
    let inventory = stack.wrap(service_fn(|()| pending::<Result<(), BoxError>>()));

    let (watched, handle) = (file.clone(), stack.handle());
    tokio::spawn(async move {
        let report = |result: Result<(), String>| match result {
            Ok(()) => println!("the settings are applied"),
            Err(error) => println!("the former settings stay: {error}"),
        };
        watch(&watched, "INVENTORY", &handle, INTERVAL, report).await;
    });
    for settings in [
        "timeout = \"100ms\"\nretry = { max_attempts = 1 }\n",
        "timeout = \"200ms\"\nretry = { max_attempts = 1 }\n",
        "timeout = \"20s\"\nretry = { max_attempts = 1 }\n",
        "timeout = \"200 apples\"\n",
    ] {
        std::fs::write(&file, settings)?;
        sleep(3 * INTERVAL).await;
        let began = Instant::now();
        if let Err(error) = inventory.send(()).await {
            println!("after {:.1?}: {error}", began.elapsed());
        }
    }
    std::fs::remove_file(file)?;
    Ok(())
}
