//! A stack follows a file: `cargo run --package example-settings`.

use std::future::pending;
use std::time::Duration;

use buttress::BoxError;
use example_settings::{load, watch};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tower::service_fn;

const INTERVAL: Duration = Duration::from_millis(20);
/// Each content of the file, and the timeout that is in force afterwards.
const CHANGES: [(&str, Duration); 3] = [
    ("timeout = \"200ms\"", Duration::from_millis(200)),
    // More than the response timeout.
    ("timeout = \"20s\"", Duration::from_millis(200)),
    ("timeout = \"200 apples\"", Duration::from_millis(200)),
];

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let file = std::env::temp_dir().join(format!("inventory-{}.toml", std::process::id()));
    let next = file.with_extension("next");
    std::fs::write(&file, "timeout = \"100ms\"")?;
    let stack = buttress::standard("inventory")
        .settings(&load(&file, "INVENTORY")?)
        .no_retry()
        .unlimited()
        .build()?;
    let inventory = stack.wrap(service_fn(|()| pending::<Result<(), BoxError>>()));

    let (reports, mut reported) = mpsc::unbounded_channel();
    let (watched, handle) = (file.clone(), stack.handle());
    tokio::spawn(async move {
        let report = |result| drop(reports.send(result));
        watch(&watched, "INVENTORY", &handle, INTERVAL, report).await;
    });
    reported.recv().await;
    for (settings, timeout) in CHANGES {
        // In one step, so that no half of a file is read.
        std::fs::write(&next, settings)?;
        std::fs::rename(&next, &file)?;
        match reported.recv().await {
            Some(Err(error)) => println!("{settings}: the former settings stay: {error}"),
            _ => println!("{settings}: applied"),
        }
        let began = Instant::now();
        let result = inventory.send(()).await;
        let took = began.elapsed();
        println!("  after {took:.1?}: {result:?}");
        if took < timeout || took > 10 * timeout {
            return Err(format!("the call took {took:?} in place of {timeout:?}").into());
        }
    }
    std::fs::remove_file(file)?;
    Ok(())
}
