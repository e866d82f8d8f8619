//! The files of `src/algorithm` that have models, over the atomics and locks of loom.

#[path = "../../src/algorithm/breaker/mod.rs"]
pub(crate) mod breaker;
#[path = "../../src/algorithm/budget.rs"]
pub(crate) mod budget;
#[path = "../../src/algorithm/drain.rs"]
pub(crate) mod drain;
#[path = "../../src/algorithm/evidence.rs"]
pub(crate) mod evidence;
#[path = "../../src/algorithm/gcra.rs"]
pub(crate) mod gcra;
#[path = "../../src/algorithm/load.rs"]
pub(crate) mod load;
#[path = "../../src/algorithm/outlier.rs"]
pub(crate) mod outlier;
#[path = "../../src/algorithm/queue.rs"]
pub(crate) mod queue;
#[path = "../../src/algorithm/rate.rs"]
pub(crate) mod rate;
#[path = "../../src/algorithm/sketch.rs"]
pub(crate) mod sketch;
#[path = "../../src/algorithm/window.rs"]
pub(crate) mod window;
