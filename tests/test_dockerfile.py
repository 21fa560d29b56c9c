"""What the Dockerfile names is there: Docker itself is not needed to see that."""

from __future__ import annotations

import fnmatch
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import tomllib

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
FILE = (ROOT / "Dockerfile").read_text()


def instructions(word: str) -> list[str]:
    """What follows a word at the start of a line, lines that go on joined."""
    return re.findall(rf"^{word} (.*)$", FILE.replace("\\\n", " "), re.MULTILINE)


def scripts() -> set[str]:
    """The commands that the members install."""
    found = set()
    for file in [*ROOT.glob("packages/*/pyproject.toml"), *ROOT.glob("apps/*/pyproject.toml")]:
        found |= set(tomllib.loads(file.read_text())["project"].get("scripts", {}))
    return found


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """What `COPY . .` copies of a clone: tracked files that .dockerignore does not name."""
    folder = tmp_path_factory.mktemp("image") / "world-models"
    ignored = (ROOT / ".dockerignore").read_text().split()
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, listed.split("\0")):
        parts = name.split("/")
        ways = ["/".join(parts[: n + 1]) for n in range(len(parts))]
        kept = not any(fnmatch.fnmatch(way, one) for way in ways for one in ignored)
        if kept and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    return folder


def test_commands_that_it_shows_and_starts_are_those_of_the_apps() -> None:
    shown = re.findall(r"docker run .* world-models(?::cuda)? (\S+) train", FILE)
    started = [re.match(r'\["([\w-]+)"', line)[1] for line in instructions("CMD")]  # type: ignore[index]
    assert shown == ["dreamer", "po-dreamer"] and started == ["dreamer", "dreamer"]
    assert {*shown, *started} <= scripts()


def test_targets_that_it_shows_are_stages() -> None:
    stages = {line.split()[-1] for line in instructions("FROM")}
    assert set(re.findall(r"docker build --target (\S+)", FILE)) == stages - {"base"}


def test_the_interpreter_is_the_one_that_uv_wants() -> None:
    assert instructions("ARG") == [f"PYTHON={(ROOT / '.python-version').read_text().strip()}"]


def test_uv_is_one_that_the_workspace_takes() -> None:
    least = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["uv"]["required-version"]
    assert f'"uv{least},' in FILE


def test_what_is_copied_is_enough_for_the_environment_of_each_target(copied: pathlib.Path) -> None:
    work = pathlib.PurePosixPath(instructions("WORKDIR")[0])
    runs = [shlex.split(line) for line in instructions("RUN") if "/uv-cache" in line]
    assert [run[2:] for run in runs] == [["python", "tools/cpu_env.py"], ["uv", "sync", "--no-dev"]]
    told = subprocess.run(
        [sys.executable, "tools/cpu_env.py", "--print"], cwd=copied, check=True, capture_output=True, text=True
    ).stdout
    made = re.search(r" venv .* (\S+)\)", told)
    assert made is not None
    folders = [str(work / pathlib.Path(made[1]).relative_to(copied) / "bin"), str(work / ".venv/bin")]
    assert [
        line.split(":")[0].removeprefix("PATH=") for line in instructions("ENV") if line.startswith("PATH=")
    ] == folders
    members = {file.parent.relative_to(ROOT) for file in ROOT.glob("*/*/pyproject.toml")}
    assert all(str(copied / member) in told for member in members)
    for member in members:  # what a build of it reads
        project = tomllib.loads((copied / member / "pyproject.toml").read_text())["project"]
        assert (copied / member / project["readme"]).is_file() and (copied / member / "src").is_dir()


def test_published_agents_are_copied(copied: pathlib.Path) -> None:
    there, here = ({file.parent.name for file in at.glob("pretrained/*/agent.json")} for at in (copied, ROOT))
    assert there == here != set()
