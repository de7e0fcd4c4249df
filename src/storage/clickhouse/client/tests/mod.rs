//! The client against servers that do what a test tells them to.

mod breakers;
mod inserts;
mod reads;
mod server;
mod tls;

use std::{sync::Arc, time::Duration};

use self::server::{Answer, Request, Server};
use super::{endpoint::Patience, *};
use crate::{
    clock::{HandClock, SystemClock},
    model::Timestamp,
    storage::clickhouse::rowbinary::{Incomplete, Reader, Write},
};

/// A client of these servers.
fn client(addresses: &[String]) -> Servers {
    client_with(addresses, SystemClock::start(), |_| {})
}

fn client_with(
    addresses: &[String],
    clock: Arc<dyn Clock>,
    adjust: impl FnOnce(&mut ClickHouseConfig),
) -> Servers {
    let mut config = ClickHouseConfig::new("");
    config.addresses = addresses.to_vec();
    // What runs into it has failed: no test waits for it.
    config.query_timeout = Duration::from_secs(60);
    config.compression = false;
    adjust(&mut config);
    let patience = Patience {
        between: Duration::from_secs(30),
        look_up: Duration::from_millis(20),
        suspect: Duration::from_millis(200),
        probe: Duration::from_millis(200),
    };
    Servers::with_patience(&config, clock, patience).unwrap()
}

/// An address at which nobody listens.
fn nobody() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

fn still() -> Arc<HandClock> {
    HandClock::at(Timestamp(1_000_000))
}

fn numbers(numbers: impl IntoIterator<Item = u64>) -> Vec<u8> {
    let mut bytes = Vec::new();
    numbers.into_iter().for_each(|number| bytes.u64(number));
    bytes
}

fn number(reader: &mut Reader<'_>) -> Result<u64, Incomplete> {
    reader.u64()
}

async fn ask(servers: &Servers) -> Result<Vec<u64>, Failure> {
    servers.rows(&Statement::new("SELECT n")).await?.all(number).await
}

/// Waits until something is so.
async fn until(what: impl Fn() -> bool) {
    for _ in 0..6000 {
        if what() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it did not come about within a minute");
}

/// Answers probes and kills, and leaves the rest to `script`.
fn healthy(
    script: impl Fn(&Request, usize) -> Answer + Send + Sync + 'static,
) -> impl Fn(&Request, usize) -> Answer + Send + Sync + 'static {
    move |request, before| {
        if request.is_probe() || request.is_kill() {
            Answer::Whole(Vec::new())
        } else {
            script(request, before)
        }
    }
}
