"""The READMEs tell the truth: their Python runs, their commands name what exists."""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
READMES = [ROOT / "README.md", *sorted(ROOT.glob("packages/*/README.md"))]
PAGES = [*READMES, *sorted(ROOT.glob("apps/*/README.md")), *sorted(ROOT.glob("docs/**/*.md"))]
TEST = "python3 -m pip install uv && python3 -m uv run --only-group dev nox"
RUN = "python3 -m pip install uv && python3 -m uv run apps/po_dreamer train"


def blocks(page: pathlib.Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


def label(page: pathlib.Path) -> str:
    return str(page.relative_to(ROOT))


def execute(code: str, folder: pathlib.Path) -> subprocess.CompletedProcess[str]:
    """Run code as a reader would: a file of its own, in an empty folder."""
    script = folder / "example.py"
    script.write_text(code)
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, script.name], check=False, cwd=folder, env=env, capture_output=True, text=True, timeout=300
    )


@pytest.mark.parametrize("page", READMES, ids=label)
def test_python_examples_run_from_top_to_bottom(page: pathlib.Path, tmp_path: pathlib.Path) -> None:
    code = "\n".join(blocks(page, "python"))
    done = execute(code, tmp_path)
    assert done.returncode == 0, done.stderr


def test_an_example_that_fails_is_noticed(tmp_path: pathlib.Path) -> None:
    assert execute("assert 1 == 2", tmp_path).returncode == 1


@pytest.mark.parametrize("page", sorted(ROOT.glob("packages/*/README.md")), ids=label)
def test_a_package_shows_its_use(page: pathlib.Path) -> None:
    assert blocks(page, "python")


@pytest.mark.parametrize("page", PAGES, ids=label)
def test_paths_in_commands_exist(page: pathlib.Path) -> None:
    for block in blocks(page, "(?:bash|sh|console)"):
        for path in re.findall(
            r"(?<![\w/.-])(?<!> )((?:apps|tools|packages|docs)/[\w./-]*\w)", block
        ):  # > x is written
            assert (ROOT / path).exists(), f"{label(page)} speaks of {path}"


@pytest.mark.parametrize("page", PAGES, ids=label)
def test_relative_links_lead_somewhere(page: pathlib.Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[\w-]*)?\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{label(page)} links to {target}"


def test_the_two_commands_are_in_the_readme() -> None:
    text = re.sub(r"  +", " ", "\n".join(blocks(ROOT / "README.md", "bash")))
    assert RUN in text and TEST in text


def test_ci_runs_the_readmes_test_command() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    assert TEST in script
    install, run = TEST.split(" && ")
    assert install in script and run.removeprefix("python3 -m uv ") in script.rsplit("exec", 1)[1]
    staged = subprocess.run(["git", "ls-files", "-s", ".ci/run"], cwd=ROOT, check=True, capture_output=True, text=True)
    assert staged.stdout.startswith("100755")
