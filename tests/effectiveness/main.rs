//! The short form of `benches/effectiveness`: each experiment with few seeds and short runs, held
//! to the same goals.

#[path = "../../benches/effectiveness/experiments/mod.rs"]
mod experiments;
#[path = "../../benches/effectiveness/harness/mod.rs"]
mod harness;

use experiments::EXPERIMENTS;
use harness::Form;

#[test]
fn x1_hedging() {
    meets_its_goals("x1");
}

#[test]
fn x2_backoff_under_contention() {
    meets_its_goals("x2");
}

#[test]
fn x3_one_slow_replica() {
    meets_its_goals("x3");
}

#[test]
fn x4_ten_unequal_servers() {
    meets_its_goals("x4");
}

#[test]
fn x5_power_of_two_choices() {
    meets_its_goals("x5");
}

#[test]
fn x6_an_endpoint_that_fails_fast() {
    meets_its_goals("x6");
}

#[test]
fn x7_metastable_failure() {
    meets_its_goals("x7");
}

#[test]
fn x8_retry_budgets() {
    meets_its_goals("x8");
}

#[test]
fn x9_circuit_breaker_leak_against_recovery() {
    meets_its_goals("x9");
}

#[test]
fn x10_overload() {
    meets_its_goals("x10");
}

#[test]
fn x11_rate_limit_bounds() {
    meets_its_goals("x11");
}

#[test]
fn x12_everything_at_once() {
    meets_its_goals("x12");
}

#[test]
fn x13_a_zone_is_lost() {
    meets_its_goals("x13");
}

#[test]
fn x18_an_endpoint_comes_back_from_failure() {
    meets_its_goals("x18a");
}

#[test]
fn x14_hedging_over_a_balancer() {
    meets_its_goals("x14");
}

#[test]
fn x17_weights() {
    meets_its_goals("x17");
}

#[test]
fn x18_coming_back() {
    meets_its_goals("x18");
}

#[test]
fn x19_shedding() {
    meets_its_goals("x19");
}

#[test]
fn x15_small_clients() {
    meets_its_goals("x15");
}

#[test]
fn x16_adaptive_start() {
    meets_its_goals("x16");
}

#[test]
fn smaller_questions() {
    meets_its_goals("smaller");
}

#[test]
fn rolling_deploy() {
    meets_its_goals("deploy");
}

fn meets_its_goals(name: &str) {
    let experiment = EXPERIMENTS
        .iter()
        .find(|experiment| experiment.name == name)
        .expect("there is such an experiment");
    let report = (experiment.run)(Form::Short);
    assert_eq!(report.missed(), 0, "\n{report}");
}
