"""The READMEs tell the truth: their Python runs, their commands name what exists."""

from __future__ import annotations

import os
import pathlib
import re
import shlex
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


def files(blocks: list[str]) -> dict[str, str]:
    """The blocks whose first line is the name of a file, such as `# my_env.py`, by that name."""
    named = {block.partition("\n")[0]: block for block in blocks}
    return {first[2:]: block for first, block in named.items() if re.fullmatch(r"# \w+\.py", first)}


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
    """But for the files of their own, which another test runs."""
    found = blocks(page, "python")
    code = "\n".join(block for block in found if block not in files(found).values())
    done = execute(code, tmp_path)
    assert done.returncode == 0, done.stderr


QUICK = {"check": ["--steps", "20"], "train": ["--steps", "80", "--learning-starts", "40", "--train-ratio", "4"]}


def test_an_environment_of_ones_own_trains_and_the_agent_acts(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The root README's files and commands, in its order, in a folder of a user's; the commands made quick."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))  # where the task is noted that is asked for
    page = ROOT / "README.md"
    found = files(blocks(page, "python"))
    assert list(found) == ["my_env.py", "act.py", "learn.py"] and len(found["my_env.py"].splitlines()) < 20
    (tmp_path / "my_env.py").write_text(found["my_env.py"])
    lines = [line for block in blocks(page, "bash") for line in block.splitlines() if "my_env:" in line]
    assert [line.split()[:4] for line in lines] == [
        ["uv", "run", "-m", "env_adapters"],
        ["uv", "run", "apps/dreamer", "train"],
    ]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    for line in lines:
        words = shlex.split(line, comments=True)[2:]
        words = [str(ROOT / word) if word.startswith("apps/") else word for word in words]
        quick = next(options for name, options in QUICK.items() if name in words)
        command = [sys.executable, *words, *quick]
        done = subprocess.run(command, check=False, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
    done = execute(found["act.py"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) in {0.0, 1.0}
    learn = found["learn.py"].replace("steps=4000", "steps=80, learning_starts=40, train_ratio=4")
    assert "steps=80" in learn
    done = execute(learn, tmp_path)
    assert done.returncode == 0 and done.stdout and (tmp_path / "walk").is_dir(), done.stderr


OURS = "wm-[a-z-]+|env-adapters"


def unpublished(page: pathlib.Path) -> list[str]:
    """Lines that install a package of ours by name alone: a registry would give somebody else's of that name, or none."""
    found = []
    for line in page.read_text().splitlines():
        if re.search(r"(uv add|pip install)\b", line):
            for _, rest in re.findall(rf"\b({OURS})\b(?:\[[^]]*\])?(.{{0,8}})", line.partition("#subdirectory")[0]):
                if not rest.startswith(" @ git+"):
                    found.append(f"{label(page)}: {line.strip()}")
    return found


@pytest.mark.parametrize("page", PAGES, ids=label)
def test_no_command_installs_what_is_not_published(page: pathlib.Path) -> None:
    assert unpublished(page) == []


def test_no_sentence_of_a_program_installs_what_is_not_published() -> None:
    """A result page once quoted such a sentence."""
    sources = [one for folder in ("packages/*/src", "apps/*/src", "tools") for one in ROOT.glob(f"{folder}/**/*.py")]
    assert len(sources) > 100
    assert [line for one in sources for line in unpublished(one)] == []


@pytest.mark.parametrize("page", [one for one in PAGES if "results" not in one.parts], ids=label)
def test_no_command_starts_a_python_that_has_nothing_of_ours(page: pathlib.Path) -> None:
    """`uv run` alone puts the environment's python before others."""
    for line in page.read_text().splitlines():
        for word in re.findall(
            r"(?:^|`|\$ )(python3? -m \w+|python \S+|(?:dreamer|po[-_]dreamer|r2i|storm) (?:train|info|eval))", line
        ):
            assert re.match(r"python3 -m (pip|uv|venv)", word), f"{label(page)}: {line}"


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
