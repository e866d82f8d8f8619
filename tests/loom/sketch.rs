//! The sketch of how long calls take.

use std::time::Duration;

use loom::sync::Arc;

use crate::algorithm::sketch::{Settings, Sketch, Took};
use crate::{SECOND, on_threads};

/// A tick is a second. Two buckets, because each cell that is collected is a step of the model.
fn sketch() -> Arc<Sketch<2>> {
    let settings = Settings {
        window: Duration::from_secs(30),
        quantile: 0.5,
        min_samples: 1,
        slowdown: 2.0,
    };
    Arc::new(Sketch::new(settings, 1))
}

fn record(sketch: &Sketch<2>) {
    sketch.record(0, Took::Exactly(Duration::ZERO));
}

pub(crate) fn a_call_is_collected_once() {
    let sketch = sketch();
    record(&sketch);
    on_threads(&sketch, [true, false], |sketch, collects| {
        if collects {
            assert!(sketch.keep(SECOND));
        } else {
            record(sketch);
        }
    });
    let first = sketch.recent_calls();
    assert!(sketch.keep(2 * SECOND));
    assert_eq!((first + sketch.recent_calls(), sketch.calls()), (2, 2));
}

pub(crate) fn a_tick_is_collected_once() {
    let sketch = sketch();
    record(&sketch);
    let collected = on_threads(&sketch, [SECOND; 2], Sketch::keep);
    assert_eq!(collected.into_iter().filter(|kept| *kept).count(), 1);
    assert_eq!(sketch.recent_calls(), 1);
}
