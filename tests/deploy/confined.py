"""Runs what a unit of systemd says as systemd would run it, as far as one can without systemd: its command with its
system calls, address families, writable directories, credentials, environment and limits, and none of ours.

bwrap lays the files out, libseccomp makes the filters.
"""

import ctypes
import ctypes.util
import errno
import functools
import json
import os
import re
import resource
import shlex
import socket
import subprocess
import tempfile
from pathlib import Path

from house import luminate, missing, program, run

ALLOW = 0x7FFF0000
EQUAL, MASKED_EQUAL = 4, 7
PROT_WRITE, PROT_EXEC = 2, 4


class Unit:
    """The settings of a unit: each key with all its values, those of drop-ins after its own."""

    def __init__(self, *files):
        self.values = {}
        for file in files:
            for line in Path(file).read_text().splitlines():
                if re.match(r"[A-Za-z]+=", line):
                    key, value = line.split("=", 1)
                    self.values.setdefault(key, []).append(value)

    def all(self, key):
        return self.values.get(key, [])

    def last(self, key):
        return self.values[key][-1]

    def command(self, key):
        """The only command of this kind, as words: a $ is written twice there."""
        (text,) = self.all(key)
        return [word.replace("$$", "$") for word in shlex.split(text)]

    def environment(self):
        """What Environment= sets, with the credentials' directory in place of %d."""
        text = " ".join(self.all("Environment")).replace("%d", CREDENTIALS)
        return dict(word.split("=", 1) for word in shlex.split(text))


CREDENTIALS = "/run/credentials/luminate.service"


def seconds(text):
    """A duration of systemd's, as far as ours use them."""
    units = {"": 1, "s": 1, "min": 60}
    number, unit = re.fullmatch(r"(\d+)(s|min|)", text).groups()
    return int(number) * units[unit]


@functools.cache
def group(name):
    """The system calls of one of systemd's groups."""
    calls = set()
    for line in run(program("systemd-analyze"), "syscall-filter", name).stdout.splitlines()[1:]:
        word = line.strip()
        if word.startswith("@"):
            calls |= group(word)
        elif word and not word.startswith("#"):
            calls.add(word)
    return frozenset(calls)


def allowed_calls(unit):
    """The system calls that SystemCallFilter= lets through."""
    calls = set(group("@default"))
    for line in unit.all("SystemCallFilter"):
        refused = line.startswith("~")
        named = set()
        for word in line.lstrip("~").split():
            named |= group(word) if word.startswith("@") else {word}
        calls = calls - named if refused else calls | named
    return calls


class _Condition(ctypes.Structure):
    _fields_ = [("argument", ctypes.c_uint), ("operation", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64)]


class _Filter:
    """A filter of libseccomp."""

    def __init__(self, default):
        name = ctypes.util.find_library("seccomp") or missing("libseccomp")
        self.library = ctypes.CDLL(name)
        self.library.seccomp_init.restype = ctypes.c_void_p
        self.context = ctypes.c_void_p(self.library.seccomp_init(ctypes.c_uint32(default)))

    def rule(self, action, call, *conditions):
        number = self.library.seccomp_syscall_resolve_name(call.encode())
        if number == -1:  # newer than the library
            return
        array = (_Condition * len(conditions))(*conditions)
        code = self.library.seccomp_rule_add_array(
            self.context, ctypes.c_uint32(action), ctypes.c_int(number), ctypes.c_uint(len(conditions)), array
        )
        # Calls of other machines have no place in it.
        assert code in (0, -errno.EDOM, -errno.EINVAL), (call, code)

    def program(self):
        """The filter as bwrap reads it: a file, at its beginning."""
        file = tempfile.TemporaryFile()
        assert self.library.seccomp_export_bpf(self.context, ctypes.c_int(file.fileno())) == 0
        self.library.seccomp_release(self.context)
        file.seek(0)
        return file


def filters(unit):
    """What SystemCallFilter=, MemoryDenyWriteExecute= and RestrictAddressFamilies= make of a unit."""
    refuse = 0x00050000 | getattr(errno, unit.last("SystemCallErrorNumber"))
    calls = _Filter(refuse)
    for call in allowed_calls(unit):
        calls.rule(ALLOW, call)
    yield calls.program()

    assert unit.last("MemoryDenyWriteExecute") == "true"
    memory = _Filter(ALLOW)
    both = PROT_WRITE | PROT_EXEC
    memory.rule(refuse, "mmap", _Condition(2, MASKED_EQUAL, both, both))
    for call in ("mprotect", "pkey_mprotect"):
        memory.rule(refuse, call, _Condition(2, MASKED_EQUAL, PROT_EXEC, PROT_EXEC))
    yield memory.program()

    families = {getattr(socket, name) for name in unit.last("RestrictAddressFamilies").split()}
    sockets = _Filter(ALLOW)
    for family in set(range(46)) - families:
        sockets.rule(0x00050000 | errno.EAFNOSUPPORT, "socket", _Condition(0, EQUAL, family, 0))
    yield sockets.program()


class Running:
    """A command of a unit, installed below `root`, running. It can write to /var/lib/luminate and /var/log/luminate of
    `root`, and to nothing else."""

    def __init__(self, unit, root, command, environment=()):
        for folder in ("var/lib/luminate", "var/log/luminate"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        self.output = tempfile.TemporaryFile("w+")
        programs = list(filters(unit))
        told, tells = os.pipe()
        words = [*_prlimit(unit), *_bwrap(unit, root, environment, programs, tells), "--", *command]
        self.process = subprocess.Popen(
            [str(word) for word in words], stdout=self.output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
            pass_fds=[tells, *(file.fileno() for file in programs)], env={"PATH": os.environ["PATH"]},
        )
        os.close(tells)
        with open(told) as info:
            self.pid = json.loads(info.read() or "{}").get("child-pid")

    def signal(self, number):
        """Sends the command a signal, past bwrap."""
        os.kill(self.pid, number)

    def wait(self, timeout):
        """Waits for its end, and gives its exit code."""
        return self.process.wait(timeout)

    def said(self):
        """What it has said so far."""
        self.output.seek(0)
        return self.output.read()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def _prlimit(unit):
    limit = min(int(unit.last("LimitNOFILE")), resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    return [program("prlimit"), f"--nofile={limit}:{limit}", "--core=0:0"]


def _bwrap(unit, root, environment, programs, info):
    credentials = []
    for line in unit.all("LoadCredential"):
        name, path = line.split(":")
        credentials += ["--ro-bind", root / path.lstrip("/"), f"{CREDENTIALS}/{name}"]
    hidden = ["/etc", "/home", "/root", "/run", "/usr/local", "/var"]
    return [
        program("bwrap"), "--die-with-parent", "--new-session", "--info-fd", info, "--as-pid-1",
        "--unshare-user", "--unshare-ipc", "--unshare-pid", "--unshare-uts", "--cap-drop", "ALL",
        "--uid", "10001", "--gid", "10001",
        "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp",
        *[word for folder in hidden for word in ("--tmpfs", folder)],
        "--ro-bind", root / "etc/luminate", "/etc/luminate",
        "--ro-bind", luminate(), "/usr/local/bin/luminate",
        "--bind", root / "var/lib/luminate", "/var/lib/luminate",
        "--bind", root / "var/log/luminate", "/var/log/luminate",
        *credentials,
        # What was made to mount on is no place to write to.
        *[word for folder in hidden for word in ("--remount-ro", folder)],
        "--chdir", unit.last("WorkingDirectory"), "--clearenv",
        *[word for pair in {**unit.environment(), **dict(environment)}.items() for word in ("--setenv", *pair)],
        *[word for file in programs for word in ("--add-seccomp-fd", file.fileno())],
    ]
