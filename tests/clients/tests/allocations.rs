//! Allocations of a call through the client for reqwest. The allocator counts for the whole process, so this test has a
//! process of its own.

// Helpers of tests are tests.
#![allow(clippy::unwrap_used)]

use std::alloc::System;
use std::io::{Read, Write};
use std::net;
use std::thread;
use std::time::Duration;

use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Answers all requests without an allocation of its own.
fn answers() -> String {
    let listener = net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/stock", listener.local_addr().unwrap());
    thread::spawn(move || {
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\n12 bolts";
        // One connection after the other.
        for client in listener.incoming() {
            let mut client = client.unwrap();
            while client.read(&mut [0; 4_096]).is_ok_and(|read| read > 0) {
                client.write_all(answer).unwrap();
            }
        }
    });
    url
}

/// The least allocations of some calls: the first one opens a connection, and an answer may come in two parts.
async fn allocations<F: Future>(call: impl Fn() -> F) -> usize {
    let mut least = usize::MAX;
    for _ in 0..10 {
        let region = Region::new(ALLOCATOR);
        call().await;
        least = least.min(region.change().allocations);
    }
    least
}

#[tokio::test]
async fn a_call_through_the_client_for_reqwest_allocates_what_its_page_says() {
    let url = answers();
    let builder = || reqwest::Client::builder().no_proxy();
    let bare = builder().build().unwrap();
    let call = || async { bare.get(&url).send().await.unwrap().bytes().await.unwrap() };
    let of_reqwest = allocations(call).await;
    drop(bare);
    let web = buttress::reqwest::client("web").deadline(Duration::from_secs(60));
    let web = web.concurrency_limit(50).build(builder()).unwrap();
    let call = || async { web.get(&url).send().await.unwrap().bytes().await.unwrap() };
    let of_both = allocations(call).await;
    assert_eq!(of_both - of_reqwest, 22);
}
