//! The experiments, one module for each. A new one is a module here, a line in [`EXPERIMENTS`] and
//! a test in `tests/effectiveness.rs`.

pub(crate) mod deploy;
pub(crate) mod smaller;
pub(crate) mod x10_overload;
pub(crate) mod x11_rate_limit;
pub(crate) mod x12_everything;
pub(crate) mod x13_zone_lost;
pub(crate) mod x14_hedged_balancer;
pub(crate) mod x15_small_clients;
pub(crate) mod x16_adaptive_start;
pub(crate) mod x17_weights;
pub(crate) mod x18_coming_back;
pub(crate) mod x18_ejected;
pub(crate) mod x19_shedding;
pub(crate) mod x1_hedging;
pub(crate) mod x2_backoff;
pub(crate) mod x3_slow_replica;
pub(crate) mod x4_unequal_servers;
pub(crate) mod x5_two_choices;
pub(crate) mod x6_fails_fast;
pub(crate) mod x7_metastable;
pub(crate) mod x8_budget;
pub(crate) mod x9_breaker;

use crate::harness::{Form, Report};

pub(crate) struct Experiment {
    pub(crate) name: &'static str,
    pub(crate) run: fn(Form) -> Report,
}

pub(crate) const EXPERIMENTS: &[Experiment] = &[
    Experiment {
        name: "x1",
        run: x1_hedging::run,
    },
    Experiment {
        name: "x2",
        run: x2_backoff::run,
    },
    Experiment {
        name: "x3",
        run: x3_slow_replica::run,
    },
    Experiment {
        name: "x4",
        run: x4_unequal_servers::run,
    },
    Experiment {
        name: "x5",
        run: x5_two_choices::run,
    },
    Experiment {
        name: "x6",
        run: x6_fails_fast::run,
    },
    Experiment {
        name: "x7",
        run: x7_metastable::run,
    },
    Experiment {
        name: "x8",
        run: x8_budget::run,
    },
    Experiment {
        name: "x9",
        run: x9_breaker::run,
    },
    Experiment {
        name: "x10",
        run: x10_overload::run,
    },
    Experiment {
        name: "x11",
        run: x11_rate_limit::run,
    },
    Experiment {
        name: "x12",
        run: x12_everything::run,
    },
    Experiment {
        name: "x13",
        run: x13_zone_lost::run,
    },
    Experiment {
        name: "x14",
        run: x14_hedged_balancer::run,
    },
    Experiment {
        name: "x15",
        run: x15_small_clients::run,
    },
    Experiment {
        name: "x16",
        run: x16_adaptive_start::run,
    },
    Experiment {
        name: "x17",
        run: x17_weights::run,
    },
    Experiment {
        name: "x18",
        run: x18_coming_back::run,
    },
    Experiment {
        name: "x18a",
        run: x18_ejected::run,
    },
    Experiment {
        name: "x19",
        run: x19_shedding::run,
    },
    Experiment {
        name: "smaller",
        run: smaller::run,
    },
    Experiment {
        name: "deploy",
        run: deploy::run,
    },
];
