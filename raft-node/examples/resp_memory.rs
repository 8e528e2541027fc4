//! The front end alone, before a store in memory: what `redis-benchmark` can get out of it when no log is waited for.
//!
//! `cargo run --release -p raft-node --example resp_memory -- 127.0.0.1:7400 [milliseconds a write waits]`

use std::{error::Error, time::Duration};

use raft_node::resp::{FrontEnd, Options, memory::MemoryBackend};
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let address = args.next().unwrap_or_else(|| "127.0.0.1:7400".to_owned());
    let delay = args.next().map_or(Ok(0), |text| text.parse())?;
    let listener = TcpListener::bind(&address).await?;
    let front =
        FrontEnd::start(listener, MemoryBackend::start(Duration::from_millis(delay)), Options::default())?;
    eprintln!("ready on {}", front.address());
    tokio::signal::ctrl_c().await?;
    front.shutdown(Duration::from_secs(1)).await;
    Ok(())
}
