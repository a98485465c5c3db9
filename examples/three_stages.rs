//! Three requests, each of which needs the answer of the one before, as a coroutine. What
//! `three_stages_callbacks` spreads over four functions is read here from top to bottom.
//!
//! `cargo run --example three_stages`

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout)]

use std::time::Duration;

const LATENCY: Duration = Duration::from_millis(20);

async fn api_call(request: String) -> String {
    println!("requested {request}");
    tulipa::sleep(LATENCY).await;
    format!("<{request}>")
}

#[tulipa::main]
async fn main() {
    let response1 = api_call("step 1".to_owned()).await;
    let response2 = api_call(format!("step 2 of {response1}")).await;
    let response3 = api_call(format!("step 3 of {response2}")).await;
    println!("answer {response3}");
}
