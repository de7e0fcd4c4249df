//! Three ways in for programs as they are: Debian's Prometheus writes, and Grafana's requests read, with a bearer
//! token, with an API key as a password, and with a client's certificate.

use std::fs;

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::Value;

use crate::{
    certificates::{Authority, Client, with_tls},
    grafana::{self, Times, Verdict},
    keys,
    patience::wait_for,
    prometheus::Prometheus,
    server::{Server, have, now_ms},
    token,
};

/// A tenant, and how a client that acts for it is let in.
struct Way {
    tenant: &'static str,
    client: Client,
    authorization: Option<String>,
}

impl Way {
    fn ask(
        &self,
        port: u16,
        (method, path, params): (&str, &str, &str),
        more: &[(&str, &str)],
    ) -> (u16, String) {
        let mut headers = more.to_vec();
        headers.extend(self.authorization.as_deref().map(|shown| ("Authorization", shown)));
        let asked = if method == "GET" {
            self.client.send(port, method, &format!("{path}?{params}"), &headers, b"")
        } else {
            headers.push(("Content-Type", "application/x-www-form-urlencoded"));
            self.client.send(port, method, path, &headers, params.as_bytes())
        };
        asked.unwrap_or_else(|error| panic!("{}: {method} {path}?{params}: {error}", self.tenant))
    }

    /// `data` of the answer.
    fn data(&self, port: u16, request: (&str, &str, &str)) -> Value {
        let (status, body) = self.ask(port, request, &[]);
        assert_eq!(status, 200, "{}: {request:?}: {body}", self.tenant);
        let answer: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(answer["status"], "success", "{}: {request:?}: {body}", self.tenant);
        answer["data"].clone()
    }
}

#[test]
fn prometheus_writes_and_grafana_reads_by_a_token_by_a_password_and_by_a_certificate() {
    if !have("prometheus") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name).display().to_string();
    let authority = Authority::new("of the test");
    authority.server().write(dir.path(), "server");
    fs::write(dir.path().join("ca.pem"), &authority.pem).unwrap();
    let agent = authority.client("agent", "by-certificate");
    agent.write(dir.path(), "agent");
    let (key, _) = keys::create(
        &dir.path().join("keys.yaml"),
        &["--tenant", "by-password", "--scope", "write,read", "--name", "prometheus"],
    );
    let signed = token::token("by-token", "write read");

    let options = with_tls(token::options(), dir.path(), "optional")
        .env("LUMINATE_AUTH__API_KEYS__FILE", &file("keys.yaml"))
        .env("LUMINATE_AUTH__CLIENT_CERTIFICATES__ENABLED", "true");
    let server = Server::spawn(&dir.path().join("data"), &options);
    let anybody = Client::new(&authority, None);
    wait_for("the server to be ready", || {
        anybody.get(server.port, "/-/ready").is_ok_and(|(status, _)| status == 200)
    });

    let ways = [
        Way { tenant: "by-token", client: anybody.clone(), authorization: Some(format!("Bearer {signed}")) },
        Way {
            tenant: "by-password",
            client: anybody.clone(),
            authorization: Some(format!("Basic {}", BASE64_STANDARD.encode(format!("grafana:{key}")))),
        },
        Way { tenant: "by-certificate", client: Client::new(&authority, Some(&agent)), authorization: None },
    ];
    let prometheus = Prometheus::with_config(dir.path(), 0, |own| {
        let ca = file("ca.pem");
        let url = format!("https://127.0.0.1:{}/api/v1/write", server.port);
        let sent = "send_exemplars: true\n  metadata_config: {send_interval: 1s}";
        format!(
            "global: {{scrape_interval: 1s}}\n\
             scrape_configs:\n- job_name: prometheus\n  static_configs: [{{targets: ['127.0.0.1:{own}']}}]\n\
             remote_write:\n\
             - name: token\n  url: {url}\n  tls_config: {{ca_file: {ca}}}\n  {sent}\n  \
               authorization: {{type: Bearer, credentials: {signed}}}\n\
             - name: password\n  url: {url}\n  tls_config: {{ca_file: {ca}}}\n  {sent}\n  \
               basic_auth: {{username: prometheus, password: {key}}}\n\
             - name: certificate\n  url: {url}\n  {sent}\n  \
               tls_config: {{ca_file: {ca}, cert_file: {}, key_file: {}}}\n",
            file("agent.pem"),
            file("agent.key"),
        )
    });

    let count = ("GET", "/api/v1/query", "query=count_over_time(up%7Bjob%3D%22prometheus%22%7D%5B10m%5D)");
    for way in &ways {
        let mut seen = Value::Null;
        wait_for(&format!("scrapes {}", way.tenant), || {
            seen = way.data(server.port, count)["result"].clone();
            seen[0]["value"][1].as_str().is_some_and(|scrapes| scrapes.parse::<u32>().unwrap() >= 3)
        });
        let metadata = ("GET", "/api/v1/metadata", "metric=go_goroutines");
        wait_for(&format!("metadata {}", way.tenant), || {
            way.data(server.port, metadata)["go_goroutines"][0]["type"] == "gauge"
        });
    }
    for kind in ["samples", "metadata"] {
        for outcome in ["failed", "dropped"] {
            let name = format!("prometheus_remote_storage_{kind}_{outcome}_total");
            assert_eq!(prometheus.counter(&name), 0.0, "{name}");
        }
    }

    let times = Times { end: now_ms(), length: 300_000 };
    // What the data source itself asks; of its list, what is answered everywhere.
    let asked = grafana::requests().into_iter();
    let asked: Vec<_> = asked.filter(|r| r.name.starts_with('F') && r.verdict == Verdict::Same).collect();
    assert!(asked.len() > 15, "{asked:?}");
    for way in &ways {
        for grafana::Request { method, path, params, .. } in &asked {
            let params = times.fill(params);
            let request = (*method, *path, &*params);
            let data = way.data(server.port, request);
            if *path == "/api/v1/label/job/values" && !params.contains("match") {
                assert_eq!(data, serde_json::json!(["prometheus"]), "{}", way.tenant);
            }
            if path.starts_with("/api/v1/label") && !params.contains("match") && !path.contains("U__") {
                assert!(!data.as_array().unwrap().is_empty(), "{}: {request:?}", way.tenant);
            }
            // Nobody else is let in so, nor this one for others.
            let nobody = Way { tenant: "nobody", client: anybody.clone(), authorization: None };
            assert_eq!(nobody.ask(server.port, request, &[]).0, 401, "{request:?}");
            // Rules are nobody's: there are none.
            let refused = if *path == "/api/v1/rules" { 200 } else { 403 };
            let others = [("X-Scope-OrgID", "anonymous")];
            assert_eq!(way.ask(server.port, request, &others).0, refused, "{request:?}");
        }
    }
}
