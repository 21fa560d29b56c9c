"""hf:ORG/NAME against a server on loopback that speaks the calls that `publish` and `load` make."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from wm_core.errors import UserError
from wm_run import hub, published
from wm_run.cli import main
from wm_run.loading import load

GIFT = Path(__file__).parent / "published" / "format-1"
TOKEN = "hf_of_the_test"


@dataclass
class Hub:
    """Repositories by name: revision -> file -> bytes. private: who has no token does not see them."""

    repositories: dict[str, dict[str, dict[str, bytes]]] = field(default_factory=dict)
    private: set[str] = field(default_factory=set)
    asked: list[tuple[str, str]] = field(default_factory=list)
    made: list[dict[str, Any]] = field(default_factory=list)
    broken: int = 0  # a status that every call is answered with
    url: str = ""

    def put(self, name: str, files: dict[str, bytes], revision: str = "main") -> str:
        """A commit, which the branch or tag then names."""
        commit = hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()
        self.repositories.setdefault(name, {}).update({revision: files, commit: files})
        return commit

    def commit(self, files: dict[str, bytes]) -> str:
        return hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()


class Handler(BaseHTTPRequestHandler):
    hub: Hub

    def log_message(self, *said: object) -> None:
        pass

    def answer(self, status: int, body: object = b"", **headers: str) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def seen(self, name: str) -> bool:
        """Whether this caller may know of the repository; a stranger cannot tell a private one from none."""
        known = name in self.hub.repositories
        return known and (name not in self.hub.private or self.headers.get("Authorization") == f"Bearer {TOKEN}")

    def do_HEAD(self) -> None:
        self.file()

    def do_GET(self) -> None:
        self.file()

    def file(self) -> None:
        """/ORG/NAME/resolve/REVISION/FILE"""
        self.hub.asked.append((self.command, self.path))
        if self.hub.broken:
            return self.answer(self.hub.broken)
        if self.path.startswith("/api/models/"):  # whether it is there, where it may not be made
            name = self.path.removeprefix("/api/models/")
            return self.answer(200, {"id": name}) if self.seen(name) else self.answer(401, X_Error_Code="RepoNotFound")
        org, repository, _, revision, name = unquote(self.path).lstrip("/").split("/", 4)
        name, revisions = name.partition("?")[0], self.hub.repositories.get(f"{org}/{repository}", {})
        if not self.seen(f"{org}/{repository}"):
            return self.answer(401, X_Error_Code="RepoNotFound", X_Error_Message="Repository not found")
        if revision not in revisions:
            return self.answer(404, X_Error_Code="RevisionNotFound", X_Error_Message="Invalid rev")
        files = revisions[revision]
        commit = self.hub.commit(files)
        if name not in files:
            return self.answer(
                404, X_Error_Code="EntryNotFound", X_Error_Message="Entry not found", X_Repo_Commit=commit
            )
        tag = '"' + hashlib.sha1(files[name]).hexdigest() + '"'
        self.answer(200, files[name], ETag=tag, X_Repo_Commit=commit)

    def do_POST(self) -> None:
        text = self.rfile.read(int(self.headers["Content-Length"]))
        self.hub.asked.append((self.command, self.path))
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.answer(401, {"error": "Invalid username or password."})
        parts = unquote(self.path).partition("?")[0].strip("/").split("/")
        if parts[:3] == ["api", "repos", "create"]:
            asked = json.loads(text)
            name = f"{asked['organization']}/{asked['name']}" if "organization" in asked else asked["name"]
            self.hub.made.append(asked)
            if name in self.hub.repositories:
                return self.answer(409, {"url": f"{self.hub.url}/{name}"})
            self.hub.repositories[name] = {"main": {}}
            return self.answer(200, {"url": f"{self.hub.url}/{name}"})
        if parts == ["api", "validate-yaml"]:
            return self.answer(200, {"errors": [], "warnings": []})
        name, kind, revision = "/".join(parts[2:4]), parts[4], "/".join(parts[5:])
        if kind == "preupload":
            files = json.loads(text)["files"]
            told = [{"path": one["path"], "uploadMode": "regular", "shouldIgnore": False, "oid": None} for one in files]
            return self.answer(200, {"files": told})
        lines = [json.loads(line) for line in text.splitlines()]
        files = dict(self.hub.repositories[name].get(revision, {}))
        files |= {
            line["value"]["path"]: base64.b64decode(line["value"]["content"]) for line in lines if line["key"] == "file"
        }
        commit = self.hub.put(name, files, revision)
        self.answer(200, {"success": True, "commitOid": commit, "commitUrl": f"{self.hub.url}/{name}/commit/{commit}"})


@pytest.fixture
def server(tmp_path, monkeypatch) -> Iterator[Hub]:
    """The library as a new process would find it: it reads its environment when it is imported."""
    known = Hub()
    serving = ThreadingHTTPServer(("127.0.0.1", 0), type("Here", (Handler,), {"hub": known}))
    known.url = f"http://127.0.0.1:{serving.server_address[1]}"
    thread = threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {
        "HF_ENDPOINT": known.url,
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }.items():
        monkeypatch.setenv(name, value)
    before = {name: module for name, module in sys.modules.items() if name.partition(".")[0] == "huggingface_hub"}
    anew()
    yield known
    anew()
    sys.modules.update(before)
    serving.shutdown()
    serving.server_close()
    thread.join()


def anew() -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "huggingface_hub"]:
        del sys.modules[name]


def gift(**changed: bytes) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in GIFT.iterdir() if path.name != "expected.json"} | changed


def downloads(server: Hub) -> list[str]:
    return [path.rpartition("/")[2] for verb, path in server.asked if verb == "GET"]


def test_an_agent_of_the_hub_is_loaded_and_comes_once(server, fakes):
    server.put("someone/fake", gift() | {"pytorch_model.bin": b"a pickle", "evil.py": b"raise SystemExit"})
    assert load(fakes.app, "hf:someone/fake").step == 64
    assert sorted(downloads(server)) == [
        "README.md",
        "agent.json",
        "config.toml",
        "memory.safetensors",
        "model.safetensors",
    ]
    assert load(fakes.app, "hf:someone/fake").step == 64 and len(downloads(server)) == 5


def test_commands_leave_their_results_with_the_user(server, fakes, capsys, tmp_path):
    server.put("someone/fake", gift())
    main(fakes.app, ["eval", "hf:someone/fake", "--episodes", "2"])
    out, err = capsys.readouterr()
    assert json.loads(out)["step"] == 64 and "runs/hf/someone/fake" in err
    assert Path("runs/hf/someone/fake/eval/64.json").is_file()
    assert not [path for path in (tmp_path / "home").rglob("*") if path.name == "eval"]


def test_what_is_sent_meanwhile_is_not_mixed_with_what_is_being_fetched(server, monkeypatch):
    server.put("someone/fake", gift())
    known = published.parsed

    def moving(text, where):
        server.put("someone/fake", {"README.md": b"another agent"})
        return known(text, where)

    monkeypatch.setattr(published, "parsed", moving)
    folder = hub.fetched("someone/fake")
    monkeypatch.undo()
    assert published.checked(folder)["step"] == 64


def test_a_revision_is_another_agent(server, fakes):
    first = server.put("someone/fake", gift(), "v1")
    later = gift()
    about = json.loads(later["agent.json"]) | {"step": 96}
    later["agent.json"] = published.described(
        {name: value for name, value in about.items() if name not in ("format", "files", "seal")},
        {name: later[name] for name in about["files"]},
    )
    server.put("someone/fake", later)
    assert load(fakes.app, "hf:someone/fake").step == 96
    assert load(fakes.app, "hf:someone/fake@v1").step == load(fakes.app, f"hf:someone/fake@{first}").step == 64


def test_without_a_network_the_cache_serves(server, fakes, monkeypatch, capsys):
    server.put("someone/fake", gift())
    load(fakes.app, "hf:someone/fake")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # where nobody listens
    anew()
    assert load(fakes.app, "hf:someone/fake").step == 64
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    anew()
    assert load(fakes.app, "hf:someone/fake").step == 64
    assert "not in the cache: try again with a network" in fakes.refused(capsys, "eval hf:someone/other")


def test_nobody_waits_for_a_hub_that_is_not_there(server, fakes, monkeypatch, capsys):
    """The library would wait 1, 2, 4, 8 and 8 seconds between its calls; it is not asked to make one."""
    waited: list[float] = []
    monkeypatch.setattr("time.sleep", waited.append)
    for address in ("http://127.0.0.1:9", "http://nobody.invalid"):
        monkeypatch.setenv("HF_ENDPOINT", address)
        anew()
        said = fakes.refused(capsys, "eval hf:someone/other")
        assert "cannot reach the hub for hf:someone/other, and it is not in the cache" in said
    assert not waited
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:99999")
    anew()
    assert "HF_ENDPOINT is http://127.0.0.1:99999, which is no address" in fakes.refused(
        capsys, "eval hf:someone/other"
    )


def test_behind_a_proxy_the_library_is_asked(server, fakes, monkeypatch):
    server.put("someone/fake", gift())
    monkeypatch.setattr(hub, "socket", None)  # whose use would fail
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    assert load(fakes.app, "hf:someone/fake").step == 64


def test_what_is_not_there_or_not_ours_is_met_by_a_sentence(server, fakes, capsys):
    server.put("someone/fake", gift())
    server.put("someone/else", {"README.md": b"a card alone"})
    server.put("someone/half", {name: text for name, text in gift().items() if name != "model.safetensors"})
    server.put("someone/bad", gift(**{"model.safetensors": b"a pickle"}))
    server.put("someone/page", gift(**{"agent.json": b"<html>"}))
    server.put("someone/secret", gift())
    server.private.add("someone/secret")
    for name, words in {
        "someone/nothing": "there is no such repository, or it is private",
        "someone/secret": "log in with `hf auth login`, or set HF_TOKEN",
        "someone/fake@v9": "the repository has no such revision",
        "someone/else": "is no agent that `publish` wrote: the file that an agent of ours begins with is not there",
        "someone/half": "is no agent that `publish` wrote: one of the files that it names is not there",
        "someone/bad": "model.safetensors is not what was published",
        "someone/page": "does not say what a published agent is",
        "nothing": "names no repository",
        "a/b/c": "names no repository",
        "../../x": "names no repository",
        "someone/fake@": "names no repository",
        "some one/fake": None,
    }.items():
        if words is None:
            with pytest.raises(UserError, match="names no repository"):
                load(fakes.app, f"hf:{name}")
            continue
        assert words in (said := fakes.refused(capsys, f"eval hf:{name}")), said
    assert not Path("runs").exists()


def test_a_private_agent_is_loaded_with_a_token(server, fakes, monkeypatch):
    server.put("someone/secret", gift())
    server.private.add("someone/secret")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert load(fakes.app, "hf:someone/secret").step == 64


def test_a_hub_that_fails_is_met_by_a_sentence(server, fakes, capsys):
    server.put("someone/fake", gift())
    server.broken = 403
    assert "cannot read hf:someone/fake" in fakes.refused(capsys, "eval hf:someone/fake")
    server.broken = 451
    assert "the hub answered 451: try again later" in fakes.refused(capsys, "eval hf:someone/fake")


def test_what_is_published_to_the_hub_is_loaded_from_there(server, fakes, capsys, monkeypatch):
    shutil.copytree(GIFT, "gift")
    Path("gift/expected.json").rename("expected.json")
    Path("gift/eval").mkdir()
    Path("gift/eval/mine.json").write_text("not to be sent")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    main(fakes.app, ["publish", "gift", "--to", "hf:someone/new", "--private"])
    assert "sent to hf:someone/new@" in (out := capsys.readouterr().out) and "play hf:someone/new" in out
    sent = server.repositories["someone/new"]["main"]
    assert sent.keys() == gift().keys() and all(
        sent[name] == text for name, text in gift().items() if name != "agent.json"
    )
    assert server.made[0].get("private") is True or server.made[0].get("visibility") == "private"
    assert load(fakes.app, "hf:someone/new").agent.weight.tolist() == load(fakes.app, "gift").agent.weight.tolist()
    main(fakes.app, ["publish", "gift", "--to", "hf:someone/new"])  # again, where it is there


def test_who_may_not_write_is_told(server, fakes, capsys, monkeypatch):
    shutil.copytree(GIFT, "gift")
    assert "cannot write to hf:someone/new" in fakes.refused(capsys, "publish gift --to hf:someone/new")
    assert not server.repositories


def test_without_the_library_the_extra_is_named(fakes, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert "install wm-run[hub]" in fakes.refused(capsys, "eval hf:someone/fake")


def test_nothing_but_the_hub_imports_the_library():
    source = Path(hub.__file__).parent
    users = [path.name for path in source.rglob("*.py") if "huggingface_hub" in path.read_text()]
    assert users == ["hub.py"]
