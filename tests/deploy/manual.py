#!/usr/bin/env python3
"""Follows pages of the manual word by word, as a new user would: manual.py [--list] PAGE…

Each page is followed in a copy of its own of the tree, in a network and process space of its own (`unshare`), so
that ports are as the page names them and nothing is left behind. `luminate` on the PATH is LUMINATE_BIN, which `make`
takes for what cargo would build; kubectl finds the stand-in API server of apiserver.py.

Blocks of ```console are typed, line by line after `$ `, and what they print is compared with what the page shows:
words with digits in them may differ, `…` stands for anything. Blocks of ```bash are typed whole. A comment before a
block says what the page's prose says to people:

    <!-- terminal: server -->        typed in another terminal, where the last command goes on running
    <!-- file: edge.yaml -->         the block is the text of that file
    <!-- edit: FILE [KEY] -->        a YAML block that is put over that file's, or over the YAML text at KEY in it
    <!-- fails -->                   the last command fails, and is meant to
    <!-- exact -->                   numbers may not differ, either
    <!-- in a moment -->             each command is typed again until it prints what it should
    <!-- not run: REASON -->         is not typed, because of something that is not here

A block is typed in the terminal of the page unless it names another, after whatever ran there was stopped (Ctrl-C).
"""

import argparse
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import termios
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent

# How long a command may take, and one that goes on running to say what it is to say.
PATIENCE = 120

FENCE = re.compile(r"^( *)```(\S*)\s*$")
COMMENT = re.compile(r"^\s*<!-- *([a-z ]+?)(?:: *(.*?))? *-->\s*$")
# What moves the cursor or colours.
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
NUMBERED = re.compile(r"[\w.:+/-]*\d[\w.:+/-]*")
MARKS = {"terminal", "file", "edit", "fails", "exact", "in a moment", "not run"}


@dataclass
class Block:
    """What is between two fences, and what was said about it."""

    page: Path
    line: int
    language: str
    text: str
    marks: dict = field(default_factory=dict)

    def __str__(self):
        return f"{self.page.relative_to(ROOT) if self.page.is_relative_to(ROOT) else self.page}:{self.line}"

    @property
    def commands(self):
        """The commands of the block, each with what it prints as the page shows it (None: nothing is said)."""
        if self.language == "bash":
            return [(self.text, None)]
        commands = []
        for line in self.text.splitlines():
            if line.startswith("$ "):
                commands.append(([line[2:]], []))
                continue
            typed, shown = commands[-1]
            if not shown and (typed[-1].endswith("\\") or line.startswith("> ")):
                typed.append(line.removeprefix("> "))
            else:
                shown.append(line)
        # An empty line between commands is for the eye.
        return [("\n".join(typed), "\n".join(shown).strip("\n")) for typed, shown in commands]


def blocks(page):
    """The blocks of a page. Refuses marks that nobody knows, and blocks that are not closed."""
    found, marks, block = [], {}, None
    for number, line in enumerate(page.read_text().splitlines(), 1):
        fence = FENCE.match(line)
        if block is not None:
            if fence and not fence[2]:
                found.append(block)
                block, marks = None, {}
            else:
                block.text += line[indent:] + "\n"
        elif fence:
            indent, block = len(fence[1]), Block(page, number, fence[2], "", marks)
        elif comment := COMMENT.match(line):
            if comment[1] not in MARKS:
                raise ValueError(f"{page}:{number}: what does {comment[1]!r} mean?")
            marks[comment[1]] = comment[2] or ""
        elif line.strip() and marks:
            raise ValueError(f"{page}:{number}: a comment that is not right before a block")
    if block is not None:
        raise ValueError(f"{page}:{block.line}: a block that is not closed")
    for block in found:
        if block.language == "console" and not block.text.startswith("$ "):
            raise ValueError(f"{block}: a console that does not begin with a command")
    return found


def loosely(shown, exact=False):
    """A pattern for what a page shows: numbers and whatever has digits in it may differ unless it is exact, `…` is
    anything."""
    lines = []
    for line in shown.splitlines():
        if line.strip() == "…":
            lines.append(r"(?:.*\n)*?")
            continue
        words = []
        for word in line.split():
            parts = []
            for part in word.split("…"):
                # What is quoted keeps its quotes, so that only the number in it may differ.
                fixed = [part] if exact else NUMBERED.split(part)
                parts.append(r"\S+?".join(map(re.escape, fixed)))
            words.append(".*?".join(parts))
        lines.append(r"[ \t]*" + r"[ \t]+".join(words) + r"[ \t]*\n")
    return "".join(lines)


def seen(printed):
    """What is left to see of what was printed: of a line that was written over, as progress is, the last."""
    lines = ESCAPE.sub("", printed).replace("\r\n", "\n").split("\n")
    return "\n".join(line.rpartition("\r")[2] for line in lines)


class Terminal:
    """A shell on a pseudo-terminal, which is why programs behave in it as they do for a person."""

    def __init__(self, folder, environment, scratch):
        self.scratch, self.printed, self.output, self.running = scratch, "", "", False
        master, slave = pty.openpty()
        self.master = master
        modes = termios.tcgetattr(slave)
        modes[3] &= ~termios.ECHO
        termios.tcsetattr(slave, termios.TCSANOW, modes)
        # A trapped signal does not end the shell, and is not inherited as ignored.
        self.shell = subprocess.Popen(
            ["setsid", "--ctty", "bash", "--noprofile", "--norc", "-c",
             "stty cols 200; trap : INT; while read -r line; do eval \"$line\"; done"],
            cwd=folder, env=environment, stdin=slave, stdout=slave, stderr=slave,
        )
        os.close(slave)
        self.heard = threading.Condition()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self):
        while True:
            try:
                data = os.read(self.master, 65536)
            except OSError:
                data = b""
            with self.heard:
                self.printed += data.decode(errors="replace")
                self.output = seen(self.printed)
                self.heard.notify_all()
            if not data:
                return

    def _await(self, pattern, patience):
        """What `pattern` finds in the output, as soon as it does; None if it does not in time."""
        end = time.monotonic() + patience
        with self.heard:
            while True:
                if found := re.search(pattern, self.output):
                    return found
                left = end - time.monotonic()
                if left <= 0:
                    return None
                self.heard.wait(left)

    def type(self, command, shown, stays, fails, exact):
        """Types a command and says what is wrong with what came of it, if anything is."""
        self.interrupt()
        script = self.scratch / f"{time.monotonic_ns()}"
        script.write_text(command + "\n")
        done = f"@{script.name}@"
        with self.heard:
            self.printed = self.output = ""
        os.write(self.master, f". {script} </dev/null; printf '\\n%s %s\\n' {done} $?\n".encode())
        ended = rf"\n?\n{done} (\d+)\n"
        if stays:
            self.running = True
            expected = "^" + loosely(shown or "", exact)
            found = self._await(rf"({expected})|({ended})", PATIENCE)
            if found is None:
                return f"does not say what it should:\n{self.output}"
            if not re.match(expected, self.output):
                return f"says something else, or ended:\n{self.output}"
            return None
        found = self._await(ended, PATIENCE)
        if found is None:
            return f"goes on after {PATIENCE} s:\n{self.output}"
        said, code = self.output[: found.start()], int(found[1])
        if (code != 0) != fails:
            return f"ends with {code}:\n{said}"
        if shown is not None and not re.fullmatch(loosely(shown, exact), said.strip("\n") + "\n" if said.strip() else ""):
            return f"prints:\n{said}\nand not:\n{shown}"
        return None

    def interrupt(self):
        """Presses Ctrl-C, if something runs, and waits for it to end."""
        if self.running:
            os.write(self.master, b"\x03")
            if self._await(r"@\d+@ \d+\n", PATIENCE) is None:
                raise TimeoutError(f"does not end after Ctrl-C:\n{self.output}")
            self.running = False


def copy_tree(target):
    """A copy of what is in the tree and not ignored, as a clone has it."""
    names = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, check=True, capture_output=True,
    ).stdout.decode().split("\0")
    for name in filter(None, names):
        source, copy = ROOT / name, target / name
        if source.is_symlink() or source.exists():
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, copy, follow_symlinks=False)


def merged(old, new):
    """`new` put over `old`: maps key by key, everything else whole."""
    if isinstance(old, dict) and isinstance(new, dict):
        return old | {key: merged(old.get(key), value) for key, value in new.items()}
    return new


def edit(file, key, text):
    """Puts YAML over a file of one YAML document, or over the YAML text at a key of its `data`."""
    whole, new = yaml.safe_load(file.read_text()), yaml.safe_load(text)
    if key:
        inner = yaml.safe_load(whole["data"][key])
        whole["data"][key] = yaml.safe_dump(merged(inner, new), sort_keys=False)
    else:
        whole = merged(whole, new)
    file.write_text(yaml.safe_dump(whole, sort_keys=False))


def environment(home, bin):
    """What a new user's shell has: a PATH with `luminate`, kubectl and helm, and a home."""
    luminate = str(Path(os.environ["LUMINATE_BIN"]).resolve())
    bin.mkdir()
    (bin / "luminate").symlink_to(luminate)
    # For `make`: the binary is what cargo would build and run.
    cargo = bin / "cargo"
    cargo.write_text(
        "#!/bin/bash\n"
        'if [[ $1 != run ]]; then echo "this cargo only runs: $*" >&2; exit 1; fi\n'
        'while (($#)) && [[ $1 != -- ]]; do shift; done; shift || true\n'
        f'exec {luminate} "$@"\n'
    )
    cargo.chmod(0o755)
    # A container would be in another network than the terminals, so there is no engine.
    docker = bin / "docker"
    docker.write_text("#!/bin/sh\nexit 1\n")
    docker.chmod(0o755)
    tools = Path(os.environ.get("LUMINATE_DEPLOY_TOOLS", "/nonexistent"))
    kept = {name: os.environ[name] for name in ["LANG", "USER", "LUMINATE_DEPLOY_TOOLS"] if name in os.environ}
    return kept | {
        "PATH": f"{bin}:{tools}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": str(home),
        "XDG_CACHE_HOME": os.environ.get("XDG_CACHE_HOME", os.path.expanduser("~/.cache")),
        "TERM": "dumb",
        "NO_COLOR": "1",
        "LUMINATE_BIN": luminate,
    }


def start_apiserver(scratch, variables):
    """Starts the stand-in for a cluster, if there is one, and has kubectl and helm find it."""
    server = HERE / "apiserver.py"
    if not server.exists():
        return
    config = scratch / "kubeconfig"
    with open(scratch / "apiserver.log", "w") as log:
        subprocess.Popen([sys.executable, server, "--kubeconfig", config], stdout=log, stderr=log)
    end = time.monotonic() + PATIENCE
    while not config.exists():
        if time.monotonic() > end:
            raise TimeoutError((scratch / "apiserver.log").read_text())
        time.sleep(0.1)
    variables["KUBECONFIG"] = str(config)


def follow(page):
    """Follows a page, and gives what was wrong with it."""
    with tempfile.TemporaryDirectory(prefix="luminate-manual-") as scratch:
        scratch = Path(scratch)
        tree, home = scratch / "luminate", scratch / "home"
        tree.mkdir(), home.mkdir()
        copy_tree(tree)
        variables = environment(home, scratch / "bin")
        if re.search(r"^[$ ]*(kubectl|helm|make k8s-)", page.read_text(), re.M):
            start_apiserver(scratch, variables)
        terminals, wrong = {}, []
        typed = 0
        for block in blocks(page):
            if "not run" in block.marks:
                continue
            if name := block.marks.get("file"):
                (tree / name).write_text(block.text)
            elif what := block.marks.get("edit"):
                name, _, key = what.partition(" ")
                edit(tree / name, key, block.text)
            elif block.language in ("console", "bash"):
                name = block.marks.get("terminal", "")
                if name not in terminals:
                    terminals[name] = Terminal(tree, variables, scratch)
                for at, (command, shown) in enumerate(commands := block.commands):
                    last = at == len(commands) - 1
                    end = time.monotonic() + (PATIENCE if "in a moment" in block.marks else 0)
                    while True:
                        mistake = terminals[name].type(
                            command, shown, stays=last and bool(name), fails=last and "fails" in block.marks,
                            exact="exact" in block.marks)
                        if not mistake or time.monotonic() > end:
                            break
                        time.sleep(1)
                    typed += 1
                    if mistake:
                        wrong.append(f"{block}: `{command}` {mistake}")
                        # What follows stands on it.
                        return wrong, typed
        for terminal in terminals.values():
            terminal.interrupt()
        return wrong, typed


def main():
    # Whoever is started in the background may be told to ignore Ctrl-C, which a shell can then not take back.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--list", action="store_true", help="only list what is not run")
    arguments.add_argument("pages", nargs="+", type=Path)
    arguments = arguments.parse_args()
    failed = False
    for page in arguments.pages:
        for block in blocks(page.resolve()):
            if reason := block.marks.get("not run"):
                print(f"{block}: not run: {reason}")
        if not arguments.list:
            wrong, typed = follow(page.resolve())
            print(f"{page}: {typed} commands", *wrong, sep="\n")
            failed = failed or bool(wrong)
    sys.stdout.flush()
    # Not waiting for threads; whatever still runs goes with this process, the first of its space.
    os._exit(1 if failed else 0)


if __name__ == "__main__":
    main()
