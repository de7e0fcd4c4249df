"""What dashboards and alerts look at, running: a Luminate on a disk, a gateway over ClickHouse and Redis, a canary, and
Prometheus, which scrapes them and writes to one more Luminate, where everything is asked.

    traffic ──▶ edge (embedded, TLS, tokens)   ─┐
            ──▶ gateway ─▶ ClickHouse, Redis   ─┼─ /metrics ─▶ Prometheus (our alerts) ─ remote write ─▶ store
                canary, kube-state-metrics      ─┘

What is no Luminate and cannot run here (kube-state-metrics) is a page with samples of it.
"""

import base64
import hashlib
import hmac
import http.server
import json
import os
import ssl
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from contextlib import ExitStack
from pathlib import Path

import yaml

from house import ROOT, free_port, luminate, missing, program

SECRET = "nobody-guesses-this-secret-of-the-tests"

# What others than Luminate tell of it, as they tell it.
KUBE_STATE_METRICS = """\
# TYPE kube_pod_container_status_restarts_total counter
kube_pod_container_status_restarts_total{namespace="luminate",pod="luminate-a",container="luminate"} 1
# TYPE kube_horizontalpodautoscaler_status_current_replicas gauge
kube_horizontalpodautoscaler_status_current_replicas{namespace="luminate",horizontalpodautoscaler="luminate-hpa"} 3
# TYPE kube_horizontalpodautoscaler_spec_max_replicas gauge
kube_horizontalpodautoscaler_spec_max_replicas{namespace="luminate",horizontalpodautoscaler="luminate-hpa"} 10
# TYPE kube_horizontalpodautoscaler_spec_min_replicas gauge
kube_horizontalpodautoscaler_spec_min_replicas{namespace="luminate",horizontalpodautoscaler="luminate-hpa"} 3
# TYPE kube_cronjob_status_last_successful_time gauge
kube_cronjob_status_last_successful_time{namespace="luminate",cronjob="luminate-backup"} 1.7e9
# TYPE kube_cronjob_created gauge
kube_cronjob_created{namespace="luminate",cronjob="luminate-backup"} 1.6e9
"""

# What there is only once something has happened.
TOLD_LATE = [
    "luminate_auth_failures_total",
    "luminate_auth_token_keys_age_seconds",
    "luminate_canary_visible_seconds",
    "luminate_clickhouse_partition_parts",
    "luminate_http_requests_total",
    "luminate_redis_memory_limit_bytes",
]

# Everything ends up on 127.0.0.1, where certificates of the tests are as good as any.
TRUSTING = ssl.create_default_context()
TRUSTING.check_hostname = False
TRUSTING.verify_mode = ssl.CERT_NONE


def call(url, token=None, method="GET", body=None, **parameters):
    """The status and the text of an answer."""
    if parameters:
        url += "?" + urllib.parse.urlencode(parameters, doseq=True)
    request = urllib.request.Request(url, method=method, data=body)
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, context=TRUSTING, timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError as error:
        return 0, str(error)


def until(what, holds, seconds=120):
    """Waits until something holds, and gives it."""
    end = time.monotonic() + seconds
    while True:
        if (found := holds()) not in (None, False):
            return found
        assert time.monotonic() < end, f"{what}: not within {seconds} s"
        time.sleep(0.1)


def token(tenant, scopes):
    """A token as `luminate token create` signs one."""

    def part(value):
        return base64.urlsafe_b64encode(value).rstrip(b"=")

    claims = {"tenant": tenant, "scope": scopes, "exp": int(time.time()) + 3600}
    head = part(json.dumps({"alg": "HS256", "typ": "JWT"}).encode()) + b"." + part(json.dumps(claims).encode())
    return (head + b"." + part(hmac.new(SECRET.encode(), head, hashlib.sha256).digest())).decode()


class Fleet:
    """All of it. Entered, everything runs; left, nothing does."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.processes = []
        self.stack = ExitStack()
        self.done = threading.Event()

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.done.set()
        for process in reversed(self.processes):
            process.terminate()
        for process in reversed(self.processes):
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                print("did not end:", process.args)
                process.kill()
                process.wait()
        self.stack.close()

    def spawn(self, name, *command, **options):
        log = self.stack.enter_context((self.folder / f"{name}.log").open("w"))
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("LUMINATE_", "REDIS_"))}
        process = subprocess.Popen(
            [str(word) for word in command], stdout=log, stderr=log, cwd=self.folder, env=environment, **options
        )
        self.processes.append(process)
        return process

    def write(self, name, text):
        path = self.folder / name
        path.write_text(text)
        return path

    def serve(self, name, config):
        """A Luminate; gives where it listens."""
        port = free_port()
        config.setdefault("server", {})["listen"] = f"127.0.0.1:{port}"
        config.setdefault("self_scrape", {"enabled": False})
        path = self.write(f"{name}.yaml", yaml.safe_dump(config))
        self.spawn(name, luminate(), "serve", "--config.file", path)
        scheme = "https" if "tls" in config["server"] else "http"
        return f"{scheme}://127.0.0.1:{port}"

    def start(self):
        self.store = self.serve("store", {"storage": {"embedded": {"data_dir": "store"}}})
        others = self.others()
        certificate = self.certificate()
        edge_admin, gateway_admin = free_port(), free_port()
        overrides = self.write(
            "overrides.yaml", yaml.safe_dump({"overrides": {"busy": {"queries_per_second": 1, "max_active_series": 1}}})
        )
        self.edge = self.serve(
            "edge",
            {
                "server": {"admin_listen": f"127.0.0.1:{edge_admin}", "tls": certificate},
                "auth": {
                    "mode": "token",
                    "jwt": {"secret": SECRET, "jwks_url": f"http://127.0.0.1:{others}/jwks"},
                    "api_keys": {"file": str(self.keys())},
                },
                "limits": {"overrides_file": str(overrides)},
                "storage": {"embedded": {"data_dir": "edge"}},
            },
        )
        self.edge_admin = f"https://127.0.0.1:{edge_admin}"
        redis, clickhouse = self.redis(), self.clickhouse()
        self.gateway = self.serve(
            "gateway",
            {
                "server": {"admin_listen": f"127.0.0.1:{gateway_admin}"},
                "auth": {"mode": "token", "jwt": {"secret": SECRET}},
                "limits": {"overrides_file": str(overrides)},
                "redis": {
                    "url": [f"redis://127.0.0.1:{redis}"],
                    "rate_limit": {"enabled": True},
                    "key_store": {"enabled": True},
                    "cache": {"enabled": True},
                },
                "storage": {"backend": "clickhouse", "clickhouse": {"addresses": [clickhouse]}},
            },
        )
        self.gateway_admin = f"http://127.0.0.1:{gateway_admin}"
        for server in (self.store, self.edge, self.gateway):
            until(f"{server} is ready", lambda server=server: call(server + "/health/ready")[0] == 200)
        self.canary_url = f"http://{self.canary()}"
        self.prometheus(others, edge_admin, gateway_admin)
        threading.Thread(target=self.traffic, daemon=True).start()
        for told in TOLD_LATE:
            until(f"{told} is told", lambda told=told: any(told in text for text in self.metrics()))

    def certificate(self):
        subprocess.run(
            [program("openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "90", "-subj", "/CN=localhost"]
            + ["-keyout", "key.pem", "-out", "certificate.pem"],
            cwd=self.folder, check=True, capture_output=True,
        )  # fmt: skip
        return {"cert_file": str(self.folder / "certificate.pem"), "key_file": str(self.folder / "key.pem")}

    def keys(self):
        path = self.folder / "keys.yaml"
        command = [luminate(), "key", "create", "--file", str(path), "--tenant", "key", "--scope", "read"]
        made = subprocess.run(command, check=True, capture_output=True, text=True)
        self.key = next(word for word in made.stdout.split() if word.startswith("lum_"))
        return path

    def others(self):
        """Where kube-state-metrics' samples are, and the keys of an issuer."""
        point = json.dumps({"keys": [P256]})

        class Page(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                kind, text = ("application/json", point) if self.path == "/jwks" else ("text/plain", KUBE_STATE_METRICS)
                self.send_response(200)
                self.send_header("Content-Type", kind)
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
        self.stack.callback(server.shutdown)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return server.server_address[1]

    def redis(self):
        port = free_port()
        self.spawn(
            "redis", program("redis-server"), "--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
            "--maxmemory", "64mb", "--maxmemory-policy", "noeviction",
        )  # fmt: skip
        return port

    def clickhouse(self):
        """The engine of the tests behind its front, with our tables."""
        cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
        python = os.environ.get("LUMINATE_TEST_CLICKHOUSE_PYTHON", cache / "luminate-tests/chdb/bin/python")
        if not Path(python).exists():
            missing(f"{python}: `make setup` installs it; ClickHouse's engine")
        port = free_port()
        front = ROOT / "tests/clickhouse/front.py"
        self.spawn("front", python, front, "--path", self.folder / "clickhouse", "--port", port)
        address = f"http://127.0.0.1:{port}"
        until("ClickHouse answers", lambda: call(address + "/ping")[0] == 200)
        subprocess.run([luminate(), "schema", "apply", "--address", address], check=True, capture_output=True)
        return address

    def prometheus(self, others, edge, gateway):
        port = free_port()

        def target(url, **more):
            return {"url": url + "/api/v1/write", "queue_config": {"batch_send_deadline": "500ms"}, **more}

        def bearer(tenant):
            return {"authorization": {"credentials": token(tenant, "write")}}

        insecure = {"tls_config": {"insecure_skip_verify": True}}
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(ROOT / "deployments/monitoring/alerts/*.yaml")],
            "scrape_configs": [
                {"job_name": "luminate", "static_configs": [{"targets": [f"127.0.0.1:{gateway}"]}]},
                {"job_name": "edge", "scheme": "https", **insecure, "static_configs": [{"targets": [f"127.0.0.1:{edge}"]}]},
                {"job_name": "canary", "static_configs": [{"targets": [urllib.parse.urlsplit(self.canary_url).netloc]}]},
                {"job_name": "kube", "honor_labels": True, "static_configs": [{"targets": [f"127.0.0.1:{others}"]}]},
            ],
            "remote_write": [
                target(self.store),
                target(self.edge, **bearer("team"), **insecure),
                target(self.gateway, **bearer("team")),
            ],
        }  # fmt: skip
        path = self.write("prometheus.yaml", yaml.safe_dump(config))
        self.spawn(
            "prometheus", program("prometheus"), f"--config.file={path}", f"--web.listen-address=127.0.0.1:{port}",
            f"--storage.tsdb.path={self.folder / 'prometheus'}", "--storage.remote.flush-deadline=1s",
        )  # fmt: skip
        self.prometheus_url = f"http://127.0.0.1:{port}"
        until("Prometheus is ready", lambda: call(self.prometheus_url + "/-/ready")[0] == 200)

    def canary(self):
        port = free_port()
        self.spawn(
            "canary",
            luminate(),
            "admin",
            "canary",
            "--server",
            self.store,
            "--interval",
            "1s",
            "--listen",
            f"127.0.0.1:{port}",
        )
        return f"127.0.0.1:{port}"

    def traffic(self):
        """Asks what people ask, and what is refused."""
        read, busy, admin = token("team", "read"), token("busy", "read write"), token("team", "admin delete")
        old = json.dumps({"metric": {"__name__": "old"}, "values": [1], "timestamps": [1]}).encode()
        new = [
            json.dumps(
                {"metric": {"__name__": f"new{n}"}, "values": [1], "timestamps": [int(time.time() * 1000)]}
            ).encode()
            for n in range(3)
        ]
        while not self.done.wait(0.2):
            for server in (self.edge, self.gateway):
                now = time.time()
                for bearer in (read, self.key):
                    call(server + "/api/v1/query", bearer, query="count(up)")
                    call(
                        server + "/api/v1/query_range",
                        bearer,
                        query="sum(rate(luminate_process_cpu_seconds_total[5s]))",
                        start=now - 10,
                        end=now,
                        step=1,
                    )
                    call(server + "/api/v1/labels", bearer)
                call(server + "/api/v1/status/buildinfo", read)
                call(server + "/api/v1/query", busy, query="up")
                call(server + "/api/v1/query", "nonsense", query="up")
                for body in (old, *new):
                    call(server + "/api/v1/import", busy, "POST", body)
            call(self.edge_admin + "/api/v1/admin/tsdb/flush", admin, "POST", b"")

    def metrics(self):
        """What everything of ours tells of itself, in the format that promtool reads."""
        return [call(server + "/metrics")[1] for server in (self.edge_admin, self.gateway_admin, self.canary_url)]

    def ask(self, expression, start, end, step=1):
        """A range of the store's answer to an expression: whether that is one, and its series or the error."""
        status, text = call(self.store + "/api/v1/query_range", query=expression, start=start, end=end, step=step)
        answer = json.loads(text)
        return status == 200, answer["data"]["result"] if status == 200 else answer["error"]


# The key of the example in RFC 7517, of an issuer that issues nothing.
P256 = {
    "kty": "EC",
    "crv": "P-256",
    "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
    "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM",
    "use": "sig",
    "alg": "ES256",
    "kid": "1",
}
