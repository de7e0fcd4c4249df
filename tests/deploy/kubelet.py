"""Runs workloads as a cluster's node would: in a network of their own, with what they ask for around them, and probed.

    with Node(image, services) as node:     # nothing is started
        server = node.start(server_workload)
        server.probe("readiness")           # the status that its readiness probe gets
        node.begin_clickhouse()             # until then nobody answers there
"""

import contextlib
import http.client
import json
import os
import select
import socket
import ssl
import subprocess
import tempfile
import threading
import time
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

import yaml

from contained import Container, Network, project
from house import ROOT, luminate, missing, program, run
from image import Image
from workloads import BINARY

# What an image of somebody else's is run in: this machine, seen read-only.
MACHINE = Image(root=Path("/"), env={"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"})

# How long anything may take to come right before a test gives up.
PATIENCE = 120

_started = []
_lock = threading.Lock()


def wait_for(what, condition, patience=PATIENCE):
    """Waits for a condition, and gives what it gave."""
    deadline = time.monotonic() + patience
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited {patience} s for {what() if callable(what) else what}"
        time.sleep(0.05)
    return found


@cache
def _front(user, password):
    """The port of a ClickHouse (tests/clickhouse/front.py) that lets this user in."""
    cache_home = os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache"))
    place = Path(cache_home) / "luminate-tests" / "chdb" / "bin" / "python"
    python = Path(os.environ.get("LUMINATE_TEST_CLICKHOUSE_PYTHON", place))
    if not python.exists():
        missing("a ClickHouse engine: run `make setup`")
    # It ends with us, however we end: its standard input does.
    process = subprocess.Popen(
        [python, ROOT / "tests" / "clickhouse" / "front.py", "--path", tempfile.mkdtemp(prefix="luminate-chdb-"),
         "--port", "0", "--user", user, "--password", password, "--until-stdin-ends", "--ephemeral"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )
    _started.append(process)
    line = process.stdout.readline()
    assert line.startswith("front:"), f"the front says {line!r}"
    return int(line.split()[1].rpartition(":")[2])


def clickhouse(user, password):
    with _lock:
        return _front(user, password)


class Relay:
    """Lets what connects to a port inside a network through to what `connect` connects to."""

    def __init__(self, network, port, connect):
        self.connect = connect
        with network.inside():
            self.listening = socket.create_server(("127.0.0.1", port))
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self):
        # Closing alone does not wake who waits in it.
        with contextlib.suppress(OSError):
            self.listening.shutdown(socket.SHUT_RDWR)
        self.listening.close()

    def _accept(self):
        while True:
            try:
                inner, _ = self.listening.accept()
            except OSError:
                return
            threading.Thread(target=self._carry, args=(inner,), daemon=True).start()

    def _carry(self, inner):
        with inner, contextlib.suppress(OSError), self.connect() as outer:
            other = {inner: outer, outer: inner}
            while True:
                for side in select.select([inner, outer], [], [])[0]:
                    got = side.recv(1 << 16)
                    if not got:
                        return
                    other[side].sendall(got)


class Running:
    """A workload that runs."""

    def __init__(self, node, workload, container):
        self.node, self.workload, self.container = node, workload, container

    def probe(self, kind):
        """What a probe of its manifest gets: an HTTP status, 200 or 1 for one that is no HTTP; 0 if nobody answers."""
        match self.workload.probes[kind]:
            case {"httpGet": get}:
                headers = {header["name"]: header["value"] for header in get.get("httpHeaders", [])}
                return self.status(self.port(get["port"]), get["path"], headers, get.get("scheme", "HTTP"))
            case {"exec": {"command": command}}:
                return 200 if self.container.exec(command).returncode == 0 else 1
            case {"tcpSocket": {"port": port}}:
                with contextlib.suppress(OSError), self.node.connect(self.port(port)):
                    return 200
                return 0

    def answers(self, kind):
        """Whether a probe of its manifest succeeds; it has to run for that."""
        assert self.container.running, self.said()
        return self.probe(kind) == 200

    def allowance(self, kind):
        """How long a probe may fail before there are consequences."""
        probe = self.workload.probes[kind]
        return probe.get("initialDelaySeconds", 0) + probe.get("periodSeconds", 10) * probe.get("failureThreshold", 3)

    def listens(self, port):
        with contextlib.suppress(ConnectionRefusedError), self.node.connect(self.port(port)):
            return True
        return False

    def port(self, name):
        return self.workload.ports[name] if isinstance(name, str) else name

    def status(self, port, path, headers=None, scheme=None):
        """The status of an answer; 0 if there is none."""
        try:
            return self.ask(port, path, headers=headers, scheme=scheme)[0]
        except (OSError, http.client.HTTPException):
            return 0

    def ask(self, port, path, method="GET", body=None, headers=None, scheme=None):
        """Asks it; gives the status and the text of the answer."""
        scheme = scheme or self.node.scheme
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.sock = self.node.connect(port, tls=scheme == "HTTPS")
        with contextlib.closing(connection):
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, answer.read().decode()

    def healthy(self):
        """Whether Compose would say so."""
        return self.container.exec(self.workload.healthcheck).returncode == 0

    def said(self):
        """What it wrote last, requests left out."""
        lines = (self.container.stdout + self.container.stderr).splitlines()
        return f"{self.workload.name}:\n" + "\n".join([line for line in lines if '"event":"request"' not in line][-20:])


class Node:
    """A place for workloads that belong together: their network, names, files, ClickHouse and Redis."""

    def __init__(self, image, services=()):
        self.image, self.services = image, services
        self.stack = contextlib.ExitStack()
        self.place = Path(tempfile.mkdtemp(prefix="luminate-node-"))
        self.names = {name: "127.0.0.1" for name, _, _ in services}
        self.scheme = "HTTP"
        # A client's certificate and its key, where one is asked for.
        self.client_certificate = None

    def __enter__(self):
        self.network = self.stack.enter_context(Network())
        for port, target in {(port, target) for _, port, target in self.services if port != target}:
            self.relay(port, lambda target=target: self.connect(target))
        return self

    def __exit__(self, *error):
        self.stack.close()
        subprocess.run(["rm", "-rf", self.place], check=False)

    def connect(self, port, tls=False):
        """A connection to a port in there."""
        with self.network.inside():
            plain = socket.create_connection(("127.0.0.1", port), timeout=60)
        if not tls:
            return plain
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if self.client_certificate:
            context.load_cert_chain(*self.client_certificate)
        return context.wrap_socket(plain)

    def start(self, workload, words=None):
        """Starts a workload; with `words` the same with other arguments for the binary."""
        mounts = {}
        for path, texts in workload.folders.items():
            folder = self.place / f"{len(os.listdir(self.place))}"
            group = (workload.groups or [0])[0]
            mounts[path] = (project(folder, texts, workload.modes[path], group), "ro")
        beside = {}
        for path, text in workload.files.items():
            parent = str(Path(path).parent)
            if parent not in beside:
                beside[parent] = self.place / f"{len(os.listdir(self.place))}"
                beside[parent].mkdir()
            file = beside[parent] / Path(path).name
            file.write_text(text)
            file.chmod(0o444)
            # This machine has folders of that name, too, and not for everybody.
            mounts |= {path: (file, "ro")} if workload.is_luminate else {parent: (beside[parent], "ro")}
        for path in workload.data:
            folder = self.place / f"{len(os.listdir(self.place))}"
            folder.mkdir()
            mounts[path] = (folder, "rw")
        command, args = workload.command, workload.args
        if words is not None:
            command, args = [BINARY], words
        container = Container(
            self.image if workload.is_luminate else MACHINE,
            args,
            command=command,
            env=workload.env,
            mounts=mounts,
            tmpfs=workload.tmpfs,
            user=workload.user,
            group=workload.group,
            groups=workload.groups,
            read_only=workload.read_only,
            network=self.network,
            hosts=self.names,
        )
        self.stack.callback(container.kill)
        return Running(self, workload, container)

    def finish(self, workload, words=None, patience=PATIENCE):
        """Runs a workload to its end, and gives its exit code and what it printed."""
        running = self.start(workload, words)
        return running.container.wait(patience), running.container.stdout, running.container.stderr

    def configuration(self, workload):
        """What the server says is its configuration."""
        words = workload.words[1:] if workload.words else []
        code, out, err = self.finish(workload, ["config", "print", *words])
        assert code == 0, f"{workload.name}: {out}{err}"
        return yaml.safe_load(out)

    def begin_clickhouse(self, configuration, password):
        """Lets somebody answer where the configuration says that ClickHouse is."""
        section = configuration["storage"]["clickhouse"]
        target = clickhouse(section["username"], password)
        for address in section["addresses"]:
            port = urlsplit(address if "//" in address else f"//{address}").port or 8123
            self.relay(port, lambda: socket.create_connection(("127.0.0.1", target)))

    def relay(self, port, connect):
        relay = Relay(self.network, port, connect)
        self.stack.callback(relay.close)

    def name_hosts(self, configuration):
        """Lets names lead here that the configuration has."""
        addresses = [*configuration["storage"]["clickhouse"]["addresses"], *(configuration["redis"]["url"] or [])]
        for address in addresses:
            host = urlsplit(address if "//" in address else f"//{address}").hostname
            self.names.setdefault(host, "127.0.0.1")

    def show_certificate(self, files):
        """Speaks TLS from now on, and shows a certificate to who asks for one."""
        self.scheme, self.client_certificate = "HTTPS", (files["tls.crt"], files["tls.key"])

    def token(self, secret, scope, tenant):
        """A token as the operator would sign it."""
        file = self.place / "secret"
        file.write_text(secret)
        done = run(luminate(), "token", "create", f"--secret-file={file}", f"--tenant={tenant}", f"--scope={scope}")
        return done.stdout.strip()


def line(name, value):
    """A sample to import."""
    sample = {"metric": {"__name__": name}, "values": [value], "timestamps": [int(time.time() * 1000)]}
    return (json.dumps(sample) + "\n").encode()
