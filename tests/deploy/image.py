"""The image that docker/Dockerfile describes, built step by step without an engine.

Nothing here is a second description of the image: the Dockerfile is read and each of its instructions carried
out, on root filesystems in a directory. An instruction that this does not know is an error, not skipped. Two
things stand in for what cannot be had here:

* The runtime's base, gcr.io/distroless/cc, is laid out from Debian's packages by `distroless`.
* The builders' bases are this machine, seen read-only: RUN has its tools, but its own files beside them. A
  release build takes too long, so `cargo build` there gives the binary under test; it looks at its arguments,
  all other commands are the real ones.
"""

import fnmatch
import json
import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from dockerfile_parse import DockerfileParser

from house import ROOT, TOOLS, luminate, missing, program

DOCKERFILE = ROOT / "docker" / "Dockerfile"

# What may be built on, and what stands in for it.
RUNTIMES = {"gcr.io/distroless/cc-debian13": TOOLS / "distroless"}
BUILDERS = ("docker.io/library/rust", "docker.io/library/python")


@dataclass
class Image:
    """A root filesystem, and how a container runs in it: what `docker image inspect` shows as Config."""

    root: Path
    env: dict = field(default_factory=dict)
    entrypoint: list = field(default_factory=list)
    cmd: list = field(default_factory=list)
    user: str = "0:0"
    workdir: str = "/"
    ports: list = field(default_factory=list)
    labels: dict = field(default_factory=dict)
    stop_signal: str = "SIGTERM"
    healthcheck: list = field(default_factory=list)
    healthcheck_options: dict = field(default_factory=dict)
    # What in the root filesystem came from the Dockerfile, not from its base.
    added: list = field(default_factory=list)
    base: str = ""

    @property
    def ids(self):
        """The user's and the group's number."""
        user, _, group = self.user.partition(":")
        return int(user), int(group or user)


def instructions(path=DOCKERFILE):
    """The instructions of a Dockerfile in order: (name, value with lines joined)."""
    with open(path, "rb") as file:
        return [
            (step["instruction"], step["value"])
            for step in DockerfileParser(fileobj=file).structure
            if step["instruction"] != "COMMENT"
        ]


def context(ignore=Path(f"{DOCKERFILE}.dockerignore"), root=ROOT):
    """The files of the build context, as paths below `root`: what .dockerignore leaves of them."""
    rules = [line.strip() for line in ignore.read_text().splitlines()]
    rules = [(not rule.startswith("!"), rule.lstrip("!")) for rule in rules if rule and not rule.startswith("#")]

    def excluded(path):
        parts = Path(path).parts
        verdict = False
        for exclude, pattern in rules:
            # A pattern matches a path or whatever lies above it.
            above = ("/".join(parts[:n]) for n in range(1, len(parts) + 1))
            if any(_matches(pattern, place) for place in above):
                verdict = exclude
        return verdict

    def walk(folder):
        for entry in sorted((root / folder).iterdir()):
            path = str(entry.relative_to(root))
            if entry.is_dir() and not entry.is_symlink():
                # Into what is excluded only where a rule brings something below it back.
                if not excluded(path) or any(not e and p.startswith(f"{path}/") for e, p in rules):
                    yield from walk(path)
            elif not excluded(path):
                yield path

    return list(walk("."))


def _matches(pattern, path):
    """Whether a pattern of .dockerignore is of exactly this path; * stops at a slash."""
    assert "**" not in pattern and "[" not in pattern, f"{pattern}: not understood here"
    wanted, parts = pattern.strip("/").split("/"), path.split("/")
    return len(wanted) == len(parts) and all(map(fnmatch.fnmatchcase, parts, wanted))


def build(work, binary=None, path=DOCKERFILE, arguments=None):
    """Builds the image in directory `work`, with `binary` as what `cargo build` makes; gives its last stage."""
    return _Build(Path(work), Path(binary or luminate()), arguments or {}).run(instructions(path))


class _Build:
    def __init__(self, work, binary, arguments):
        if os.geteuid() != 0:
            missing("root, to lay out an image's root filesystem")
        self.work, self.binary, self.arguments = work, binary, arguments
        self.globals, self.stages = {}, {}
        self.context = context()

    def run(self, steps):
        for name, value in steps:
            getattr(self, f"do_{name.lower()}", self.unknown)(name, value)
        return self.image

    def unknown(self, name, value):
        raise AssertionError(f"{name} {value}: no step of ours, so nothing would test it")

    # Where we are.

    def do_from(self, _, value):
        words = shlex.split(self.expand(value, self.globals))
        assert len(words) == 1 or (len(words) == 3 and words[1].upper() == "AS"), value
        reference, name = words[0], words[2] if len(words) == 3 else str(len(self.stages))
        base = reference.partition("@")[0].rpartition(":")[0]
        root = self.work / f"stage-{name}"
        self.variables = {"TARGETARCH": {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]}
        self.declared = {}
        if base in RUNTIMES:
            if not RUNTIMES[base].exists():
                missing(f"{base}, laid out from Debian's packages")
            subprocess.run(["cp", "-a", RUNTIMES[base].resolve(), root], check=True)
            self.image = Image(root, base=reference)
            # Its own configuration.
            self.image.env = {
                "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                "SSL_CERT_FILE": "/etc/ssl/certs/ca-certificates.crt",
            }
            if reference.endswith(":nonroot"):
                self.image.user, self.image.workdir = "65532:65532", "/home/nonroot"
        elif base in BUILDERS:
            root.mkdir(parents=True)
            self.image = Image(root, base=reference)
        else:
            raise AssertionError(f"{reference}: nothing stands in for this base")
        self.stages[name] = self.image

    def do_arg(self, _, value):
        name, has_default, default = value.partition("=")
        known = self.arguments.get(name, default.strip('"') if has_default else None)
        if not self.stages:
            self.globals[name] = known
        else:
            # Without a default it is what the engine or the top of the file says.
            self.declared[name] = known if known is not None else self.variables.get(name, self.globals.get(name))

    def expand(self, text, names):
        """Replaces variables; one that is not known is an error, which an engine lets pass."""

        def value(match):
            name = match[1] or match[2]
            assert names.get(name) is not None, f"{text}: {name} is not declared"
            return names[name]

        return re.sub(r"\$\{(\w+)\}|\$(\w+)", value, text)

    def known(self):
        return {**self.declared, **self.image.env}

    # Files.

    def inside(self, path):
        """Where a path of the image is on this machine."""
        return self.image.root / os.path.normpath(os.path.join(self.image.workdir, path)).lstrip("/")

    def do_workdir(self, _, value):
        self.image.workdir = os.path.normpath(os.path.join(self.image.workdir, self.expand(value, self.known())))
        self.inside(".").mkdir(parents=True, exist_ok=True)

    def do_copy(self, _, value):
        words = shlex.split(self.expand(value, self.known()))
        options = dict(word[2:].partition("=")[::2] for word in words if word.startswith("--"))
        assert set(options) <= {"from", "chown"}, f"COPY {value}: an option that is not understood here"
        *sources, target = [word for word in words if not word.startswith("--")]
        to = self.inside(target)
        for source in sources:
            into = to / Path(source).name if target.endswith("/") and not self.is_folder(options, source) else to
            for path, mode, content in self.files(options.get("from"), source):
                self.put(into / path if path else into, mode, content, options.get("chown", "0:0"))

    def is_folder(self, options, source):
        return (self.source(options.get("from")) / source.lstrip("/")).is_dir()

    def source(self, stage):
        return self.stages[stage].root if stage else ROOT

    def files(self, stage, source):
        """What a COPY copies: (path below the source, or "" for itself; mode; content, or None for a folder)."""
        top = self.source(stage) / source.lstrip("/")
        below = os.path.normpath(source.lstrip("/"))
        if stage:
            assert os.path.lexists(top), f"COPY --from={stage} {source}: the stage has not made it"
            found = [top, *sorted(top.rglob("*"))] if top.is_dir() else [top]
        else:
            found = [ROOT / path for path in self.context if path == below or path.startswith(f"{below}/")]
            assert found, f"COPY {source}: not in the build context"
        for path in found:
            name = "" if path == top else str(path.relative_to(top))
            mode = stat.S_IMODE(path.stat().st_mode)
            yield name, mode, None if path.is_dir() else path.read_bytes()

    def put(self, path, mode, content, owner):
        made = [place for place in [path, *path.parents] if not place.exists() and self.image.root in place.parents]
        (path if content is None else path.parent).mkdir(parents=True, exist_ok=True)
        if content is not None:
            path.write_bytes(content)
        user, _, group = owner.partition(":")
        for place in {path, *made}:
            os.chown(place, int(user), int(group or user))
        path.chmod(mode)
        self.image.added.append("/" + str(path.relative_to(self.image.root)))

    def do_run(self, _, value):
        assert self.image.base.startswith(BUILDERS), f"RUN {value}: the runtime has no shell"
        value, mounts = value.strip(), []
        while match := re.match(r"--mount=(\S+)\s+", value):
            mount = dict(pair.split("=", 1) for pair in self.expand(match[1], self.known()).split(","))
            assert mount["type"] == "cache", f"{match[1]}: a mount that is not understood here"
            mounts.append(mount)
            value = value[match.end():]
        shims = self.shims()
        command = [program("bwrap"), "--die-with-parent", "--unshare-pid", "--tmpfs", "/", "--dev", "/dev", "--proc", "/proc"]
        command += ["--tmpfs", "/tmp"]
        # The machine's tools, without its files: what a step makes is in the stage.
        for place in ["/usr", "/etc", "/bin", "/lib", "/lib64", "/sbin"]:
            link = os.readlink(place) if os.path.islink(place) else None
            command += ["--symlink", link, place] if link else ["--ro-bind-try", place, place]
        # Those under the user's home, and the crates that are already here.
        cargo = Path(os.environ.get("CARGO_HOME", Path.home() / ".cargo"))
        rustup = Path(os.environ.get("RUSTUP_HOME", Path.home() / ".rustup"))
        command += ["--bind", str(cargo), str(cargo), "--ro-bind-try", str(rustup), str(rustup)]
        command += ["--ro-bind", str(TOOLS.parent), str(TOOLS.parent), "--ro-bind", str(shims), str(shims)]
        command += ["--ro-bind", sys.base_prefix, sys.base_prefix]
        command += ["--ro-bind", str(self.binary.resolve()), "/shims/luminate"]
        for place in sorted({"/out", "/" + Path(self.image.workdir).parts[1]}):
            (self.image.root / place[1:]).mkdir(exist_ok=True)
            command += ["--bind", str(self.image.root / place[1:]), place]
        for mount in mounts:
            # Crates are those of the machine.
            if mount["target"] != "/usr/local/cargo/registry":
                cache = self.work / "cache" / mount.get("id", mount["target"]).strip("/").replace("/", "-")
                cache.mkdir(parents=True, exist_ok=True)
                command += ["--bind", str(cache), mount["target"]]
        environment = {
            "PATH": f"{shims}:{TOOLS / 'venv' / 'bin'}:{os.environ['PATH']}", "HOME": str(Path.home()),
            "CARGO_HOME": str(cargo), "RUSTUP_HOME": str(rustup), "REAL_CARGO": shutil.which("cargo") or "", **self.known(),
        }
        command += ["--chdir", self.image.workdir, "/bin/sh", "-c", value]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode != 0:
            pytest.fail(f"RUN {value}: {done.returncode}\n{done.stdout}{done.stderr}", pytrace=False)

    def shims(self):
        """Programs that come before the machine's: cargo, whose `build` gives the binary under test."""
        place = self.work / "shims"
        if not place.exists():
            place.mkdir(parents=True)
            cargo = place / "cargo"
            cargo.write_text(f"#!{sys.executable}\n" + CARGO)
            cargo.chmod(0o755)
        return place

    # The configuration.

    def do_env(self, _, value):
        for word in shlex.split(self.expand(value, self.known())):
            name, assigned, text = word.partition("=")
            assert assigned, f"ENV {value}: write NAME=VALUE"
            self.image.env[name] = text

    def do_label(self, _, value):
        for word in shlex.split(self.expand(value, self.known())):
            name, _, text = word.partition("=")
            self.image.labels[name] = text

    def do_user(self, _, value):
        self.image.user = value

    def do_expose(self, _, value):
        self.image.ports += [int(port) for port in value.split()]

    def do_stopsignal(self, _, value):
        self.image.stop_signal = value

    def do_entrypoint(self, _, value):
        self.image.entrypoint, self.image.cmd = json.loads(value), []

    def do_cmd(self, _, value):
        self.image.cmd = json.loads(value)

    def do_healthcheck(self, _, value):
        options, _, command = value.partition("CMD ")
        self.image.healthcheck_options = dict(word[2:].split("=") for word in options.split())
        self.image.healthcheck = json.loads(command)


CARGO = '''
"""Does for `cargo build` what there is no time for; everything else is cargo's."""
import os, shutil, sys
if sys.argv[1:2] == ["build"]:
    if sys.argv[2:] != ["--release", "--locked", "--bin", "luminate"]:
        sys.exit(f"cargo {sys.argv[1:]}: not how a release is built")
    os.makedirs("target/release", exist_ok=True)
    shutil.copy("/shims/luminate", "target/release/luminate")
else:
    os.execv(os.environ["REAL_CARGO"], sys.argv)
'''
