//! The way to the servers: statements out, rows in.

pub mod failure;
pub mod rows;
pub mod statement;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use clickhouse::Compression;
use hyper_util::{
    client::legacy::{Client as HttpClient, connect::HttpConnector},
    rt::TokioExecutor,
};

use super::{config::ClickHouseConfig, tables};
use crate::clock::Clock;
pub use failure::{Class, Failure};
pub use rows::Rows;
pub use statement::{Param, Statement};

/// The servers of one ClickHouse, any of which can answer.
#[derive(Debug)]
pub struct Servers {
    endpoints: Vec<Endpoint>,
    clock: Arc<dyn Clock>,
}

#[derive(Debug)]
struct Endpoint {
    client: clickhouse::Client,
}

/// Rows for one table, encoded once, so that they can be sent again as they are.
#[derive(Clone, Debug)]
pub struct Insert {
    /// Into what: `samples (tenant, mid, …)`.
    pub into: &'static str,
    /// The rows, in RowBinary.
    pub rows: Bytes,
    /// The server takes what carries the same token once.
    pub token: String,
}

impl Servers {
    /// Gets ready to speak to the servers; none is asked anything yet.
    pub fn new(config: &ClickHouseConfig, clock: Arc<dyn Clock>) -> crate::storage::Result<Self> {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(config.connect_timeout));
        connector.set_nodelay(true);
        let http = HttpClient::builder(TokioExecutor::new())
            .pool_idle_timeout(Duration::from_secs(2))
            .pool_max_idle_per_host(config.max_idle_connections)
            .build(connector);
        let endpoint = |address: &String| {
            let mut client = clickhouse::Client::with_http_client(http.clone())
                .with_url(address)
                .with_database(&config.database)
                .with_user(&config.username)
                .with_compression(if config.compression { Compression::Lz4 } else { Compression::None })
                .with_validation(false);
            if let Some(password) = &config.password {
                client = client.with_password(&password.0);
            }
            for (name, value) in tables::SETTINGS {
                client = client.with_setting(name, value);
            }
            Endpoint { client }
        };
        Ok(Self { endpoints: config.addresses.iter().map(endpoint).collect(), clock })
    }

    /// Asks for rows.
    pub async fn rows(&self, statement: &Statement) -> Result<Rows, Failure> {
        let mut query = self.endpoints[0].client.query_raw(&statement.sql);
        for (name, value) in &statement.params {
            query = query.param(name, value);
        }
        query = query.with_setting("cancel_http_readonly_queries_on_client_close", "1");
        for (name, value) in &statement.settings {
            query = query.with_setting(*name, value);
        }
        query.fetch_bytes("RowBinary").map(Rows::new).map_err(Failure::of)
    }

    /// Runs a statement that answers nothing.
    pub async fn run(&self, statement: &Statement) -> Result<(), Failure> {
        let mut query = self.endpoints[0].client.query_raw(&statement.sql);
        for (name, value) in &statement.params {
            query = query.param(name, value);
        }
        for (name, value) in &statement.settings {
            query = query.with_setting(*name, value);
        }
        query.execute().await.map_err(Failure::of)
    }

    /// Inserts rows; `Ok` means that they are durable.
    pub async fn insert(&self, insert: &Insert) -> Result<(), Failure> {
        let sql = format!("INSERT INTO {} FORMAT RowBinary", insert.into);
        let mut sending = self.endpoints[0]
            .client
            .insert_formatted_with(sql)
            .with_setting("insert_deduplication_token", &insert.token);
        sending.send(insert.rows.clone()).await.map_err(Failure::of)?;
        sending.end().await.map_err(Failure::of)
    }
}
