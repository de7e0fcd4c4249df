//! Requests that nobody would think of: every endpoint that reads, with selectors, names and headers put together by
//! chance of what is there, what is not, and what attackers write.

use luminate::gateway::wire::remote_read::{LabelMatcher, Query, ReadRequest};
use prost::Message as _;

use super::{
    data::{Owner, STEP, TEAMS, TENANTS},
    target::Ask,
};

/// Numbers that are the same for the same seed.
#[derive(Debug)]
pub struct Dice(pub u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    pub fn one_in(&mut self, of: usize) -> bool {
        self.below(of) == 0
    }

    pub fn pick<'a, T: ?Sized>(&mut self, of: &[&'a T]) -> &'a T {
        of[self.below(of.len())]
    }
}

/// What is written into statements by those who hope that somebody forgot to bind them.
const INJECTIONS: [&str; 12] = [
    "' OR 1=1 --",
    "') OR tenant != ('",
    "x' UNION SELECT help FROM metadata --",
    "\\'; DROP TABLE series; --",
    "{tenant:String}",
    "\" or \"1\"=\"1",
    "%27%20OR%201",
    "\u{0}\u{1}\n\r\t",
    "../../zq-beta",
    "zq\u{2d}beta",
    "zq-beta|zq-gamma",
    "*",
];

/// A request, all that it says, and the path of its route.
#[derive(Debug)]
pub struct Made {
    pub ask: Ask,
    pub said: String,
    pub route: &'static str,
}

/// Makes requests.
#[derive(Debug)]
pub struct Maker {
    pub dice: Dice,
    /// When the newest samples are, in milliseconds.
    pub end: i64,
}

/// Routes that read or answer whoever is known; the test sees to it that none is missing.
pub const READS: [&str; 34] = [
    "/api/v1/query",
    "/api/v1/query_range",
    "/api/v1/query_exemplars",
    "/api/v1/series",
    "/api/v1/labels",
    "/api/v1/label/{name}/values",
    "/api/v1/metadata",
    "/api/v1/export",
    "/api/v1/search/metric_names",
    "/api/v1/search/label_names",
    "/api/v1/search/label_values",
    "/api/v1/query/estimate",
    "/api/v1/export/plan",
    "/api/v1/read",
    "/federate",
    "/api/v1/status/rejections",
    "/api/v1/status/tsdb",
    "/api/v1/status/active_queries",
    "/api/v1/status/active_queries/{id}",
    "/api/v1/status/top_queries",
    "/api/v1/format_query",
    "/api/v1/rules",
    "/api/v1/alerts",
    "/api/v1/status/buildinfo",
    "/api/v1/user_limits",
    "/api/v1/parse_query",
    "/api/v1/alertmanagers",
    "/api/v1/targets",
    "/api/v1/targets/metadata",
    "/api/v1/scrape_pools",
    "/api/v1/notifications",
    "/api/v1/notifications/live",
    "/api/v1/features",
    "/api/v1/openapi.yaml",
];

impl Maker {
    /// A request for one of the routes; the caller adds who asks.
    pub fn make(&mut self) -> Made {
        let route = self.dice.pick(&READS);
        // The first ones have more to tell.
        let route = if self.dice.one_in(3) { route } else { READS[self.dice.below(17)] };
        let mut params: Vec<(String, String)> = Vec::new();
        let mut path = route.to_owned();
        match route {
            "/api/v1/read" => return self.remote_read(route, path),
            "/api/v1/query" => {
                params.push(("query".to_owned(), self.query(3)));
                params.push(("time".to_owned(), self.time()));
            }
            "/api/v1/query_range" => {
                params.push(("query".to_owned(), self.query(2)));
                params.push(("start".to_owned(), seconds(self.end - 4 * STEP)));
                params.push(("end".to_owned(), seconds(self.end)));
                params.push(("step".to_owned(), self.dice.pick(&["15s", "1m", "30", "0"]).to_owned()));
            }
            "/api/v1/query_exemplars" => {
                params.push(("query".to_owned(), self.query(1)));
                params.push(("start".to_owned(), seconds(self.end - 40 * STEP)));
                params.push(("end".to_owned(), seconds(self.end)));
            }
            "/api/v1/label/{name}/values" => {
                let name = self.label();
                path = path.replace("{name}", &percent(&name));
                params.push(("said".to_owned(), name));
                self.matches(&mut params, 0);
            }
            "/api/v1/metadata" => {
                if self.dice.one_in(2) {
                    params.push(("metric".to_owned(), self.metric()));
                }
                if self.dice.one_in(3) {
                    params.push(("limit_per_metric".to_owned(), "1".to_owned()));
                }
            }
            "/api/v1/export" | "/api/v1/export/plan" => {
                self.matches(&mut params, 1);
                for (name, of) in [("exact", 2), ("summary", 4), ("bare", 6)] {
                    if self.dice.one_in(of) {
                        params.push((name.to_owned(), "1".to_owned()));
                    }
                }
                if self.dice.one_in(4) {
                    params.push(("shard".to_owned(), self.dice.pick(&["1/2", "2/2", "3/2"]).to_owned()));
                }
                if self.dice.one_in(2) {
                    params.push(("slice".to_owned(), self.dice.pick(&["1d", "1h", "15s", "0"]).to_owned()));
                }
            }
            "/api/v1/format_query" | "/api/v1/parse_query" => {
                params.push(("query".to_owned(), self.query(2)))
            }
            "/api/v1/targets/metadata" => params.push(("match_target".to_owned(), self.selector())),
            "/api/v1/series" | "/federate" => self.matches(&mut params, 1),
            "/api/v1/status/active_queries/{id}" => path = path.replace("{id}", "0123456789abcdef"),
            "/api/v1/query/estimate" => {
                params.push(("query".to_owned(), self.query(2)));
                if self.dice.one_in(2) {
                    params.push(("start".to_owned(), seconds(self.end - 4 * STEP)));
                    params.push(("end".to_owned(), seconds(self.end)));
                    params.push(("step".to_owned(), "15s".to_owned()));
                } else {
                    params.push(("time".to_owned(), self.time()));
                }
            }
            "/api/v1/search/metric_names" | "/api/v1/search/label_names" | "/api/v1/search/label_values" => {
                self.matches(&mut params, 0);
                if route.ends_with("values") {
                    params.push(("label".to_owned(), self.label()));
                }
                for _ in 0..self.dice.below(3) {
                    let text = self.dice.pick(&["z", "q", "alp", "red", "total", "", "_"]).to_owned();
                    params.push(("search[]".to_owned(), text));
                }
                for (name, values) in [
                    ("fuzz_alg", &["subsequence", "jarowinkler"][..]),
                    ("fuzz_threshold", &["0", "1", "60"]),
                    ("sort_by", &["alpha", "score"]),
                    ("include_score", &["true", "false"]),
                    ("include_metadata", &["true", "1"]),
                    ("batch_size", &["1", "3"]),
                ] {
                    if self.dice.one_in(3) {
                        params.push((name.to_owned(), self.dice.pick(values).to_owned()));
                    }
                }
            }
            _ => self.matches(&mut params, 0),
        }
        if self.dice.one_in(4) {
            params.push(("limit".to_owned(), self.dice.pick(&["1", "2", "3", "0", "-1", "x"]).to_owned()));
        }
        if self.dice.one_in(8) {
            params.push(("stats".to_owned(), "all".to_owned()));
        }
        // What narrows, and nothing else.
        if self.dice.one_in(5) {
            params.push(("extra_filters[]".to_owned(), self.selector()));
        }
        if self.dice.one_in(6) {
            let label = format!("{}={}", self.label(), self.value());
            params.push(("extra_label".to_owned(), label));
        }
        if self.dice.one_in(8) {
            // What others would take for more rights.
            let name =
                self.dice.pick(&["extra_filters[]", "extra_label", "tenant", "match", "X-Scope-OrgID", "db"]);
            params.push((name.to_owned(), self.value()));
        }
        self.finish(route, path, &params)
    }

    /// A remote read, for samples or for chunks.
    fn remote_read(&mut self, route: &'static str, path: String) -> Made {
        let mut said = String::new();
        let mut queries = Vec::new();
        for _ in 0..1 + self.dice.below(3) {
            let mut matchers = Vec::new();
            for _ in 0..self.dice.below(4) {
                let kind = self.dice.below(4);
                let (name, value) = (self.label(), if kind < 2 { self.value() } else { self.pattern() });
                said.push_str(&format!("{name}={value}\n"));
                matchers.push(LabelMatcher { kind: i32::try_from(kind).unwrap(), name, value });
            }
            queries.push(Query {
                start_timestamp_ms: self.end - 40 * STEP,
                end_timestamp_ms: self.end,
                matchers,
                hints: None,
            });
        }
        let accepted_response_types = if self.dice.one_in(2) { vec![1] } else { vec![] };
        let plain = ReadRequest { queries, accepted_response_types }.encode_to_vec();
        let body = snap::raw::Encoder::new().compress_vec(&plain).unwrap();
        Made { ask: Ask { method: "POST", path, headers: Vec::new(), body }, said, route }
    }

    fn finish(&mut self, route: &'static str, mut path: String, params: &[(String, String)]) -> Made {
        if self.dice.one_in(4) {
            path = format!("/prometheus{path}");
        }
        let form: Vec<String> =
            params.iter().map(|(name, value)| format!("{}={}", percent(name), percent(value))).collect();
        let form = form.join("&");
        let takes_post = !matches!(
            route,
            "/api/v1/label/{name}/values"
                | "/api/v1/metadata"
                | "/api/v1/status/tsdb"
                | "/api/v1/rules"
                | "/federate"
                | "/api/v1/targets/metadata"
        );
        let mut ask = Ask { method: "GET", path, headers: Vec::new(), body: Vec::new() };
        if takes_post && self.dice.one_in(3) {
            ask.method = "POST";
            ask.headers.push(("Content-Type", "application/x-www-form-urlencoded".to_owned()));
            ask.body = form.into_bytes();
        } else {
            ask.path = format!("{}?{form}", ask.path);
        }
        let said = params.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
        Made { ask, said, route }
    }

    fn time(&mut self) -> String {
        let back = self.dice.below(6) as i64 * STEP;
        seconds(self.end - back)
    }

    fn matches(&mut self, params: &mut Vec<(String, String)>, least: usize) {
        for _ in 0..least + self.dice.below(3) {
            params.push(("match[]".to_owned(), self.selector()));
        }
    }

    /// An expression, which may be wrong.
    fn query(&mut self, depth: usize) -> String {
        let text = self.expression(depth);
        if self.dice.one_in(25) {
            let cut = text.floor_char_boundary(self.dice.below(text.len() + 1));
            text[..cut].to_owned()
        } else {
            text
        }
    }

    fn expression(&mut self, depth: usize) -> String {
        if depth == 0 {
            return self.selector();
        }
        let one = self.expression(depth - 1);
        let plain = self.selector();
        let label = self.label();
        let quoted = format!("{label:?}");
        match self.dice.below(22) {
            0 | 1 => one,
            2 => format!("sum({one})"),
            3 => format!("sum by ({quoted}) ({one})"),
            4 => format!("count without ({quoted}) ({one})"),
            5 => format!("count_values(\"found\", {one})"),
            6 => format!("topk(3, {one})"),
            7 => format!("label_replace({one}, \"copied\", \"$1\", {quoted}, \"(.*)\")"),
            8 => format!("label_join({one}, \"joined\", \"-\", {quoted}, \"zone\", \"__tenant_id__\")"),
            9 => format!("{one} or {plain}"),
            10 => format!("{one} unless {plain}"),
            // Whose error names what it met.
            11 => format!("{plain} * on (team) group_left ({quoted}) {one}"),
            12 => format!("{one} / on () {plain}"),
            13 => format!("rate({plain}[1m])"),
            14 => format!("max_over_time({plain}[2m:15s])"),
            15 => format!("absent({plain})"),
            16 => format!("info({plain}, {})", self.braces()),
            17 => format!("histogram_quantile(0.9, {plain})"),
            18 => format!("sort_by_label({one}, {quoted})"),
            19 => format!("{plain} @ end() offset 15s"),
            20 => format!("group by (__tenant_id__, team) ({one})"),
            _ => format!("last_over_time({plain}[1m]) + on (zone, team) {one}"),
        }
    }

    fn selector(&mut self) -> String {
        if self.dice.one_in(3) {
            return self
                .dice
                .pick(&["shared_total", "target_info", "labelled", "dup", "native", "claimed"])
                .to_owned();
        }
        self.braces()
    }

    fn braces(&mut self) -> String {
        let mut matchers = Vec::new();
        for _ in 0..1 + self.dice.below(3) {
            let op = self.dice.pick(&["=", "!=", "=~", "!~"]);
            let value = if op.contains('~') { self.pattern() } else { self.value() };
            matchers.push(format!("{:?}{op}{value:?}", self.label()));
        }
        if self.dice.one_in(2) {
            let name = self.pattern();
            matchers.push(format!("__name__=~{name:?}"));
        }
        if self.dice.one_in(2) {
            matchers.push("__name__!=\"\"".to_owned());
        }
        format!("{{{}}}", matchers.join(","))
    }

    fn label(&mut self) -> String {
        match self.dice.below(8) {
            0 => format!("{}_label", self.mark()),
            1 => self.dice.pick(&INJECTIONS).to_owned(),
            2 => self
                .dice
                .pick(&["__tenant_id__", "original___tenant_id__", "original_original___tenant_id__"])
                .to_owned(),
            _ => self
                .dice
                .pick(&["__name__", "team", "zone", "instance", "job", "version", "le", "nothing"])
                .to_owned(),
        }
    }

    fn metric(&mut self) -> String {
        match self.dice.below(4) {
            0 => format!("{}_gauge", self.mark()),
            1 => self.value(),
            _ => self.dice.pick(&["shared", "shared_total", "labelled", "native"]).to_owned(),
        }
    }

    fn value(&mut self) -> String {
        match self.dice.below(8) {
            0 | 1 => self.mark(),
            2 => self.dice.pick(&INJECTIONS).to_owned(),
            3 => self.dice.pick(&TENANTS).to_owned(),
            4 => self.dice.pick(&TEAMS).to_owned(),
            5 => String::new(),
            _ => self.dice.pick(&["z", "i1", "j", "x", "shared_total", "0.1", "zqforged"]).to_owned(),
        }
    }

    /// What matches marks without saying them, so that they can only be in the answer if they leak.
    fn pattern(&mut self) -> String {
        match self.dice.below(8) {
            0 => self.mark().replacen("zq", "[z]q", 1),
            1 => self.mark().replacen("zq", "z.", 1) + ".*",
            2 => self.value(),
            _ => self
                .dice
                .pick(&[".*", ".+", "z.+", "zq-[bg].*", "red|blue|", "(?i)ZQ.*", "[a-z]+_?[a-z]*", ""])
                .to_owned(),
        }
    }

    fn mark(&mut self) -> String {
        Owner { tenant: self.dice.below(TENANTS.len()), team: self.dice.below(TEAMS.len()) }.mark()
    }
}

/// A time as the API takes it.
pub fn seconds(ms: i64) -> String {
    format!("{}.{:03}", ms / 1000, ms % 1000)
}

/// Everything but letters and digits as its bytes.
pub fn percent(text: &str) -> String {
    let one = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'.' | b'-' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(one).collect()
}
