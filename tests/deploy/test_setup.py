"""What installs that which these tests stand on, on a machine where nothing can be had."""

import os
import time

import pytest

from house import ROOT, run

SETUP, RUN = ROOT / "tests/deploy/setup", ROOT / "tests/deploy/run"
WHAT = ["Python packages", "checkov", "helm and kubectl", "the base of the image", "system calls", "custom resources"]


@pytest.fixture
def bare(tmp_path):
    """The environment of a machine with an empty cache that reaches no registry."""
    (tmp_path / "bin").mkdir()
    for name in ("python3", "npm", "apt-get"):
        (tmp_path / "bin" / name).write_text("#!/bin/sh\nexit 1\n")
        (tmp_path / "bin" / name).chmod(0o755)
    alien = ("LUMINATE_TEST_REQUIRE_ALL", "LUMINATE_DEPLOY_TOOLS")
    env = {name: value for name, value in os.environ.items() if name not in alien}
    return {**env, "PATH": f"{tmp_path / 'bin'}:{env['PATH']}", "XDG_CACHE_HOME": str(tmp_path / "cache")}


def test_what_cannot_be_installed_is_said_and_not_kept(bare, tmp_path):
    for _ in range(2):
        done = run(SETUP, env=bare)
        last = done.stderr.rpartition("=== not installed")[2]
        assert all(what in last for what in WHAT), done.stderr
        (tools,) = (tmp_path / "cache/luminate-tests").iterdir()
        assert done.stdout.strip() == str(tools) and list(tools.iterdir()) == []


def test_without_python_packages_all_is_skipped_loudly_or_fails(bare):
    assert "skipped: all tests of the deployments" in run(RUN, env=bare).stderr
    done = run(RUN, env=bare | {"LUMINATE_TEST_REQUIRE_ALL": "1"}, check=False)
    assert done.returncode != 0 and "all tests of the deployments" in done.stderr


def test_what_none_has_wanted_for_long_goes(bare, tmp_path):
    cache = tmp_path / "cache/luminate-tests"

    def make(name, days, link=None):
        (cache / name).mkdir(parents=True)
        if link:
            (cache / name / link.partition("-")[0]).symlink_to(f"../{link}")
        then = time.time() - days * 86400
        os.utime(cache / name, (then, then))

    old, other, here = "venv-" + "0" * 16, "venv-" + "1" * 16, "bin-" + "2" * 16
    make(old, 50)
    make(other, 50)
    make(here, 0)
    make("deploy-" + "0" * 16, 40, old)
    make("deploy-" + "1" * 16, 20, other)
    make(".new-abc", 3)
    # Not ours.
    make("chdb", 400)
    run(SETUP, env=bare)
    left = {path.name for path in cache.iterdir()}
    assert {"chdb", other, here, "deploy-" + "1" * 16} <= left
    assert not left & {old, "deploy-" + "0" * 16, ".new-abc"}
