//! Luminate keeps metrics and answers PromQL over them.
//!
//! # One write
//!
//! 1. A connection is taken by [`gateway::listener`], which bounds what a stranger can cost: connections,
//!    heads, bodies, silence.
//! 2. [`gateway::router`](mod@gateway::router) gives the request an id and a place in the counters, and keeps web
//!    pages out. [`gateway::access`] finds out who sends it ([`gateway::auth`]: a token, a key, a certificate), for
//!    which tenant, and whether they may; [`gateway::limit`] whether there is anything left of what the tenant may
//!    use. All of that needs no more than the head. `POST /api/v1/write` ends in [`gateway::api::write`], which
//!    settles the protocol's version and hands the body on as bytes, and the caller as a
//!    [`Sender`](ingest::Sender).
//! 3. [`ingest`] looks at the size the body declares before it decompresses it, walks over the protobuf
//!    in place, and looks each series up by the bytes of its labels. A known series costs a hash; a new
//!    one is read, stamped with its sender's labels, checked against the limits and becomes
//!    [`Labels`](model::Labels). Good samples go on when others are bad.
//! 4. [`Storage::append`](storage::Storage::append) gets a [`WriteBatch`](storage::WriteBatch). The embedded
//!    engine ([`storage::embedded`]) puts its samples into the head, in memory, and its records into the
//!    log, where one `fdatasync` serves all writers that wait for it. Over ClickHouse
//!    ([`storage::clickhouse`]) the rows of many requests become one insert, and each waits for it.
//! 5. Only then is the answer `204`, or `400` with what was refused and why; `429` if a limit was in the way and the
//!    same may be sent again.
//!
//! Later the embedded head is flushed into immutable parts, a day each, and the log behind it is dropped.
//! An import ([`ingest::Import`]) goes the same way, some lines at a time.
//!
//! # One query
//!
//! 1. `GET /api/v1/query_range` comes the same way and ends in [`gateway::api::query`], which reads the parameters. Who
//!    asks is a [`Reader`](query::Reader): a [`View`](storage::View) of what they may see, and the limits that hold.
//! 2. [`query`] checks them, and lets as many queries in as the machine has room for, tenants in turn; the others
//!    wait within their timeout.
//! 3. [`promql`] makes a tree of the text, a plan of the tree, and asks the view for what the plan needs; that asks
//!    [`Storage::select`](storage::Storage::select) of each tenant, with the filters of whoever asks.
//! 4. The engine finds the series by its indexes of label values and answers with their labels; samples
//!    are decoded when they are read, merged from head and parts. ClickHouse streams them in order of time,
//!    or computes with them itself what the plan offers and it is proven to do alike.
//! 5. The plan is evaluated series by series over dense rows of steps, off the threads that serve
//!    connections unless it is over at once.
//! 6. [`gateway::wire`] writes the answer as Prometheus would.
//!
//! An export ([`query::Export`]) asks for slices of time one after another instead, and writes them as they
//! come; `luminate export` and `luminate import` ([`cli`]) make a move of it. A remote read ([`query::remote_read`])
//! goes series by series, for those who compute themselves.
//!
//! # What holds everywhere
//!
//! * **Calls go down**: [`gateway`], then [`ingest`] or [`query`], then [`promql`], then [`storage`]; [`model`]
//!   lies under all and does no I/O. `tests/it/layers.rs` reads the source and fails otherwise.
//! * **Only [`gateway`] knows HTTP**, as a server. Below it there are no status codes, headers or JSON.
//! * **Only [`app`] names a backend.** Everyone else holds an `Arc<dyn Storage>`.
//! * **Nothing below [`cli`] reads the clock or rolls dice.** Time comes in through a
//!   [`Clock`](clock::Clock), randomness as [`Seeds`](app::Seeds).
//! * **Every call for samples or labels names a tenant.** There is no way to read those of all.
//! * **Only [`gateway::access`] makes a `Sender` or a `Reader`**, and handlers of tenants' data take nothing else.
//! * **What was acknowledged is durable.** There is no state in which an answer runs ahead of the disk, or
//!   of ClickHouse's word, unless `storage.embedded.wal.sync` says that it may.

pub mod gateway;

pub mod ingest;
pub mod query;

pub mod promql;

pub mod storage;

pub mod model;

pub mod app;
pub mod cli;
pub mod clock;
pub mod config;
pub mod self_scrape;
pub mod task;
pub mod telemetry;
