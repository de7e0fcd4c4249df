//! Every route there is, and what it asks of its caller.
//!
//! This is the one list: the router is built from it, and a test walks all of it with every kind of caller.

use std::sync::Arc;

use axum::routing::{MethodRouter, delete, get, post};

use super::{
    State,
    access::Access,
    api::{
        active, admin, catalog, estimate, export, features, federate, health, import, limits, metrics,
        openapi, page, query, receive, remote_read, rules, search, status, targets, user_limits,
    },
};

/// Where a route is served, if operating the server has a listener of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// Only where everybody calls.
    Public,
    /// Only where the server is operated.
    Admin,
    /// On both.
    Both,
}

/// A route.
#[derive(Clone, Copy)]
pub struct Route {
    /// The path; `/api/v1/` stands for `/prometheus/api/v1/`, too.
    pub path: &'static str,
    /// Where it is served.
    pub door: Door,
    /// What it asks of its caller.
    pub access: Access,
    /// Whether it may take as long as it needs.
    pub unhurried: bool,
    /// Whether its body is never a form, and so for nobody but the route to read.
    pub own_body: bool,
    /// Its methods, and what each does.
    pub methods: fn() -> MethodRouter<Arc<State>>,
}

impl std::fmt::Debug for Route {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { path, door, access, unhurried, own_body, methods: _ } = self;
        let mut text = f.debug_struct("Route");
        text.field("path", path).field("door", door).field("access", access);
        text.field("unhurried", unhurried).field("own_body", own_body).finish()
    }
}

const fn route(
    path: &'static str,
    door: Door,
    access: Access,
    methods: fn() -> MethodRouter<Arc<State>>,
) -> Route {
    Route { path, door, access, unhurried: false, own_body: false, methods }
}

/// What carries as much as there is, and orders that take what they take.
const fn unhurried(route: Route) -> Route {
    Route { unhurried: true, ..route }
}

/// What is sent something else than a form.
const fn own_body(route: Route) -> Route {
    Route { own_body: true, ..route }
}

/// All routes.
pub const ROUTES: &[Route] = &[
    // Samples in.
    own_body(route("/api/v1/write", Door::Public, Access::Write, || post(receive::samples))),
    own_body(route("/api/v1/push", Door::Public, Access::Write, || post(receive::samples))),
    own_body(route("/api/v1/receive", Door::Public, Access::Write, || post(receive::samples))),
    own_body(unhurried(route("/api/v1/import", Door::Public, Access::Write, || post(import::import)))),
    // Questions.
    route("/api/v1/query", Door::Public, Access::Read, || get(query::instant).post(query::instant)),
    route("/api/v1/query_range", Door::Public, Access::Read, || get(query::range).post(query::range)),
    route("/api/v1/query/estimate", Door::Public, Access::Read, || {
        get(estimate::estimate).post(estimate::estimate)
    }),
    route("/api/v1/query_exemplars", Door::Public, Access::Read, || {
        get(query::exemplars).post(query::exemplars)
    }),
    route("/api/v1/series", Door::Public, Access::Read, || get(catalog::series).post(catalog::series)),
    route("/api/v1/labels", Door::Public, Access::Read, || {
        get(catalog::label_names).post(catalog::label_names)
    }),
    route("/api/v1/label/{name}/values", Door::Public, Access::Read, || get(catalog::label_values)),
    route("/api/v1/search/metric_names", Door::Public, Access::Read, || {
        get(search::metric_names).post(search::metric_names)
    }),
    route("/api/v1/search/label_names", Door::Public, Access::Read, || {
        get(search::label_names).post(search::label_names)
    }),
    route("/api/v1/search/label_values", Door::Public, Access::Read, || {
        get(search::label_values).post(search::label_values)
    }),
    route("/api/v1/metadata", Door::Public, Access::Read, || get(catalog::metadata)),
    unhurried(route("/api/v1/export", Door::Public, Access::Read, || {
        get(export::export).post(export::export)
    })),
    route("/api/v1/export/plan", Door::Public, Access::Read, || get(export::plan).post(export::plan)),
    own_body(unhurried(route("/api/v1/read", Door::Public, Access::Read, || post(remote_read::read)))),
    route("/federate", Door::Public, Access::Read, || get(federate::newest)),
    route("/api/v1/status/rejections", Door::Public, Access::Read, || get(limits::rejections)),
    route("/api/v1/status/active_queries", Door::Public, Access::Read, || get(active::list)),
    route("/api/v1/status/active_queries/{id}", Door::Public, Access::Read, || delete(active::cancel)),
    route("/api/v1/status/top_queries", Door::Public, Access::Read, || get(active::top)),
    route("/api/v1/status/tsdb", Door::Public, Access::Read, || get(status::tsdb)),
    route("/api/v1/format_query", Door::Public, Access::Known, || get(query::format).post(query::format)),
    route("/api/v1/parse_query", Door::Public, Access::Known, || get(query::parse).post(query::parse)),
    route("/api/v1/rules", Door::Public, Access::Known, || get(rules::groups)),
    route("/api/v1/alerts", Door::Public, Access::Known, || get(rules::alerts)),
    route("/api/v1/alertmanagers", Door::Public, Access::Known, || get(rules::alertmanagers)),
    route("/api/v1/targets", Door::Public, Access::Known, || get(targets::targets)),
    route("/api/v1/targets/metadata", Door::Public, Access::Known, || get(targets::metadata)),
    route("/api/v1/scrape_pools", Door::Public, Access::Known, || get(targets::pools)),
    route("/api/v1/notifications", Door::Public, Access::Known, || get(status::notifications)),
    route("/api/v1/notifications/live", Door::Public, Access::Known, || get(status::live_notifications)),
    route("/api/v1/features", Door::Public, Access::Read, || get(features::features)),
    route("/api/v1/openapi.yaml", Door::Both, Access::Known, || get(openapi::description)),
    route("/api/v1/user_limits", Door::Both, Access::Known, || get(user_limits::of_caller)),
    route("/api/v1/status/buildinfo", Door::Both, Access::Known, || get(status::build_info)),
    // Orders.
    unhurried(route("/api/v1/admin/tsdb/delete_series", Door::Both, Access::Delete, || {
        post(admin::delete_series).put(admin::delete_series)
    })),
    unhurried(route("/api/v1/admin/tsdb/clean_tombstones", Door::Both, Access::Delete, || {
        post(admin::clean_tombstones).put(admin::clean_tombstones)
    })),
    unhurried(route("/api/v1/admin/tsdb/flush", Door::Admin, Access::Admin, || post(admin::flush))),
    unhurried(route("/api/v1/admin/tsdb/snapshot", Door::Both, Access::Admin, || {
        post(admin::snapshot).put(admin::snapshot)
    })),
    route("/api/v1/user-overrides", Door::Both, Access::Admin, || {
        get(user_limits::overrides).post(user_limits::set_overrides).delete(user_limits::remove_overrides)
    }),
    unhurried(route("/-/reload", Door::Admin, Access::Admin, || post(admin::reload).put(admin::reload))),
    route("/api/v1/admin/active_queries", Door::Admin, Access::Admin, || get(active::list_all)),
    route("/api/v1/admin/active_queries/{id}", Door::Admin, Access::Admin, || delete(active::cancel_any)),
    route("/api/v1/status/config", Door::Admin, Access::Admin, || get(status::config)),
    route("/api/v1/status/runtimeinfo", Door::Admin, Access::Admin, || get(status::runtime_info)),
    route("/api/v1/status/walreplay", Door::Admin, Access::Admin, || get(status::wal_replay)),
    route("/api/v1/status/storage", Door::Admin, Access::Admin, || get(status::storage)),
    route("/health/deep", Door::Admin, Access::Watch, || get(health::deep)),
    route("/metrics", Door::Admin, Access::Watch, || get(metrics::render)),
    // For probes.
    route("/api/v1/health", Door::Both, Access::Open, || get(health::report)),
    route("/-/healthy", Door::Both, Access::Open, || get(health::healthy)),
    route("/-/ready", Door::Both, Access::Open, || get(health::ready)),
    route("/health/live", Door::Both, Access::Open, || get(health::healthy)),
    route("/health/ready", Door::Both, Access::Open, || get(health::ready)),
    route("/health/startup", Door::Both, Access::Open, || get(health::started)),
    route("/", Door::Public, Access::Open, || get(page::home)),
];
