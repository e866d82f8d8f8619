//! Hello through a standard stack with all parts.

#[path = "../hello.rs"]
mod hello;

use buttress::Rate;

fn main() {
    let stack = buttress::standard("hello")
        .concurrency_limit(100)
        .rate_limit(Rate::per_second(100), |limit| limit)
        .hedge(|hedge| hedge);
    hello::say(&stack.build().expect("is valid"), 1_u64, 2_u64);
}
