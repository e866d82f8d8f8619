//! Progress of the script on stderr.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::script::Script;
use crate::shop::{Ending, Records};

/// Shows how both shops are doing, until it is dropped: a live line on a terminal, else a line for
/// each phase.
pub(crate) async fn show(start: Instant, script: Arc<Script>, shops: [(&str, Arc<Records>); 2]) {
    let is_live = io::stderr().is_terminal();
    let mut told = None;
    let mut ticks = interval(Duration::from_millis(100));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        let now = ticks.tick().await - start;
        let Some(current) = script.phases.iter().position(|phase| now < phase.ends) else {
            continue;
        };
        let title = &script.phases[current].title;
        let mut line = format!("{:5.1} s  payments: {title:<22}", now.as_secs_f64());
        if is_live {
            for (name, records) in &shops {
                let _infallible = write!(line, "  {name}: {} placed", last_second(records, now));
            }
            write(&format!("\r{line}\x1b[K"));
        } else if told != Some(current) {
            told = Some(current);
            write(&format!("{}\n", line.trim_end()));
        }
    }
}

/// Takes the live line away.
pub(crate) fn clear() {
    if io::stderr().is_terminal() {
        write("\r\x1b[K");
    }
}

/// The share of the orders decided within the last second that were placed.
fn last_second(records: &Records, now: Duration) -> String {
    let mut decided = 0;
    let mut placed = 0;
    for sample in records.samples().iter().rev() {
        if sample.customer.comes + sample.took + Duration::from_secs(1) < now {
            break;
        }
        decided += 1;
        placed += u32::from(sample.ending == Ending::Placed);
    }
    match (placed * 100).checked_div(decided) {
        Some(share) => format!("{share:3} %"),
        None => "  – %".to_owned(),
    }
}

fn write(text: &str) {
    let mut stderr = io::stderr().lock();
    // Progress that cannot be shown is no reason to stop.
    drop(
        stderr
            .write_all(text.as_bytes())
            .and_then(|()| stderr.flush()),
    );
}
