"""Every container that the deployments describe starts the real binary, and lives and ends as its manifest says.

Whatever runs Luminate in deployments/ is started in the image's root filesystem with the command, the environment, the
files and the user that it has there, alone with the ports it has there; with ClickHouse (the engine behind
tests/clickhouse/front.py) and Redis (Debian's, with the configuration of the deployment) where it asks for them. Then
it is treated as a node would treat it, from its start to its end.
"""

import contextlib
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial

import pytest
import yaml

from house import DEPLOYMENTS, KUBERNETES, documents, kustomize, program, renders
from kubelet import Node, line, wait_for
from workloads import Secrets, certificates, compose, kubernetes, unit

# Where those are asked for their health that have no probes: Compose and systemd ask by a command, or not at all.
USUAL_PROBES = {"startup": "/health/startup", "liveness": "/health/live", "readiness": "/health/ready"}


@dataclass
class Case:
    """A server, and what is deployed with it."""

    names: list
    server: object
    others: list
    # Names that lead to it, with ports: [(name, port, port behind)].
    services: list = field(default_factory=list)

    def told(self, *words):
        """The containers of Luminate that are told this."""
        return [other for other in self.others if other.is_luminate and other.words[: len(words)] == list(words)]


def cases(place):
    """The servers of everything that is deployed."""
    found = []

    def add(name, workloads, services):
        servers = [w for w in workloads if w.is_luminate and w.serves]
        for server in servers:
            others = [w for w in workloads if w not in servers]
            found.append(Case([name(server)], server, others, services))

    for name, text in renders():
        before = len(found)
        add(lambda _: name, *kubernetes(text))
        assert len(found) == before + 1, f"{name} has {len(found) - before} kinds of servers"
    workloads = compose(place / "compose")
    # Compose finds services by their names.
    add(lambda server: f"compose/{server.name}", workloads, [(w.name, 8080, 8080) for w in workloads])
    for file in sorted((DEPLOYMENTS / "systemd").glob("*.yaml")):
        workloads = unit(DEPLOYMENTS / "systemd" / "luminate.service", file.read_text(), Secrets())
        add(lambda _: f"systemd/{file.name}", workloads, [])
    return found


def alike(found):
    """Cases whose servers differ only in what is drawn, together, each with all that is beside any of them."""

    def shape(workload):
        told = (workload.kind, workload.command, workload.args, workload.env, workload.probes, workload.hook)
        # Configurations not by their comments, and of secrets only their names.
        def content(name, text):
            return json.dumps(yaml.safe_load(text), sort_keys=True) if name.endswith(".yaml") else text

        files = {
            path: sorted((name, "" if workload.modes[path] != 0o644 else content(name, text)) for name, text in texts.items())
            for path, texts in workload.folders.items()
        }
        return json.dumps([told, files, workload.files, workload.data, workload.tmpfs, workload.user, workload.grace,
                           workload.scrape, workload.read_only], sort_keys=True)

    groups = {}
    for case in found:
        group = groups.setdefault(shape(case.server), replace(case, names=[], others=[]))
        group.names += case.names
        known = [shape(other) for other in group.others]
        group.others += [other for other in case.others if shape(other) not in known]
    return list(groups.values())


class Traffic:
    """Writes and asks all the time; every request has to be answered well."""

    def __init__(self, server, port, token):
        self.server, self.port, self.token = server, port, token
        self.answered, self.wrong = 0, []
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self._go_on, daemon=True)
        self.thread.start()

    def _go_on(self):
        headers = {"Authorization": f"Bearer {self.token}"}
        while not self.stopping.is_set():
            for path, body in [("/api/v1/import", line("traffic", self.answered)), ("/api/v1/query?query=traffic", None)]:
                method = "POST" if body else "GET"
                try:
                    status, text = self.server.ask(self.port, path, method, body, headers)
                    if status not in (200, 204):
                        self.wrong.append(f"{path}: {status}: {text}")
                except OSError as error:
                    self.wrong.append(f"{path}: {error!r}")
            self.answered += 1
            time.sleep(0.05)

    def stop(self):
        self.stopping.set()
        self.thread.join()
        assert not self.wrong, self.wrong[:3]
        assert self.answered


class Upload:
    """A write that has begun, and whose server waits for the rest."""

    def __init__(self, server, port, token):
        self.body = line("upload", 1)
        self.stream = server.node.connect(port, tls=server.node.scheme == "HTTPS")
        head = (
            f"POST /api/v1/import HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n"
            f"Content-Length: {len(self.body)}\r\nExpect: 100-continue\r\n\r\n"
        )
        self.stream.sendall(head.encode())
        told = self.stream.recv(1000).decode()
        assert told.startswith("HTTP/1.1 100 "), told

    def finish(self):
        """Sends the rest, and gives the answer."""
        self.stream.sendall(self.body)
        with self.stream, contextlib.suppress(ConnectionResetError):
            return self.stream.recv(1000).decode()


def port_of(address):
    return int(address.rpartition(":")[2])


def live(image, case):
    """The life of a server, from nothing to its end."""
    with Node(image, case.services) as node:
        workload = case.server
        config = node.configuration(workload)
        public, admin = port_of(config["server"]["listen"]), port_of(config["server"]["admin_listen"] or ":0")
        if not workload.probes:
            workload.probes = {
                kind: {"httpGet": {"path": path, "port": public}, "failureThreshold": 12}
                for kind, path in USUAL_PROBES.items()
            }
        if config["server"]["tls"]["cert_file"]:
            node.show_certificate(certificates())
        node.name_hosts(config)
        for other in case.others:
            if other.image.rpartition("/")[2].startswith("redis:") and uses_redis(config):
                program("redis-server")
                redis = node.start(other)
                wait_for(redis.said, lambda: is_up(redis))
        for first in case.told("sleep"):
            assert node.finish(first)[0] == 0

        server = node.start(workload)
        wait_for(server.said, lambda: server.answers("startup"), server.allowance("startup"))
        assert server.probe("liveness") == 200
        assert all(server.listens(port) for port in workload.ports), workload.ports
        has_metrics(server, public, admin)
        token = None
        if begins(node, case, server, config):
            wait_for(server.said, lambda: server.answers("readiness"))
            assert server.probe("startup") == server.probe("liveness") == 200
            if workload.healthcheck:
                assert server.healthy()
            # Where an issuer elsewhere signs tokens, there are none to be had.
            if path := config["auth"]["jwt"]["secret_file"]:
                sign = partial(node.token, workload.text(path).strip(), "write,read")
                token = sign("main")
                for other in case.others:
                    if other.is_luminate:
                        works(node, other, sign)
        else:
            for other in case.others:
                if other.is_luminate:
                    understands(node, other)

        traffic = Traffic(server, public, token) if token else None
        spent = time.monotonic()
        if workload.hook:
            before = server.probe("readiness")
            hook = server.container.start(workload.hook)
            while hook.poll() is None:
                # Requests that come while others look away are welcome.
                assert server.probe("readiness") == before and server.probe("liveness") == 200, server.said()
                time.sleep(0.2)
            assert hook.returncode == 0
        if traffic:
            wait_for("some requests", lambda: traffic.answered > 2)
            traffic.stop()
        ends(server, public, token, workload.grace - (time.monotonic() - spent))


def uses_redis(config):
    return any(config["redis"][use]["enabled"] for use in ("rate_limit", "key_store", "cache"))


def is_up(running):
    """Whether what has a probe or a health check of its own is up."""
    return running.healthy() if running.workload.healthcheck else running.probe("readiness") == 200


def begins(node, case, server, config):
    """Gives a server what it stands on, if that can be had here; tells whether.

    One whose ClickHouse is not there yet lives, and wants no requests.
    """
    workload, storage = case.server, config["storage"]
    if storage["backend"] == "embedded":
        return True
    assert server.probe("readiness") == 503, server.said()
    if workload.healthcheck:
        assert not server.healthy()
    if storage["clickhouse"]["cluster"]:
        # The engine behind the front is one server, and none of a cluster's.
        return False
    node.begin_clickhouse(config, workload.text(storage["clickhouse"]["password_file"]).strip())
    words = ["schema", "apply", *[word for word in workload.words if word.startswith("--config.file=")]]
    for job in case.told("schema", "apply") or [workload]:
        code, out, err = node.finish(job, words if job is workload else None)
        assert code == 0, f"{job.name}: {out}{err}"
    return True


def has_metrics(server, public, admin):
    """Metrics are where Prometheus is told to find them, for everybody; where the API is, they are for nobody else."""
    if server.workload.scrape:
        port, path = server.workload.scrape
        status, text = server.ask(port, path)
        assert status == 200 and "luminate_build_info" in text, text
    if admin:
        assert server.status(admin, "/metrics") == 200
    assert server.status(public, "/metrics") in (401, 404)


def works(node, other, sign):
    """What is deployed beside a server does what it is for."""
    match other.words:
        case ["admin", "canary", *_]:
            canary = node.start(with_token(other, sign))
            wait_for(canary.said, lambda: canary.answers("readiness"), canary.allowance("readiness"))
            canary.container.signal()
            assert canary.container.wait(other.grace) == 0, canary.said()
        case ["admin", "smoke", *_] | ["healthcheck", *_] | ["check", "config", *_]:
            code, out, err = node.finish(with_token(other, sign))
            assert code == 0, f"{other.name}: {out}{err}"
        case ["schema" | "sleep", *_]:
            pass
        case ["token", *_]:
            # Who runs it says for whom.
            code, out, err = node.finish(other, [*other.words, "--tenant=team-a", "--scope=read"])
            assert code == 0 and out.count(".") == 2, f"{other.name}: {out}{err}"
        case ["backup", "create" | "prune" | "verify", *_]:
            # Onto a disk or a bucket that is not here; what it is told it understands.
            understands(node, other)
        case words:
            raise AssertionError(f"no test knows what {other.name} is for: {words}")


def understands(node, other):
    """Luminate knows the words that it is told."""
    code, out, err = node.finish(other, [*other.words, "--help"])
    assert code == 0, f"{other.name}: {out}{err}"


def with_token(workload, sign):
    """The same with a token in the file that it reads one from, if it does."""
    options = dict(word.split("=", 1) for word in workload.words if "=" in word)
    path = options.get("--token.file")
    if path is None:
        return workload
    folder, _, name = path.rpartition("/")
    token = sign(options.get("--tenant", "main"))
    return replace(workload, folders={**workload.folders, folder: {**workload.folders[folder], name: token}})


def ends(server, public, token, left):
    """Told to stop, a server finishes what it has begun, wants no more, and is alive until it ends well."""
    upload = Upload(server, public, token) if token else None
    server.container.signal()
    if upload:
        wait_for(server.said, lambda: server.probe("readiness") == 503)
        assert server.probe("liveness") == 200, server.said()
        # Who comes now is answered for a moment yet, since a proxy may not have heard; then he is told to come again,
        # and so goes to another.
        seen = set()
        wait_for(server.said, lambda: turned_away(server, public, token, seen))
        assert seen <= {200, 503}, f"{seen}{server.said()}"
        assert server.container.running
        answer = upload.finish()
        assert answer.startswith(("HTTP/1.1 200 ", "HTTP/1.1 204 ")), f"{answer}{server.said()}"
    assert server.container.wait(left) == 0, server.said()


def turned_away(server, public, token, seen):
    """Whether a query is not wanted now; keeps what is answered."""
    status = server.status(public, "/api/v1/query?query=up", {"Authorization": f"Bearer {token}"})
    seen.add(status)
    return status == 503


def test_every_server_lives_and_ends_as_its_manifest_says(image, tmp_path, subtests):
    (tmp_path / "compose").mkdir()
    groups = alike(cases(tmp_path))
    with ThreadPoolExecutor(len(groups)) as pool:
        lives = {", ".join(case.names): pool.submit(live, image, case) for case in groups}
        for names, lived in lives.items():
            with subtests.test(msg=names):
                lived.result()


@pytest.mark.parametrize("key", ["jwt-secret", "clickhouse-password"])
def test_a_pod_with_a_word_of_secret_yaml_refuses_to_start(image, key):
    """Who forgets to put secrets of his own there shall not have a server whose secrets everybody knows."""
    (placeholders,) = documents((KUBERNETES / "secret.yaml").read_text())
    (server,), services = kubernetes(kustomize("."))
    server.folders["/etc/luminate-secrets"][key] = placeholders["stringData"][key]
    with Node(image, services) as node:
        code, out, err = node.finish(server)
        assert code == 1 and f"/etc/luminate-secrets/{key}" in err, f"{code}: {out}{err}"


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("path: /health/live", "path: /healthz"),
        ("--config.file=/etc/luminate/luminate.yaml", "--config.file=/etc/luminate/other.yaml"),
        ('prometheus.io/port: "8081"', 'prometheus.io/port: "8080"'),
        ("fsGroup: 10001", "fsGroupChangePolicy: Always"),
        ("containerPort: 8081", "containerPort: 8082"),
    ],
)
def test_a_manifest_that_does_not_fit_is_found_out(image, right, wrong):
    text = kustomize(".")
    assert right in text
    (server,), services = kubernetes(text.replace(right, wrong))
    with pytest.raises(AssertionError):
        live(image, Case(["broken"], server, [], services))
