"""tools/rehearsal.py: what it serves, whom it tries, and what it notices. The session `rehearsal` does the whole of it."""

from __future__ import annotations

import pathlib
import subprocess
import sys
import urllib.error
import urllib.request

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))

import rehearsal
from release import UV, members


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run([UV, "build", "-q", "--package", "wm-suite", "--out-dir", str(folder)], cwd=ROOT, check=True)
    return folder


def test_every_member_is_tried_and_some_on_every_python_and_by_pip() -> None:
    every = rehearsal.trials([])
    assert {one.member for one in every if (one.python, one.installer) == ("3.11", "uv")} == {*members()}
    assert {one.python for one in every} == {"3.11", "3.12", "3.13"}
    for python in ("3.12", "3.13"):
        assert len([one for one in every if one.python == python]) == 2
    assert len([one for one in every if one.installer == "pip"]) == 2
    assert {one.member for one in rehearsal.trials(["wm-ssm"])} == {"wm-ssm"}


def test_an_index_lists_what_was_built_and_nothing_else(built: pathlib.Path, tmp_path: pathlib.Path) -> None:
    rehearsal.arrange(built, tmp_path / "index")
    server = rehearsal.served(tmp_path / "index")
    address = f"http://127.0.0.1:{server.server_port}/"
    try:
        with urllib.request.urlopen(f"{address}wm-suite/") as page:
            assert b'href="wm_suite-0.1.0-py3-none-any.whl"' in page.read()
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"{address}torch/")
    finally:
        server.shutdown()


def test_a_package_of_the_same_name_from_elsewhere_is_noticed(built: pathlib.Path, tmp_path: pathlib.Path) -> None:
    python = tmp_path / "bin" / "python"
    info = tmp_path / "lib" / "python3.11" / "site-packages" / "wm_suite-0.1.0.dist-info"
    info.mkdir(parents=True)
    _, held = rehearsal.wheels.opened(next(built.glob("*.whl")))
    (info / "METADATA").write_bytes(held["wm_suite-0.1.0.dist-info/METADATA"])
    assert [*rehearsal.foreign(python, built)] == []
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: wm-suite\nVersion: 0.1.0\nSummary: another\n")
    assert [*rehearsal.foreign(python, built)] == ["wm-suite was not taken from our index"]


def test_what_a_command_told_is_told_where_it_fails(tmp_path: pathlib.Path) -> None:
    with pytest.raises(rehearsal.Failed, match=r"ended with 3\n.*no room"):
        rehearsal.run(sys.executable, "-c", "import sys; print('no room'); sys.exit(3)", at=tmp_path)


def test_examples_of_a_readme_are_without_its_files(tmp_path: pathlib.Path) -> None:
    page = tmp_path / "README.md"
    page.write_text(
        "```python\na = 1\n```\n\n```python\n# my_env.py\nb = 1\n```\n\n```bash\nc\n```\n\n```python\nd = a\n```\n"
    )
    assert rehearsal.examples(page) == "a = 1\n\nd = a\n"


def test_a_member_that_there_is_not_is_one_sentence() -> None:
    command = [sys.executable, "tools/rehearsal.py", "wm-nothing"]
    told = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert told.returncode == 1 and told.stderr.startswith("no member is called wm-nothing; there are wm-")
