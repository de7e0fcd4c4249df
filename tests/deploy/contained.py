"""Containers of Luminate's image, without an engine: what a manifest says is started as a cluster would start it.

    def test_it_starts(image):                      # the fixture of conftest.py: docker/Dockerfile, built
        with Container(image, ["serve"], env={"LUMINATE_AUTH__FORCE_UNAUTHENTICATED": "true"},
                       mounts={"/var/lib/luminate": (tmp_path, "rw")}) as container:
            ...                                     # http://127.0.0.1:8080: without `network`, it is the machine's
            container.exec(["/usr/local/bin/luminate", "sleep", "0"])   # a preStop hook, a health check
            assert container.stop() == 0            # SIGTERM, then wait
            print(container.stdout, container.stderr)

They are run by runc, which is what runs them under Docker and Kubernetes: process 1 of its own, user and groups as
numbers, no capabilities, no new privileges, the system calls that a RuntimeDefault profile allows, the image's
environment and nothing of ours. The root filesystem is read-only unless said otherwise; what a container changes in
a writable one is its own.

Manifests name ports, and several containers want the same. Then they go into a `Network`, where they are alone:

    with Network() as network, Container(image, ["serve", ...], network=network) as container:
        with network.inside():                      # this thread's new connections are now made in there
            urllib.request.urlopen("http://127.0.0.1:8080/health/live")
        network.run("curl", "http://127.0.0.1:8080/metrics")    # or a program's

Containers of one network share its loopback, as those of a pod do. For several with the same ports, take several
networks, or addresses: `Network("10.96.0.1", "10.96.0.2")`.

All of it takes root and runc (tests/setup installs it). Without, a test says so by `house.missing`.
"""

import atexit
import contextlib
import ctypes
import functools
import itertools
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from house import TOOLS, missing, program, run

_numbers = itertools.count(1)
_CLONE_NEWNET = 0x40000000


class Network:
    """A network of its own: a loopback, with addresses more than 127.0.0.1 if given."""

    def __init__(self, *addresses):
        _needs_root()
        self.name = f"luminate-{os.getpid()}-{next(_numbers)}"
        self.path = f"/run/netns/{self.name}"
        run(program("ip"), "netns", "add", self.name)
        atexit.register(self.close)
        self.run(program("ip"), "link", "set", "lo", "up")
        for address in addresses:
            self.run(program("ip"), "address", "add", f"{address}/32", "dev", "lo")

    def run(self, *command, **options):
        """Runs a program of the machine in there; as `house.run`."""
        return run(program("ip"), "netns", "exec", self.name, *command, **options)

    def start(self, *command, **options):
        """Starts a program of the machine in there, say nginx: a `subprocess.Popen`."""
        words = [str(word) for word in (program("ip"), "netns", "exec", self.name, *command)]
        return subprocess.Popen(words, **options)

    @contextlib.contextmanager
    def inside(self):
        """Makes what this thread opens, connects to or listens on be in there, until the block ends."""
        libc = ctypes.CDLL(None, use_errno=True)
        with open("/proc/thread-self/ns/net") as here, open(self.path) as there:
            _enter(libc, there)
            try:
                yield self
            finally:
                _enter(libc, here)

    def close(self):
        """Takes it away; the containers in it have to be gone."""
        atexit.unregister(self.close)
        run(program("ip"), "netns", "delete", self.name, check=False)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Container:
    """A command in an image's root filesystem, running from construction until `stop`, or the end of a `with`.

    image     what to run: the fixture `image` (image.Image), whose environment, user and so on are the defaults
    args      arguments for the entrypoint, instead of the image's own; a manifest's `args`
    command   instead of the entrypoint; a manifest's `command`. The image's arguments then do not count either
    env       environment variables beside the image's
    mounts    {path in the container: (path on the machine, "ro" or "rw")}: files or folders. A folder that is "rw"
              is given to the container's group, as fsGroup does
    tmpfs     paths where the container may write until it ends
    user      its number, if not the image's; likewise group. groups: more of them
    network   a Network; without one, the machine's own
    hosts     names in its /etc/hosts: {"clickhouse": "127.0.0.1"}
    read_only whether the root filesystem is
    memory    how many bytes it may have before it is killed for it
    workdir   where it starts, if not where the image says
    """

    def __init__(self, image, args=None, *, command=None, env=None, mounts=None, tmpfs=(), user=None, group=None,
                 groups=(), network=None, hosts=None, read_only=True, memory=None, workdir=None):
        _needs_root()
        self.image, self.name = image, f"luminate-{os.getpid()}-{next(_numbers)}"
        self.place = Path(tempfile.mkdtemp(prefix="luminate-container-"))
        self.returncode = self._left = None
        ids = (image.ids[0] if user is None else user, image.ids[1] if group is None else group)
        if command is None:
            words = [*image.entrypoint, *(image.cmd if args is None else args)]
        else:
            words = [*command, *(args or [])]

        # A layer over the image's, as engines do: mount points are made in it, and the image stays as it is.
        for folder in ["changed", "work", "root"]:
            (self.place / folder).mkdir()
        layers = f"lowerdir={image.root},upperdir={self.place / 'changed'},workdir={self.place / 'work'}"
        run(program("mount"), "-t", "overlay", "overlay", "-o", layers, self.place / "root")
        atexit.register(self.kill)

        names = {"localhost": "127.0.0.1", **(hosts or {})}
        (self.place / "hosts").write_text("".join(f"{address} {name}\n" for name, address in names.items()))
        config = _config([str(word) for word in words], ids, groups, {**image.env, **(env or {})}, workdir or image.workdir)
        config["root"] = {"path": str(self.place / "root"), "readonly": read_only}
        config["mounts"] += [_bind("/etc/hosts", self.place / "hosts", "ro")]
        if os.path.exists("/etc/resolv.conf") and network is None:
            config["mounts"] += [_bind("/etc/resolv.conf", os.path.realpath("/etc/resolv.conf"), "ro")]
        config["mounts"] += [
            {"destination": path, "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev", "mode=1777"]}
            for path in tmpfs
        ]
        for path, (source, mode) in (mounts or {}).items():
            assert mode in ("ro", "rw") and Path(source).exists(), f"{path}: {source} {mode}"
            if mode == "rw" and Path(source).is_dir():
                os.chown(source, -1, ids[1])
                os.chmod(source, 0o2770)
            config["mounts"].append(_bind(path, Path(source).resolve(), mode))
        if network is not None:
            config["linux"]["namespaces"].append({"type": "network", "path": network.path})
        if memory is not None:
            config["linux"]["resources"] = {"memory": {"limit": memory}}
        (self.place / "config.json").write_text(json.dumps(config))

        with open(self.place / "stdout", "wb") as out, open(self.place / "stderr", "wb") as err:
            self._runc = subprocess.Popen(
                [*_runc(), "run", "--bundle", self.place, self.name], stdin=subprocess.DEVNULL, stdout=out, stderr=err
            )
        # From here on there is something to send signals to and to look into, or it has ended.
        while self.running and self._state().get("status") not in ("running", "stopped"):
            time.sleep(0.01)

    @property
    def stdout(self):
        """What it has written to standard output so far."""
        return self._left[0] if self._left else (self.place / "stdout").read_text()

    @property
    def stderr(self):
        """What it has written to standard error so far; runc's own words are here, too, if it could not start."""
        return self._left[1] if self._left else (self.place / "stderr").read_text()

    @property
    def running(self):
        return self._poll() is None

    @property
    def pid(self):
        """The machine's number of its process 1."""
        return self._state()["pid"]

    @property
    def changed(self):
        """The files it has made or changed in a root filesystem that is not read-only, mount points left out."""
        if self._left:
            return self._left[2]
        mounted = {mount["destination"] for mount in json.loads((self.place / "config.json").read_text())["mounts"]}
        top = self.place / "changed"
        found = ["/" + str(path.relative_to(top)) for path in top.rglob("*") if not path.is_dir()]
        return sorted(path for path in found if path not in mounted)

    def exec(self, command, check=False, **options):
        """Runs one more command in it, as its user: a preStop hook, a health check. A finished process."""
        return run(*_runc(), "exec", self.name, *command, check=check, **options)

    def start(self, command, **options):
        """The same without waiting: a `subprocess.Popen`."""
        return subprocess.Popen([*_runc(), "exec", self.name, *map(str, command)], **options)

    def healthy(self):
        """Whether the image's health check says so."""
        return self.exec(self.image.healthcheck).returncode == 0

    def signal(self, number=signal.SIGTERM):
        """Sends its process 1 a signal."""
        run(*_runc(), "kill", self.name, str(int(number)))

    def wait(self, timeout=60):
        """Waits for its end, and gives the exit code: 128 and the signal's number if it was killed."""
        self._runc.wait(timeout)
        return self._poll()

    def stop(self, timeout=60):
        """Tells it to stop, as its image says, and gives the exit code; kills it if it takes longer than that."""
        if self.running:
            self.signal(signal.Signals[self.image.stop_signal])
        try:
            return self.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def kill(self):
        """Kills it if it still runs, and takes it away; what it wrote can still be asked for."""
        atexit.unregister(self.kill)
        subprocess.run([*_runc(), "delete", "--force", self.name], capture_output=True)
        self._runc.wait()
        self._poll()
        subprocess.run(["umount", "--lazy", self.place / "root"], capture_output=True)
        if self._left is None:
            self._left = (self.stdout, self.stderr, self.changed)
            shutil.rmtree(self.place, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()

    def _poll(self):
        self.returncode = self._runc.poll()
        return self.returncode

    def _state(self):
        """What runc knows of it; nothing before it is made, and after its end."""
        return json.loads(run(*_runc(), "state", self.name, check=False).stdout or "{}")


def project(folder, files, mode=0o440, group=10001):
    """Lays files out in a folder as Kubernetes does those of a ConfigMap or Secret; again, to change them all at once.

    {name: text}; the folder is then a mount that is "ro". Names are links through ..data, which is swapped.
    """
    folder = Path(folder)
    folder.mkdir(exist_ok=True)
    version = Path(tempfile.mkdtemp(prefix="..", dir=folder))
    version.chmod(0o755)
    for name, text in files.items():
        (version / name).write_text(text)
        os.chown(version / name, -1, group)
        (version / name).chmod(mode)
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(f"..data/{name}")
    (folder / "..new").symlink_to(version.name)
    (folder / "..new").rename(folder / "..data")
    return folder


@functools.cache
def _runc():
    state = tempfile.mkdtemp(prefix="luminate-runc-")
    atexit.register(shutil.rmtree, state, ignore_errors=True)
    return [program("runc"), "--root", state]


def _needs_root():
    if os.geteuid() != 0:
        missing("root, to run containers")


def _enter(libc, file):
    if libc.setns(file.fileno(), _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


def _bind(path, source, mode):
    options = ["rbind", "nosuid", "nodev", "rprivate", mode]
    return {"destination": path, "type": "bind", "source": str(source), "options": options}


def _config(words, ids, groups, env, workdir):
    """What runc is told, in the form of the OCI runtime specification; the mounts are those of any engine."""
    none = {kind: [] for kind in ["bounding", "effective", "inheritable", "permitted", "ambient"]}
    return {
        "ociVersion": "1.0.2",
        "hostname": "luminate",
        "process": {
            "terminal": False,
            "user": {"uid": ids[0], "gid": ids[1], "additionalGids": list(groups)},
            "args": words,
            "env": [f"{name}={text}" for name, text in env.items()],
            "cwd": workdir,
            "capabilities": none,
            "noNewPrivileges": True,
        },
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=64k"]},
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "nodev", "mode=1777"]},
        ],
        "linux": {
            "namespaces": [{"type": kind} for kind in ["pid", "ipc", "uts", "mount"]],
            "seccomp": _seccomp(),
            "maskedPaths": ["/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/scsi", "/sys/firmware"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    }


def _seccomp():
    """The system calls of a RuntimeDefault profile for a container without capabilities."""
    file = TOOLS / "seccomp" / "usr" / "share" / "containers" / "seccomp.json"
    if not file.exists():
        missing("a seccomp profile")
    profile = json.loads(file.read_text())
    architecture = {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]
    rules = []
    for rule in profile["syscalls"]:
        includes, excludes = rule.get("includes", {}), rule.get("excludes", {})
        # Rules for who has a capability, or for another machine.
        if includes.get("caps") or architecture not in includes.get("arches", [architecture]):
            continue
        if architecture in excludes.get("arches", []):
            continue
        rules.append({name: rule[name] for name in ("names", "action", "args", "errnoRet") if rule.get(name)})
    machines = next(m for m in profile["archMap"] if m["architecture"].lower().endswith(os.uname().machine))
    return {
        "defaultAction": profile["defaultAction"],
        "defaultErrnoRet": profile.get("defaultErrnoRet", 1),
        "architectures": [machines["architecture"], *(machines["subArchitectures"] or [])],
        "syscalls": rules,
    }
