"""YAML under deployments/ and docker/, and every shell script of the repository, as linters have it."""

import re

import pytest

from house import ROOT, TOOLS, VENV, missing, program, run

YAMLLINT = ["-m", "yamllint", "--strict", "-c", ROOT / "tests/deploy/.yamllint"]


def files():
    """What is in the repository, or will be."""
    listed = run("git", "ls-files", "--cached", "--others", "--exclude-standard").stdout.splitlines()
    return [ROOT / name for name in listed if (ROOT / name).is_file()]


def python():
    path = VENV / "python"
    return path if path.exists() else missing(f"the Python of {TOOLS}")


def scripts():
    for path in files():
        with path.open("rb") as file:
            if path.suffix == ".sh" or re.match(rb"#!.*\b(ba)?sh\b", file.readline(80)):
                yield path


def test_yaml_is_tidy():
    templates = ROOT / "deployments/helm/luminate/templates"
    found = [
        path for path in files()
        if path.suffix in (".yaml", ".yml") and path.relative_to(ROOT).parts[0] in ("deployments", "docker") and not path.is_relative_to(templates)
    ]
    assert len(found) > 20
    run(python(), *YAMLLINT, *found)


@pytest.mark.parametrize(
    "text, said",
    [
        ("a: 1\na: 2\n", "duplication of key"),
        ("a:\n    b: 1\n", "wrong indentation"),
        ("a: yes\n", "truthy value"),
        ("a: 1 \n", "trailing spaces"),
        ("a: [1,2\n", "syntax error"),
        ("a: 1", "no new line character at the end"),
    ],
)
def test_untidy_yaml_is_found(tmp_path, text, said):
    (tmp_path / "a.yaml").write_text(text)
    done = run(python(), *YAMLLINT, tmp_path / "a.yaml", check=False)
    assert done.returncode != 0 and said in done.stdout


def test_scripts_are_as_shellcheck_wants_them():
    found = list(scripts())
    assert ROOT / "deployments/kubernetes/deploy" in found
    run(program("shellcheck"), *found)


def test_scripts_stop_at_a_mistake_and_can_be_run():
    for path in scripts():
        text = path.read_text()
        strict = "set -euo pipefail" if "bash" in text.partition("\n")[0] else "set -eu"
        assert strict in text, f"{path} goes on after a mistake"
        assert path.stat().st_mode & 0o100, f"{path} cannot be run"


def test_a_mistake_in_a_script_is_found(tmp_path):
    (tmp_path / "a").write_text("#!/bin/bash\nrm -rf $1/x\n")
    assert "SC2086" in run(program("shellcheck"), tmp_path / "a", check=False).stdout
