use std::time::Duration;

use buttress::reqwest::Client;
use buttress::{BoxError, ConfigError};
use reqwest::ClientBuilder;

fn search(builder: ClientBuilder) -> Result<Client, ConfigError> {
    buttress::reqwest::client("search")
        .timeout(Duration::from_millis(300)) // until the head of the response
        .deadline(Duration::from_secs(2)) // until the end of its body
        .concurrency_limit(50)
        .build(builder) // can prove that a request was not sent
}

async fn stock(search: &Client, url: &str) -> Result<String, BoxError> {
    let response = search.get(url).bearer_auth("t0ken").send().await?;
    Ok(response.text().await?)
}
