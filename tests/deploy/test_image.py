"""The image: what its Dockerfile says, what is in it, and how a container of it behaves."""

import contextlib
import json
import os
import re
import signal
import socket
import stat
import struct
import subprocess
import threading
import time
import tomllib
import urllib.request
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

import image as images
from contained import Container, Network, project
from house import ROOT, documents, kustomize, pod_templates, program, run

LUMINATE = "/usr/local/bin/luminate"
CARGO = tomllib.loads((ROOT / "Cargo.toml").read_text())
OPEN = {"LUMINATE_AUTH__FORCE_UNAUTHENTICATED": "true"}
DOCKERFILES = sorted(path for path in ROOT.rglob("Dockerfile*") if "target" not in path.relative_to(ROOT).parts)


@pytest.fixture
def network():
    with Network() as network:
        yield network


@pytest.fixture
def data(tmp_path):
    """A volume for the data directory."""
    folder = tmp_path / "data"
    folder.mkdir()
    return {"/var/lib/luminate": (folder, "rw")}


def until(what, container, seconds=60):
    """Waits until `what()` is true, as long as the container runs."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if what():
            return
        assert container.running, f"{container.returncode}\n{container.stdout}{container.stderr}"
        time.sleep(0.05)
    pytest.fail(f"not in {seconds} s\n{container.stdout}{container.stderr}", pytrace=False)


@contextlib.contextmanager
def serving(image, *arguments, **options):
    """A container that is ready."""
    with Container(image, *arguments, **options) as container:
        until(container.healthy, container)
        yield container


# The Dockerfile.


@pytest.mark.parametrize("path", [p for p in DOCKERFILES if p.suffix != ".dockerignore"], ids=lambda p: p.name)
def test_the_dockerfile_has_no_findings(path):
    found = run(program("hadolint"), "--failure-threshold", "style", path, check=False)
    assert found.returncode == 0, found.stdout


def test_the_build_sees_what_it_copies_and_nothing_else():
    seen = images.context()
    copied = [
        word
        for name, value in images.instructions()
        if name == "COPY" and "--from" not in value
        for word in value.split()[:-1]
    ]
    for path in seen:
        assert any(path == source or path.startswith(f"{source}/") for source in copied), f"{path} is seen for nothing"
    assert sum((ROOT / path).stat().st_size for path in seen) < 10_000_000


def test_the_build_sees_what_the_source_includes():
    seen = set(images.context())
    for path in sorted(seen):
        if path.endswith(".rs") and "tests" not in path:
            # The unit tests, at the end of a file, are not built.
            built = (ROOT / path).read_text().partition("#[cfg(test)]\nmod ")[0]
            for included in re.findall(r'include_(?:str|bytes)!\("([^"]+)"\)', built):
                assert os.path.normpath(Path(path).parent / included) in seen, f"{path} includes {included}"


def test_the_bases_are_named_by_version():
    defaults = [value.split("=", 1) for name, value in images.instructions() if name == "ARG" and "/" in value]
    assert {name for name, _ in defaults} == {"BUILDER", "PYTHON", "RUNTIME"}
    for name, reference in defaults:
        tag = reference.rpartition(":")[2]
        # The runtime's has its version in its name.
        assert re.search(r"\d", tag) or (tag == "nonroot" and reference.split(":")[0][-1].isdigit()), f"{name}={reference}"
    versions = [value.split("=")[1] for name, value in images.instructions() if name == "ARG" and value.startswith("BUILDER")]
    assert f"rust:{CARGO['package']['rust-version']}-" in versions[0]


def test_the_image_says_what_it_is(image):
    assert image.labels["org.opencontainers.image.version"] == CARGO["package"]["version"]
    assert image.labels["org.opencontainers.image.licenses"] == CARGO["package"]["license"]
    assert image.labels["org.opencontainers.image.description"] == CARGO["package"]["description"]
    assert image.labels["org.opencontainers.image.base.name"] == image.base
    assert image.stop_signal == "SIGTERM"


def test_the_image_is_what_the_manifests_take_it_for(image):
    for folder in [".", "overlays/scalable", "overlays/standalone"]:
        objects = [document for document in documents(kustomize(folder))]
        pods = [template["spec"] for document in objects for template in pod_templates(document)]
        ours = [
            (pod, container) for pod in pods for container in pod["containers"] if "/luminate:" in container["image"]
        ]
        assert ours, folder
        for pod, container in ours:
            assert container["image"].endswith(f":{CARGO['package']['version']}")
            security = {**pod["securityContext"], **container["securityContext"]}
            assert (security["runAsUser"], security["runAsGroup"]) == image.ids
            assert {port["containerPort"] for port in container["ports"]} <= set(image.ports)
            hooks = [hook["exec"]["command"] for hook in container.get("lifecycle", {}).values()]
            for command in [*hooks, container.get("command", image.entrypoint)]:
                assert command[0] in image.added, command


@pytest.mark.parametrize(
    "step, why",
    [
        ("RUN true", "no shell"),
        ("VOLUME /data", "no step of ours"),
        ("COPY README.md /", "not in the build context"),
        ("COPY --from=build /out/nothing /", "has not made it"),
        ("COPY --link LICENSE /", "not understood"),
        ("LABEL a=${NOBODY_SAID}", "not declared"),
        ("FROM docker.io/library/debian:trixie", "nothing stands in"),
    ],
)
def test_a_step_that_cannot_be_tried_is_an_error(tmp_path, step, why):
    file = tmp_path / "Dockerfile"
    before = ["FROM docker.io/library/rust:1 AS build", "WORKDIR /out", "FROM gcr.io/distroless/cc-debian13:nonroot"]
    file.write_text("\n".join([*before, step, ""]))
    with pytest.raises(AssertionError, match=why):
        images.build(tmp_path / "work", path=file)


def test_a_dockerignore_is_read_as_docker_reads_it(tmp_path):
    for path in ["a/b/c.txt", "a/d.txt", "e.txt", "f/g.md", "f/h.txt"]:
        (tmp_path / "tree" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tree" / path).write_text("")
    for rules, left in [
        ("", ["a/b/c.txt", "a/d.txt", "e.txt", "f/g.md", "f/h.txt"]),
        ("# a comment\n\na\n", ["e.txt", "f/g.md", "f/h.txt"]),
        ("*\n!a/b\n!e.txt\n", ["a/b/c.txt", "e.txt"]),
        # A star stops at a slash, and the last rule that fits counts.
        ("*.txt\n", ["a/b/c.txt", "a/d.txt", "f/g.md", "f/h.txt"]),
        ("*/*.txt\n!f/h.txt\n", ["a/b/c.txt", "e.txt", "f/g.md", "f/h.txt"]),
        ("!a\na/b\n", ["a/d.txt", "e.txt", "f/g.md", "f/h.txt"]),
    ]:
        (tmp_path / "ignore").write_text(rules)
        assert images.context(tmp_path / "ignore", tmp_path / "tree") == left, rules


# The root filesystem.


def test_there_is_nothing_to_run_but_the_binary(image):
    programs, risky = [], []
    for path in image.root.rglob("*"):
        mode, name = path.lstat().st_mode, "/" + str(path.relative_to(image.root))
        if stat.S_ISREG(mode) and mode & 0o111 and ".so" not in path.name and path.open("rb").read(2) in (b"\x7fE", b"#!"):
            programs.append(name)
        if stat.S_ISREG(mode) and mode & 0o6000 or not stat.S_ISLNK(mode) and mode & 0o002 and not mode & stat.S_ISVTX:
            risky.append(name)
    scripts = [name for name in programs if not name.startswith(("/usr/share/doc/", "/etc/update-motd.d/"))]
    assert scripts == [LUMINATE]
    assert risky == []
    for shell in ["/bin/sh", "/bin/bash", "/bin/busybox"]:
        with Container(image, command=[shell]) as container:
            assert container.wait() != 0 and "no such file" in container.stderr


def test_files_belong_to_whom_they_should(image):
    owned = {}
    for name in image.added:
        status = (image.root / name[1:]).stat()
        owned[name] = (status.st_uid, stat.S_IMODE(status.st_mode))
    assert owned.pop(LUMINATE) == (0, 0o755)
    assert owned.pop("/var/lib/luminate") == (10001, 0o755)
    assert {(user, mode & 0o022) for user, mode in owned.values()} == {(0, 0)}


def test_every_library_is_there(image):
    (loader,) = (image.root / "usr/lib64").glob("ld-linux*") if os.uname().machine == "x86_64" else [
        image.root / "usr/lib/ld-linux-aarch64.so.1"]
    with Container(image, command=["/" + str(loader.relative_to(image.root)), "--list", LUMINATE]) as container:
        assert container.wait() == 0, container.stderr
        assert "libc.so.6" in container.stdout and "not found" not in container.stdout


def bill(image):
    return (image.root / "usr/share/luminate/luminate.cdx.json").read_text()


def test_the_bill_of_materials_is_valid(image):
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(bill(image)) is None
    broken = {**json.loads(bill(image)), "components": [{"type": "library"}], "dependencies": []}
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(broken)) is not None


def test_the_bill_of_materials_names_what_is_locked_and_compiled_in(image):
    lock = {(p["name"], p["version"]): p for p in tomllib.loads((ROOT / "Cargo.lock").read_text())["package"]}
    listed = json.loads(bill(image))
    ours = listed["metadata"]["component"]
    assert (ours["name"], ours["version"]) == ("luminate", CARGO["package"]["version"])
    for component in listed["components"]:
        (checksum,) = component["hashes"]
        assert lock[component["name"], component["version"]]["checksum"] == checksum["content"]
        assert component["licenses"], component["name"]
    names = {component["name"] for component in listed["components"]}
    crates = {spec.get("package", name) if isinstance(spec, dict) else name for name, spec in CARGO["dependencies"].items()}
    assert crates <= names
    # What only tests and other systems need.
    assert not names & {*CARGO["dev-dependencies"], "windows-sys", "schannel"}
    # Every crate is somebody's dependency, and every dependency is listed.
    edges = {node["ref"]: set(node.get("dependsOn", [])) for node in listed["dependencies"]}
    refs = {component["bom-ref"] for component in listed["components"]}
    assert set().union(*edges.values()) == refs and set(edges) == {ours["bom-ref"], *refs}


def test_the_bill_of_materials_is_the_same_each_time(image):
    metadata = image.root.parent / "stage-build" / "out" / "metadata.json"
    again = run(program("python"), ROOT / "docker" / "sbom", metadata, ROOT / "Cargo.lock").stdout
    assert again == bill(image)


# Its containers.


def test_it_says_its_version_and_how_to_use_it(image):
    for arguments, said in [(["version"], f"luminate {CARGO['package']['version']}\n"), (["--help"], "Usage: luminate")]:
        with Container(image, arguments) as container:
            assert container.wait() == 0, container.stderr
            assert said in container.stdout


def test_without_a_word_about_who_may_it_refuses_and_says_what_to_do(image, data):
    with Container(image, mounts=data) as container:
        assert container.wait() == 2
        assert "0.0.0.0:8080" in container.stderr and "auth.force_unauthenticated" in container.stderr
        assert container.stdout == ""


def test_what_the_dockerfile_tells_a_newcomer_works(image, network, data):
    head = images.DOCKERFILE.read_text().partition("\nARG ")[0]
    (command,) = re.findall(r"# +docker run ([^\n]+\\\n[^\n]+)", head)
    words = command.replace("\\\n#", " ").split()
    assert words[-1] == "luminate" and "--read-only" in words and "luminate-data:/var/lib/luminate" in words
    env = dict(words[n + 1].split("=", 1) for n, word in enumerate(words) if word == "-e")
    with serving(image, env=env, mounts=data, network=network) as container:
        # Host names as a browser on the machine sends them, through the published port.
        with network.inside():
            with urllib.request.urlopen("http://localhost:8080/api/v1/query?query=vector(1)") as answer:
                assert json.load(answer)["status"] == "success"
        lines = '{"metric":{"__name__":"kept"},"values":[7],"timestamps":[%d]}\n' % (time.time() * 1000)
        assert container.exec([LUMINATE, "import"], input=lines).returncode == 0
        assert container.stop() == 0
    # And it is still there in the next container.
    with serving(image, env=env, mounts=data, network=network) as container:
        assert "7" in container.exec([LUMINATE, "query", "-o", "json", "kept"]).stdout


def test_it_takes_tokens_as_the_dockerfile_says(image, network, data, tmp_path):
    head = images.DOCKERFILE.read_text().partition("\nARG ")[0]
    env = dict(re.findall(r"-e (LUMINATE_AUTH__(?:MODE|JWT)\w*)=(\S+)", head))
    assert set(env) == {"LUMINATE_AUTH__MODE", "LUMINATE_AUTH__JWT__SECRET_FILE"}
    secret = project(tmp_path / "secrets", {"jwt-secret": "q8Jm2vX0Zt5Lr9Wc4Ny7Kb1Hd6Gf3Se0Pa"})
    with serving(image, env=env, mounts={**data, "/run/secrets": (secret, "ro")}, network=network):
        with network.inside(), pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen("http://127.0.0.1:8080/api/v1/query?query=1")
    assert refused.value.code == 401


def test_a_configuration_mounted_over_its_own_is_the_one_that_counts(image, network, tmp_path):
    config = {"luminate.yaml": "server: {listen: '127.0.0.1:9999'}\nstorage: {embedded: {data_dir: /tmp/elsewhere}}\n"}
    mounts = {"/etc/luminate": (project(tmp_path / "config", config), "ro")}
    with serving(image, mounts=mounts, tmpfs=["/tmp"], network=network):
        with network.inside(), urllib.request.urlopen("http://127.0.0.1:9999/health/ready") as answer:
            assert answer.status == 200


def test_the_health_check_tells_a_server_that_is_not_there(image, network, data):
    with Container(image, ["sleep", "600"], env=OPEN, network=network) as container:
        checked = container.exec(image.healthcheck)
        assert checked.returncode == 1, checked.stdout + checked.stderr
        help = container.exec([LUMINATE, "healthcheck", "--help"]).stdout
    with serving(image, env=OPEN, mounts=data, network=network) as container:
        assert container.exec(image.healthcheck).returncode == 0
    # Docker waits longer for the command than the command for the answer, or nothing would say why.
    (patience,) = re.findall(r"--timeout .*\[default: (\d+)s\]", help)
    assert int(image.healthcheck_options["timeout"].rstrip("s")) > int(patience)


def test_it_has_no_rights(image, network, data):
    with serving(image, env=OPEN, mounts=data, network=network) as container:
        status = dict(line.split(":\t", 1) for line in Path(f"/proc/{container.pid}/status").read_text().splitlines())
    assert status["Uid"].split() == ["10001"] * 4 and status["Gid"].split() == ["10001"] * 4
    assert {status[name] for name in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"]} == {"0" * 16}
    assert status["NoNewPrivs"] == "1" and status["Seccomp"] == "2"
    assert status["NSpid"].split()[-1] == "1"


def test_it_runs_as_anybody(image, network, data):
    """Where a cluster chooses the user, as OpenShift does."""
    with serving(image, user=1234567, group=0, env=OPEN, mounts=data, network=network) as container:
        assert container.stop() == 0


@pytest.mark.parametrize("arguments", [[], ["query", "up"], ["schema", "apply"], ["key", "list"]], ids=" ".join)
def test_it_writes_to_its_data_directory_alone(image, network, data, arguments):
    with Container(image, arguments or None, env=OPEN, mounts=data, network=network, read_only=False) as container:
        if not arguments:
            until(container.healthy, container)
            container.stop()
        container.wait()
        assert container.changed == []
    assert bool(os.listdir(data["/var/lib/luminate"][0])) == (not arguments)


def test_without_a_place_for_data_it_says_so(image, network):
    with Container(image, env=OPEN, network=network) as container:
        assert container.wait() != 0
        said = container.stdout + container.stderr
        assert "/var/lib/luminate" in said and "ead-only file system" in said, said


def test_over_clickhouse_it_writes_nowhere(image, network):
    env = {**OPEN, "LUMINATE_STORAGE__BACKEND": "clickhouse", "LUMINATE_STORAGE__CLICKHOUSE__ADDRESSES": "http://127.0.0.1:8123"}
    with Container(image, env=env, network=network, read_only=False) as container:

        def lives():
            with network.inside(), contextlib.suppress(OSError):
                return urllib.request.urlopen("http://127.0.0.1:8080/health/live").status == 200

        until(lives, container)
        assert container.stop() == 0
        assert container.changed == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_as_process_1_it_stops_when_told(image, network, data, number):
    with serving(image, env=OPEN, mounts=data, network=network) as container:
        container.signal(number)
        assert container.wait() == 0
        events = [json.loads(line)["event"] for line in (container.stdout + container.stderr).splitlines()]
        assert events[-2:] == ["stopping", "stopped"]


def test_checks_and_hooks_leave_no_process_behind(image, network, data):
    with serving(image, env=OPEN, mounts=data, network=network) as container:
        for _ in range(3):
            assert container.exec([LUMINATE, "sleep", "10ms"]).returncode == 0
            assert container.healthy()
        # One that is killed, as a health check is that takes too long.
        hook = container.start([LUMINATE, "sleep", "600"])
        space = os.readlink(f"/proc/{container.pid}/ns/pid")

        def inside():
            found = []
            for process in Path("/proc").glob("[0-9]*"):
                with contextlib.suppress(OSError):
                    if os.readlink(process / "ns/pid") == space:
                        found.append(int(process.name))
            return found

        until(lambda: len(inside()) == 2, container)
        (pid,) = set(inside()) - {container.pid}
        os.kill(pid, signal.SIGKILL)
        assert hook.wait(60) != 0
        until(lambda: inside() == [container.pid], container)


def test_no_time_zone_changes_its_times(image, network, data):
    with serving(image, env={**OPEN, "TZ": "Asia/Tokyo"}, mounts=data, network=network) as container:
        lines = (container.stdout + container.stderr).splitlines()
        assert lines and all(json.loads(line)["timestamp"].endswith("Z") for line in lines)


# What it finds in the network.


class Names(threading.Thread):
    """A name server in a network, on 127.0.0.1:53, that knows one name and remembers what it was asked."""

    def __init__(self, network, name, address):
        super().__init__(daemon=True)
        self.name_known, self.address, self.asked = name, address, []
        with network.inside():
            self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self.socket.bind(("127.0.0.1", 53))
        self.start()

    def run(self):
        with contextlib.suppress(OSError):
            while True:
                query, peer = self.socket.recvfrom(512)
                self.socket.sendto(self.answer(query), peer)

    def answer(self, query):
        labels, at = [], 12
        while query[at]:
            labels.append(query[at + 1:at + 1 + query[at]].decode())
            at += 1 + query[at]
        kind, question = struct.unpack("!H", query[at + 1:at + 3])[0], query[12:at + 5]
        self.asked.append(".".join(labels))
        known = self.asked[-1] == self.name_known
        answers = b""
        if known and kind == 1:
            answers = struct.pack("!HHHIH", 0xC00C, 1, 1, 60, 4) + socket.inet_aton(self.address)
        # A name that is known has no other kind of address; one that is not does not exist.
        flags = 0x8180 if known else 0x8183
        return query[:2] + struct.pack("!HHHHH", flags, 1, bool(answers), 0, 0) + question + answers

    def close(self):
        self.socket.close()


def test_names_are_found_as_in_a_cluster(image, data, tmp_path):
    resolv = tmp_path / "resolv.conf"
    resolv.write_text("nameserver 127.0.0.1\nsearch luminate.svc.cluster.local svc.cluster.local\noptions ndots:5\n")
    full = "luminate-svc.luminate.svc.cluster.local"
    with Network("10.96.0.7") as network, contextlib.closing(Names(network, full, "10.96.0.7")) as names:
        mounts = {**data, "/etc/resolv.conf": (resolv, "ro")}
        env = {**OPEN, "LUMINATE_SERVER__ALLOWED_HOSTS": f"luminate-svc,{full},in-a-file"}
        with serving(image, env=env, mounts=mounts, network=network, hosts={"in-a-file": "10.96.0.7"}) as container:

            def query(server):
                return container.exec([LUMINATE, "query", "--server", server, "vector(1)"])

            for name in ["luminate-svc", full, "in-a-file"]:
                asked = query(f"http://{name}:8080")
                assert asked.returncode == 0, asked.stderr
            assert full in names.asked and "in-a-file" not in names.asked
            assert query("http://nobody:8080").returncode != 0


def test_the_certificates_of_the_system_are_there_and_used(image, network, data, tmp_path):
    bundle = (image.root / "etc/ssl/certs/ca-certificates.crt").read_text()
    assert bundle.count("BEGIN CERTIFICATE") > 100
    openssl = [program("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
               "-days", "2"]
    run(*openssl, "-subj", "/CN=ours", "-keyout", tmp_path / "ca.key", "-out", tmp_path / "ca.crt")
    run(*openssl, "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-addext", "basicConstraints=CA:FALSE",
        "-CA", tmp_path / "ca.crt", "-CAkey", tmp_path / "ca.key", "-keyout", tmp_path / "tls.key", "-out", tmp_path / "tls.crt")
    pair = {name: (tmp_path / name).read_text() for name in ["tls.crt", "tls.key"]}
    secret = project(tmp_path / "tls", pair)
    env = {**OPEN, "LUMINATE_SERVER__TLS__CERT_FILE": "/tls/tls.crt", "LUMINATE_SERVER__TLS__KEY_FILE": "/tls/tls.key"}
    (tmp_path / "bundle").write_text(bundle + (tmp_path / "ca.crt").read_text())
    ask = [LUMINATE, "query", "--server", "https://localhost:8080", "vector(1)"]
    server = {"env": env, "mounts": {**data, "/tls": (secret, "ro")}, "network": network}
    with Container(image, **server) as container:

        def asked(**options):
            with Container(image, ask[1:], network=network, **options) as client:
                return client.wait(), client.stdout + client.stderr

        trusting = {"mounts": {"/etc/ssl/certs/ca-certificates.crt": (tmp_path / "bundle", "ro")}}
        until(lambda: asked(**trusting)[0] == 0, container)
        code, said = asked()
        assert code != 0 and "certificate" in said.lower(), said


# Building and pushing it.

DOCKER = """#!/bin/bash
printf '%s\\n' "$*" >>"$RECORD"
case "$*" in
    *"buildx inspect"*) exit "${NO_BUILDER:-0}" ;;
    *"buildx version"*) exit "${NO_BUILDX:-0}" ;;
    *"buildx build"*)
        [[ "$*" =~ --metadata-file\\ ([^ ]+) ]]
        echo '{"containerimage.digest": "sha256:feed"}' >"${BASH_REMATCH[1]}" ;;
esac
"""


def make(tmp_path, target, **env):
    """What `make TARGET` says, with a docker that only remembers what it was told; and what that was."""
    docker = tmp_path / "bin" / "docker"
    docker.parent.mkdir(exist_ok=True)
    docker.write_text(DOCKER)
    docker.chmod(0o755)
    record = tmp_path / "record"
    record.write_text("")
    alien = ("DOCKER", "BUILDX", "MAKE", "VERSION", "PLATFORMS", "BUILDER", "PYTHON", "RUNTIME")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(alien)}
    env = {**clean, "PATH": f"{docker.parent}:{os.environ['PATH']}", "RECORD": str(record), **env}
    done = subprocess.run(["make", target], cwd=ROOT, env=env, capture_output=True, text=True)
    return done, record.read_text().splitlines()


def test_docker_build_builds_for_this_machine(tmp_path):
    done, told = make(tmp_path, "docker-build")
    assert done.returncode == 0, done.stderr
    version = CARGO["package"]["version"]
    assert f"built docker.io/luminate/luminate:{version}" in done.stdout
    build = told[-1]
    assert build.startswith(f"buildx build --file docker/Dockerfile --tag docker.io/luminate/luminate:{version} ")
    assert "--load" in build and "--push" not in build and build.endswith(" .")
    given = re.findall(r"--build-arg (\w+)=", build)
    assert set(given) <= {value.split("=")[0] for name, value in images.instructions() if name == "ARG"}


def test_docker_push_builds_and_pushes_with_attestations(tmp_path):
    done, told = make(
        tmp_path, "docker-push", DOCKER_REGISTRY="registry.example:5000", DOCKER_REPO="team/metrics", VERSION="1.2.3",
        PLATFORMS="linux/amd64,linux/arm64", RUNTIME="gcr.io/distroless/cc-debian13@sha256:abc", NO_BUILDER="1",
    )
    assert done.returncode == 0, done.stderr
    image = "registry.example:5000/team/metrics/luminate"
    assert f"pushed {image}:1.2.3, which is {image}@sha256:feed" in done.stdout
    assert "buildx create --name luminate --driver docker-container" in told
    for option in [f"--tag {image}:1.2.3", "--push", "--sbom=true", "--provenance=mode=max",
                   "--platform linux/amd64,linux/arm64", "--build-arg RUNTIME=gcr.io/distroless/cc-debian13@sha256:abc"]:
        assert option in told[-1]
    # A builder that is named is not made.
    done, told = make(tmp_path, "docker-push", DOCKER_REPO="me", BUILDX_BUILDER="theirs", NO_BUILDER="1")
    assert done.returncode == 0 and not any("create" in line for line in told)


@pytest.mark.parametrize(
    "target, env, why",
    [
        ("docker-push", {}, "DOCKER_REPO is not set"),
        ("docker-push", {"DOCKER_REPO": ""}, "DOCKER_REPO is not set"),
        ("docker-push", {"DOCKER_REPO": "Me"}, "small letters"),
        ("docker-push", {"DOCKER_REPO": "me", "DOCKER_REGISTRY": "https://docker.io"}, "a host like docker.io"),
        ("docker-push", {"DOCKER_REPO": "me", "VERSION": "1.0 beta"}, "no tag"),
        ("docker-push", {"DOCKER_REPO": "me", "PLATFORMS": "arm64"}, "linux/arm64"),
        ("docker-build", {"PLATFORMS": "linux/arm64"}, "docker-push"),
        ("docker-build", {"NO_BUILDX": "1"}, "docker has no buildx"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_built(tmp_path, target, env, why):
    done, told = make(tmp_path, target, **env)
    assert done.returncode != 0 and why in done.stderr, done.stderr
    assert not any("buildx build" in line for line in told)


def test_without_an_engine_it_is_said(tmp_path):
    done, _ = make(tmp_path, "docker-build", PATH=f"{tmp_path / 'none'}:/usr/bin:/bin", DOCKER_HOST=f"unix://{tmp_path}/none")
    assert done.returncode != 0
    assert "no Docker engine answers" in done.stderr or "docker is not installed" in done.stderr


def test_the_bill_of_materials_can_be_had_without_an_image():
    assert "target/luminate.cdx.json" in run("make", "--dry-run", "sbom").stdout
