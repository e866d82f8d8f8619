//! Hello through a standard stack for HTTP with all parts.

#[path = "../hello.rs"]
mod hello;

use buttress::Rate;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;

fn main() {
    let stack = buttress::http::standard("hello")
        .concurrency_limit(100)
        .rate_limit(Rate::per_second(100), |limit| limit)
        .hedge(|hedge| hedge);
    let (request, response) = (
        Request::<Full<Bytes>>::default(),
        Response::<Full<Bytes>>::default(),
    );
    hello::say(&stack.build().expect("is valid"), request, response);
}
