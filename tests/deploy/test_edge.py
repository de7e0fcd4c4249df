"""Luminate on one machine: the unit is as tight as it says and the real server lives with it, install.sh and
uninstall.sh do what they say, and the configuration for a small board is in effect."""

import http.client
import json
import re
import secrets
import shlex
import shutil
import signal
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request

import pytest
import yaml

import confined
from confined import Unit, seconds
from house import DEPLOYMENTS, free_port, luminate, program, run

SYSTEMD = DEPLOYMENTS / "systemd"
UNIT = SYSTEMD / "luminate.service"
KINDS = {"luminate": [], "small-board": ["--small-board"]}


def install(root, *options):
    return run(SYSTEMD / "install.sh", "--destdir", root, *options, luminate())


def unit_of(root):
    units = root / "etc/systemd/system"
    return Unit(units / "luminate.service", *units.glob("luminate.service.d/*.conf"))


def get(url, token=None):
    """Asks, and gives the status and the body; None while nobody answers."""
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"} if token else {})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except (urllib.error.URLError, ConnectionError):
        return None, ""


def post(url, token, body):
    """The status of a POST. The server may have said no before it was all sent."""
    address, path = url.removeprefix("http://").split("/", 1)
    connection = http.client.HTTPConnection(address, timeout=30)
    try:
        connection.request("POST", f"/{path}", body, {"Authorization": f"Bearer {token}"})
        return connection.getresponse().status
    finally:
        connection.close()


def until(what, holds, patience=60):
    deadline = time.monotonic() + patience
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


# The unit


def test_the_unit_exposes_little():
    report = json.loads(
        run(program("systemd-analyze"), "security", "--offline=true", "--json=short", "--threshold=20", UNIT).stdout
    )
    assert sum(line["set"] is False and float(line["exposure"] or 0) for line in report) <= 2.0
    said = run(program("systemd-analyze"), "security", "--offline=true", UNIT).stdout
    exposure = re.search(r"Overall exposure level for luminate.service: ([0-9.]+)", said)[1]
    assert float(exposure) <= 2.0


@pytest.mark.parametrize("kind", KINDS)
def test_the_units_are_right_to_the_letter(tmp_path, kind):
    install(tmp_path, *KINDS[kind])
    units = tmp_path / "etc/systemd/system"
    # Those that are put there by hand, too.
    for unit in [*SYSTEMD.glob("*.service"), *SYSTEMD.glob("*.timer")]:
        shutil.copy(unit, units)
    shipped = sorted(units.glob("luminate*.*r*"))
    assert {unit.name for unit in shipped} >= {"luminate.service", "luminate-backup.service", "luminate-backup.timer"}
    # Beside the system's own units, with the program in its place.
    done = run(
        program("bwrap"), "--bind", "/", "/", "--tmpfs", "/usr/local", "--ro-bind", tmp_path / "usr/local/bin",
        "/usr/local/bin", "--ro-bind", tmp_path / "usr/local/share", "/usr/local/share", "--tmpfs", "/run",
        program("systemd-analyze"), "verify", *(unit for unit in shipped if unit.is_file()),
    )
    assert done.stdout + done.stderr == ""


def test_a_mistake_in_a_unit_is_found(tmp_path):
    broken = tmp_path / "luminate.service"
    broken.write_text(UNIT.read_text().replace("MemoryMax=", "MemoryMost="))
    done = run(program("systemd-analyze"), "verify", broken, check=False)
    assert re.search("Unknown key.*'MemoryMost'", done.stderr)


def test_its_times_fit_the_drain():
    unit = Unit(UNIT)
    for kind in KINDS:
        config = yaml.safe_load((SYSTEMD / f"{kind}.yaml").read_text())
        assert seconds(unit.last("TimeoutStopSec")) > seconds(config["server"]["shutdown"]["grace"])


# The server in the unit


@pytest.fixture(params=KINDS)
def service(request, tmp_path):
    """An installed server, running as its unit says; where it listens, and where its admin does."""
    install(tmp_path, *KINDS[request.param])
    unit = unit_of(tmp_path)
    port, admin = free_port(), free_port()
    # The tests' own ports, and an address of this machine alone.
    environment = {
        "LUMINATE_SERVER__LISTEN": f"127.0.0.1:{port}", "LUMINATE_SERVER__ADMIN_LISTEN": f"127.0.0.1:{admin}",
    }

    def command(words, **more):
        return confined.Running(unit, tmp_path, words, {**environment, **more})

    with command(unit.command("ExecStartPre")) as before:
        assert before.wait(60) == 0, before.said()
    # Who waits sees processes of its own only: 1 is there, and for the others the server has ended.
    wait = unit.command("ExecStartPost")
    with command(wait, MAINPID="999") as in_vain:
        assert in_vain.wait(60) == 1, in_vain.said()
    with command(unit.command("ExecStart")) as server:
        with command(wait, MAINPID="1") as ready:
            assert ready.wait(120) == 0, ready.said() + server.said()
        server.root, server.unit, server.command = tmp_path, unit, command
        server.public, server.admin = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{admin}"
        yield server


def test_the_server_lives_with_its_unit(service):
    for path in ("startup", "live", "ready"):
        assert get(f"{service.public}/health/{path}")[0] == 200
    assert get(f"{service.admin}/health/deep")[0] == 200
    assert "luminate_write_requests" in get(f"{service.admin}/metrics")[1]
    assert get(f"{service.public}/metrics")[0] in (401, 404)

    # A token as the configuration says to make one, by root; what it writes is found.
    secret = service.root / "etc/luminate/secrets/jwt-secret"
    token = run(
        luminate(), "token", "create", f"--secret-file={secret}", "--tenant=main", "--scope=write,read,admin"
    ).stdout.strip()
    file = service.root / "token"
    file.write_text(token)
    now = int(time.time() * 1000)
    line = json.dumps({"metric": {"__name__": "edge_answer"}, "values": [42], "timestamps": [now]})
    run(luminate(), "import", "--server", service.public, f"--token.file={file}", "--tenant=main", input=line + "\n")
    assert '"42"' in get(f"{service.public}/api/v1/query?query=edge_answer", token)[1]
    assert get(f"{service.public}/api/v1/query?query=edge_answer")[0] == 401

    if "max_points: 2000" in (service.root / "etc/luminate/luminate.yaml").read_text():
        # The small board turns away what is too much for it.
        assert post(f"{service.public}/api/v1/write", token, bytes(2 << 20)) == 413
        many = f"start={now // 1000 - 3000}&end={now // 1000}&step=1&query=edge_answer"
        assert get(f"{service.public}/api/v1/query_range?{many}", token)[0] in (400, 422)

    # To the disk and through a compaction, with the system calls of the unit.
    run(luminate(), "admin", "flush", "--server", service.admin, f"--token.file={file}")
    assert '"42"' in get(f"{service.public}/api/v1/query?query=edge_answer", token)[1]
    assert (service.root / "var/log/luminate/audit.json").stat().st_size > 0

    *checks, reload = service.unit.all("ExecReload")
    for words in checks:
        with service.command(shlex.split(words)) as check:
            assert check.wait(60) == 0, check.said()
    assert reload == "/bin/kill -HUP $MAINPID"
    begun = service.said().count('"reloaded"')
    service.signal(signal.SIGHUP)
    if yaml.safe_load((service.root / "etc/luminate/luminate.yaml").read_text())["log"].get("level") != "warn":
        until("it reads again", lambda: service.said().count('"reloaded"') > begun)
    assert get(f"{service.public}/health/ready")[0] == 200

    service.signal(signal.SIGTERM)
    assert service.wait(seconds(service.unit.last("TimeoutStopSec"))) == 0, service.said()
    for line in service.said().splitlines():
        assert json.loads(line)["level"] in ("info", "debug"), line


def test_the_filter_is_in_effect(tmp_path):
    install(tmp_path)
    unit = unit_of(tmp_path)
    # What a server has no business with; and writing anywhere but in its own directories.
    for words in (
        "touch /usr/luminate", "touch /etc/luminate/luminate.yaml", "touch /var/luminate",
        # Its own directory to itself, which only the filter minds.
        "chown 10001 /var/lib/luminate",
    ):
        with confined.Running(unit, tmp_path, shlex.split(words)) as refused:
            assert refused.wait(60) != 0, words
    with confined.Running(unit, tmp_path, ["touch", "/var/lib/luminate/it"]) as fine:
        assert fine.wait(60) == 0, fine.said()
    calls = confined.allowed_calls(unit)
    assert {"openat", "epoll_wait", "fdatasync"} <= calls
    assert not {"mount", "ptrace", "bpf", "setuid", "init_module", "keyctl", "chown"} & calls


# The small board


def test_the_small_boards_limits_are_in_effect(tmp_path):
    install(tmp_path, "--small-board")
    printed = yaml.safe_load(
        run(luminate(), "config", "print", "--config.file", tmp_path / "etc/luminate/luminate.yaml",
            env={"LUMINATE_AUTH__JWT__SECRET_FILE": str(tmp_path / "etc/luminate/secrets/jwt-secret")}).stdout
    )
    written = yaml.safe_load((SYSTEMD / "small-board.yaml").read_text())

    def compare(written, printed, path=""):
        for key, value in written.items():
            if isinstance(value, dict):
                compare(value, printed[key], f"{path}{key}.")
            elif key != "secret_file":
                assert printed[key] == value, f"{path}{key}"

    compare(written, printed)
    defaults = yaml.safe_load(run(luminate(), "config", "print", env={}).stdout)
    for path in (
        "server.limits.max_connections", "server.limits.max_body_bytes", "server.limits.max_decompressed_bytes",
        "server.limits.max_in_flight_bytes", "query.max_samples", "query.max_concurrency", "query.max_points",
        "storage.embedded.ballast", "limits.defaults.max_active_series", "auth.api_keys.cache_size",
    ):
        bounded, usual = printed, defaults
        for key in path.split("."):
            bounded, usual = bounded[key], usual[key]
        assert bounded != usual, path

    unit = unit_of(tmp_path)
    assert unit.last("MemoryMax") == "64M"
    assert unit.environment()["MIMALLOC_ALLOW_THP"] == "0"
    # Without --small-board the next time, its bounds stay, as its configuration does.
    install(tmp_path)
    assert unit_of(tmp_path).last("MemoryMax") == "64M"


def test_the_allocator_heeds_what_the_small_board_asks(tmp_path):
    """What the drop-in sets is read: the allocator says so itself."""
    unit = Unit(SYSTEMD / "small-board.conf")
    done = run(luminate(), "version", env={**unit.environment(), "MIMALLOC_VERBOSE": "1"})
    said = done.stdout + done.stderr
    for name, value in unit.environment().items():
        if name.startswith("MIMALLOC_"):
            assert re.search(rf"option '{name.removeprefix('MIMALLOC_').lower()}': {value}\b", said), said


# Forwarding


class Plain:
    """A server for callers with tokens, on ports of its own, and a token of its tenant main that may do all."""

    def __init__(self, folder):
        folder.mkdir()
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        secret = folder / "secret"
        secret.write_text(secrets.token_hex(32))
        config = {
            "server": {"listen": f"127.0.0.1:{self.port}"},
            "auth": {"mode": "token", "jwt": {"secret_file": str(secret)}},
            "storage": {"embedded": {"data_dir": str(folder / "data"), "ballast": "1MiB"}},
        }
        (folder / "luminate.yaml").write_text(yaml.safe_dump(config))
        self.token_file = folder / "token"
        words = ["token", "create", f"--secret-file={secret}", "--tenant=main", "--scope=write,read"]
        self.token_file.write_text(run(luminate(), *words).stdout.strip())
        self.command = [luminate(), "serve", f"--config.file={folder}/luminate.yaml", "--log.level=error"]
        self.start()

    def start(self):
        self.process = subprocess.Popen(self.command)
        until("the server is ready", lambda: get(f"{self.url}/health/ready")[0] == 200)

    def stop(self):
        self.process.terminate()
        assert self.process.wait(60) == 0

    def value(self, query):
        """What one number a query gives, or None."""
        status, body = get(f"{self.url}/api/v1/query?query={urllib.parse.quote(query)}", self.token_file.read_text())
        assert status == 200, body
        result = json.loads(body)["data"]["result"]
        return float(result[0]["value"][1]) if result else None


@pytest.fixture
def edge_and_centre(tmp_path):
    servers = Plain(tmp_path / "edge"), Plain(tmp_path / "centre")
    yield servers
    for server in servers:
        server.process.kill()
        server.process.wait()


def page_block(language, *words):
    """The block of the page here that has all these words."""
    blocks = re.findall(rf"```{language}\n(.*?)```", (SYSTEMD / "README.md").read_text(), flags=re.S)
    (block,) = [block for block in blocks if all(word in block for word in words)]
    return block


def test_a_prometheus_writes_to_the_edge_and_to_the_centre(edge_and_centre, tmp_path):
    """As the page here says: both get it, and one that is away gets it later."""
    edge, centre = edge_and_centre
    own = free_port()
    text = page_block("yaml", "remote_write:")
    for said, here in {
        "http://127.0.0.1:8080": edge.url, "https://luminate.example.com": centre.url,
        "/etc/prometheus/edge-token": edge.token_file, "/etc/prometheus/centre-token": centre.token_file,
        'node_.*|up': 'go_goroutines|up',
    }.items():
        assert said in text
        text = text.replace(said, str(here))
    config = yaml.safe_load(text) | {
        "global": {"scrape_interval": "1s"},
        "scrape_configs": [{"job_name": "own", "static_configs": [{"targets": [f"127.0.0.1:{own}"]}]}],
    }
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
    command = [
        program("prometheus"), f"--config.file={tmp_path}/prometheus.yml", f"--storage.tsdb.path={tmp_path}/data",
        f"--web.listen-address=127.0.0.1:{own}", "--log.level=error",
    ]
    prometheus = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        until("both have it", lambda: edge.value("up") == 1 and centre.value("up") == 1)
        # Less of it goes to the centre.
        until("the edge has the rest", lambda: edge.value("count(prometheus_build_info)") == 1)
        assert centre.value("count(prometheus_build_info)") is None

        centre.stop()
        had = edge.value("count_over_time(up[1h])")
        until("the edge has more", lambda: edge.value("count_over_time(up[1h])") > had + 3)
        centre.start()
        from_edge = edge.value("count_over_time(up[1h])")
        until("the centre has what it missed", lambda: (centre.value("count_over_time(up[1h])") or 0) >= from_edge)
    finally:
        prometheus.kill()
        prometheus.wait()


def test_what_the_edge_kept_is_moved_and_goes_on_where_it_was(edge_and_centre, tmp_path):
    """The command of the page here, with the centre away at first, and again when it is there and after that."""
    edge, centre = edge_and_centre
    now = int(time.time() * 1000)
    times = [now - 60_000 * minute for minute in range(60)]
    lines = "".join(
        json.dumps({"metric": {"__name__": "kept", "i": str(i)}, "values": [i] * len(times), "timestamps": times}) + "\n"
        for i in range(50)
    )
    run(luminate(), "import", "--server", edge.url, "--token.file", edge.token_file, "--tenant", "main", input=lines)

    script = page_block("bash", "luminate export", "luminate import")
    for said, here in {
        "http://127.0.0.1:8080": edge.url, "https://luminate.example.com": centre.url,
        " edge-token": f" {edge.token_file}", " centre-token": f" {centre.token_file}",
        "--resume forwarded": f"--patience 1s --resume {tmp_path}/forwarded",
    }.items():
        assert said in script
        script = script.replace(said, here)
    script = "set -o pipefail\n" + re.sub(r"\bluminate (export|import)", rf"{luminate()} \1", script)

    centre.stop()
    assert run("bash", "-c", script, check=False).returncode != 0
    centre.start()
    assert centre.value('count(kept)') is None
    for _ in range(2):
        run("bash", "-c", script)
        assert centre.value('sum(count_over_time(kept{site="edge-1"}[2h]))') == 50 * 60
    assert centre.value("count(kept)") == 50


# Installing


def tree(root):
    return {
        str(path.relative_to(root)): (oct(path.stat().st_mode & 0o777), path.read_bytes())
        for path in sorted(root.rglob("*")) if path.is_file()
    }


def test_installing_again_changes_nothing(tmp_path):
    install(tmp_path)
    once = tree(tmp_path)
    assert once["etc/luminate/secrets/jwt-secret"][0] == "0o400"
    assert (tmp_path / "etc/luminate/secrets").stat().st_mode & 0o777 == 0o700
    assert len(once["etc/luminate/secrets/jwt-secret"][1].strip()) == 64
    assert once["usr/local/bin/luminate"][0] == "0o755"
    install(tmp_path)
    assert tree(tmp_path) == once


def test_what_the_operator_changed_is_kept(tmp_path):
    install(tmp_path)
    config = tmp_path / "etc/luminate/luminate.yaml"
    config.write_text("auth: {mode: token}\nstorage: {retention: {default: 5d}}\n")
    done = install(tmp_path)
    assert "5d" in config.read_text()
    assert ".dist" in done.stdout
    assert (tmp_path / "etc/luminate/luminate.yaml.dist").read_text() == (SYSTEMD / "luminate.yaml").read_text()


def other_version(folder, text="exec {} \"$@\""):
    """Another program: the real one, in a script."""
    file = folder / "other"
    file.write_text("#!/bin/sh\n" + text.format(luminate()) + "\n")
    file.chmod(0o755)
    return file


def test_an_upgrade_can_be_undone(tmp_path):
    root = tmp_path / "root"
    install(root)
    bin = root / "usr/local/bin"
    real = (bin / "luminate").read_bytes()
    other = other_version(tmp_path)
    run(SYSTEMD / "install.sh", "--destdir", root, "--binary", other)
    assert (bin / "luminate").read_bytes() == other.read_bytes()
    assert (bin / "luminate.previous").read_bytes() == real
    run(SYSTEMD / "install.sh", "--destdir", root, "--rollback")
    assert (bin / "luminate").read_bytes() == real
    assert (bin / "luminate.previous").read_bytes() == other.read_bytes()


@pytest.mark.parametrize(
    "change, told",
    [
        (lambda root, other: other.write_text("#!/bin/sh\nexit 1\n"), "does not run on this machine"),
        (lambda root, other: (root / "etc/luminate/luminate.yaml").write_text("servre: {}\n"), "servre"),
        (lambda root, other: other.unlink(), "no program at"),
    ],
    ids=["a program that does not run", "a configuration with a mistake", "no program"],
)
def test_what_cannot_work_changes_nothing(tmp_path, change, told):
    root = tmp_path / "root"
    install(root)
    other = other_version(tmp_path)
    change(root, other)
    before = tree(root)
    done = run(SYSTEMD / "install.sh", "--destdir", root, "--binary", other, check=False)
    assert done.returncode != 0
    assert told in done.stderr
    assert tree(root) == before


def test_uninstalling_keeps_what_is_stored_unless_told(tmp_path):
    install(tmp_path, "--small-board", "--prefix", "/opt/lum")
    data = tmp_path / "var/lib/luminate/parts"
    data.mkdir(parents=True)
    (data / "1").write_text("samples")
    assert "/opt/lum/bin/luminate serve" in (tmp_path / "etc/systemd/system/luminate.service").read_text()
    # An upgrade goes to where it is, and so does what takes it away.
    install(tmp_path)
    assert not (tmp_path / "usr").exists()
    for _ in range(2):
        run(SYSTEMD / "uninstall.sh", "--destdir", tmp_path)
        assert set(tree(tmp_path)) == {
            "etc/luminate/luminate.yaml", "etc/luminate/secrets/jwt-secret", "var/lib/luminate/parts/1"
        }
    # Installed again, it is as it was.
    secret = (tmp_path / "etc/luminate/secrets/jwt-secret").read_text()
    install(tmp_path)
    assert (tmp_path / "etc/luminate/secrets/jwt-secret").read_text() == secret
    run(SYSTEMD / "uninstall.sh", "--destdir", tmp_path, "--purge")
    assert tree(tmp_path) == {}


def test_wrong_words_are_refused(tmp_path):
    for script in ("install.sh", "uninstall.sh"):
        for words, told in [
            (["--everything"], "unknown option --everything"), (["--prefix"], "--prefix needs a value"),
            (["--prefix", "here"], "a path from /"), (["--destdir", ""], "--destdir needs a value"),
        ]:
            done = run(SYSTEMD / script, "--destdir", tmp_path, *words, check=False)
            assert done.returncode == 1 and told in done.stderr, done.stderr
        assert "--destdir" in run(SYSTEMD / script, "--help").stdout
    done = run(SYSTEMD / "install.sh", "--destdir", tmp_path, luminate(), "/bin/true", check=False)
    assert done.returncode == 1 and "one program" in done.stderr
    assert not tree(tmp_path)


SYSTEMCTL = """#!/bin/sh
echo "$@" >>/run/told
case $1 in
--version) echo "systemd 252 (252.1)" ;;
restart) ! grep -q "does not become ready" /usr/local/bin/luminate ;;
esac
"""


def on_a_machine(tmp_path, script):
    """Runs a script as root of a machine whose /etc, /usr/local, /run and /var are new, and whose systemctl is ours; gives
    what it said, and what systemctl was told."""
    fake = tmp_path / "fake"
    fake.mkdir(exist_ok=True)
    for name, text in {"systemctl": SYSTEMCTL, "systemd-sysusers": "#!/bin/sh\necho sysusers \"$@\" >>/run/told\n"}.items():
        (fake / name).write_text(text)
        (fake / name).chmod(0o755)
    folders = [word for folder in ("/etc", "/usr/local", "/var") for word in ("--tmpfs", folder)]
    done = run(
        program("bwrap"), "--unshare-user", "--uid", "0", "--gid", "0", "--ro-bind", "/", "/", *folders,
        "--tmpfs", "/run", "--dir", "/run/systemd/system", "--dev", "/dev", "--proc", "/proc",
        "--setenv", "TMPDIR", "/run", "--setenv", "PATH", f"{fake}:/usr/bin:/bin:/usr/sbin:/sbin", "--setenv", "NEW", luminate(),
        "bash", "-c", f"cd {SYSTEMD}\n{{ {script}; }} 2>&1\necho ---; cat /run/told", check=False,
    )
    said, told = done.stdout.split("---\n")
    return said, [line for line in told.splitlines() if line != "--version"]


def test_a_machine_with_systemd_is_told_what_to_do(tmp_path):
    said, told = on_a_machine(tmp_path, 'DESTDIR= ./install.sh --binary "$NEW" && DESTDIR= ./uninstall.sh && ls /etc/luminate')
    assert "it is ready" in said and "luminate.yaml\nsecrets\n" in said
    assert told == [
        "sysusers /etc/sysusers.d/luminate.conf", "daemon-reload", "enable --quiet luminate.service",
        "restart luminate.service", "cat luminate.service", "disable --now --quiet luminate.service", "daemon-reload",
    ]


def test_a_version_that_does_not_become_ready_is_taken_back(tmp_path):
    bad = other_version(tmp_path, 'exec {} "$@" # does not become ready')
    said, told = on_a_machine(
        tmp_path,
        f'./install.sh --binary "$NEW"; ./install.sh --binary {bad}; echo "code $?"; '
        'cmp "$NEW" /usr/local/bin/luminate && echo "as before"',
    )
    assert "the old one is back and runs" in said and "code 1" in said and "as before" in said
    assert told.count("restart luminate.service") == 3


def test_what_ran_last_is_never_lost(tmp_path):
    """Neither by a version that does not become ready, nor by an installation that was interrupted, nor by a rollback
    to what no longer becomes ready."""
    older = other_version(tmp_path, 'exec {} "$@" # older').rename(tmp_path / "older")
    bad = other_version(tmp_path, 'exec {} "$@" # does not become ready')
    bin, unit = "/usr/local/bin/luminate", "/etc/systemd/system/luminate.service"
    said, told = on_a_machine(
        tmp_path,
        f'./install.sh {older}; ./install.sh "$NEW"; ./install.sh {bad}; cmp {older} {bin}.previous && echo "1 kept"; '
        # Killed while it waited for the service: what ran is put back, by the next one that does not become ready.
        f'cp -p {bin} {bin}.before; cp -p {unit} {unit}.before; cp {bad} {bin}; echo broken >{unit}; ./install.sh {bad}; '
        f'cmp "$NEW" {bin} && grep -q ExecStart {unit} && echo "2 kept"; '
        # Or when it is taken back.
        f'cp -p {bin} {bin}.before; cp {bad} {bin}; ./install.sh --rollback && cmp "$NEW" {bin} && echo "3 kept"; '
        f'cp {bad} {bin}.previous; ./install.sh --rollback || cmp "$NEW" {bin} && echo "4 kept"; ls /usr/local/bin',
    )
    assert [line for line in said.splitlines() if line.endswith(" kept")] == ["1 kept", "2 kept", "3 kept", "4 kept"], said
    assert said.endswith("4 kept\nluminate\n"), said


def test_folders_of_the_machine_stay_as_they_are(tmp_path):
    for folder, mode in {"usr/local/bin": 0o2775, "etc/luminate": 0o750, "etc/systemd/system": 0o700}.items():
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder).chmod(mode)
    before = {path: path.stat().st_mode for path in tmp_path.rglob("*") if path.is_dir()}
    install(tmp_path)
    assert {path: path.stat().st_mode for path in before} == before


def test_nothing_is_drawn_if_the_first_program_does_not_take_the_configuration(tmp_path):
    (tmp_path / "root/etc/luminate").mkdir(parents=True)
    (tmp_path / "root/etc/luminate/luminate.yaml").write_text("servre: {}\n")
    done = run(SYSTEMD / "install.sh", "--destdir", tmp_path / "root", luminate(), check=False)
    assert "nothing was changed" in done.stderr
    assert set(tree(tmp_path)) == {"root/etc/luminate/luminate.yaml"}


def test_a_machine_becomes_a_small_board(tmp_path):
    install(tmp_path)
    config = tmp_path / "etc/luminate/luminate.yaml"
    # Nobody changed it.
    install(tmp_path, "--small-board")
    assert config.read_text() == (SYSTEMD / "small-board.yaml").read_text()
    # Somebody's own is kept, and the bounds that do not fit it are told.
    run(SYSTEMD / "uninstall.sh", "--destdir", tmp_path)
    config.write_text("auth: {mode: token}\n")
    done = install(tmp_path, "--small-board")
    assert config.read_text() == "auth: {mode: token}\n" and "NOTE: small-board.conf bounds memory" in done.stdout


def test_nobody_but_root_and_nothing_without_systemd(tmp_path):
    machine = [program("bwrap"), "--unshare-user", "--ro-bind", "/", "/", "--tmpfs", "/run", "--dev", "/dev"]
    for words, told in [(["--uid", "1000"], "only root can install"), (["--uid", "0"], "systemd does not run here")]:
        done = run(*machine, *words, SYSTEMD / "install.sh", "--binary", luminate(), check=False, env={"PATH": "/usr/bin:/bin"})
        assert done.returncode == 1 and told in done.stderr
