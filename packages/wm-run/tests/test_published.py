"""publish: what of a run is given away, that it plays as the run did, and that nothing of a stranger's is believed or executed."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pickle
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from wm_core.errors import UserError
from wm_run import agents, card, checkpoint, dreams, inference, published
from wm_run.cli import main
from wm_run.loading import load
from wm_run.manifest import sealed

FORMATS = Path(__file__).parent / "published"


@pytest.fixture(scope="module")
def kept(tmp_path_factory) -> Path:
    """Where the run and the gift of all tests are made once."""
    return tmp_path_factory.mktemp("kept")


@pytest.fixture
def run(fakes, monkeypatch, capsys, kept) -> Path:
    """A run with its evaluation, of an app whose agents remember."""
    fakes.app = dataclasses.replace(fakes.app, remembers=True)
    monkeypatch.setattr(dreams, "videos", lambda session, step: [])
    if not (kept / "D").exists():
        main(fakes.app, ["train", "--preset", "tiny", "--steps", "60", "--logdir", str(kept / "D")])
        main(fakes.app, ["eval", str(kept / "D"), "--episodes", "3"])
    shutil.copytree(kept / "D", "D")
    capsys.readouterr()
    return Path("D")


@pytest.fixture
def gift(run, fakes, capsys, kept) -> Path:
    """The same, published."""
    if not (kept / "gift").exists():
        main(fakes.app, ["publish", "D", "--to", str(kept / "gift")])
    shutil.copytree(kept / "gift", "gift")
    capsys.readouterr()
    return Path("gift")


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def evaluated(app, name: str, capsys) -> dict:
    main(app, ["eval", name, "--episodes", "3"])
    return json.loads(capsys.readouterr().out)


def test_what_is_published_plays_as_the_run_did(run, gift, fakes, capsys):
    names = {"agent.json", "config.toml", "model.safetensors", "memory.safetensors", "README.md"}
    assert {path.name for path in gift.iterdir()} == names
    assert evaluated(fakes.app, "gift", capsys) == evaluated(fakes.app, "D", capsys)
    here, there = load(fakes.app, "gift"), load(fakes.app, "D")
    assert (here.step, here.protocol, here.environments) == (there.step, there.protocol, 2)
    assert torch.equal(here.carry["sum"], there.carry["sum"]) and torch.equal(here.agent.weight, there.agent.weight)
    observation = {"image": np.full((16, 16, 3), 7, np.uint8)}
    assert np.array_equal(here.policy(observation)[0], there.policy(observation)[0])


def test_the_memory_stays_at_home_where_no_app_asks_for_it(run, fakes, capsys):
    app = dataclasses.replace(fakes.app, remembers=False)
    main(app, ["publish", "D", "--to", "gift"])
    assert not Path("gift/memory.safetensors").exists() and load(app, "gift").carry is None


def test_the_memories_of_the_first_environments_are_given_and_the_card_says_so(run, fakes, capsys):
    main(fakes.app, ["publish", "D", "--to", "gift", "--memories", "1"])
    here, there = load(fakes.app, "gift"), load(fakes.app, "D")
    assert here.environments == 1 and there.environments == 2 and len(there.carry["sum"]) == 2
    assert torch.equal(here.carry["sum"], there.carry["sum"][:1]) and here.carry["sum"].any()
    text = Path("gift/README.md").read_text()
    assert (card.facts(text)["memories"], card.facts(text)["memories_of"]) == (1, 2)
    assert "what 1 of the 2 environments of its training left in its memory" in text
    capsys.readouterr()
    assert len(evaluated(fakes.app, "gift", capsys)["scores"]) == 3  # in two environments, from the one memory
    with pytest.raises(SystemExit):
        main(fakes.app, ["publish", "D", "--memories", "0"])
    assert "--memories must be at least 1, not 0" in capsys.readouterr().err


def test_of_many_environments_a_few_memories_are_given_unless_more_are_asked_for(run, fakes, capsys):
    saved = checkpoint.load(checkpoint.latest(run))
    state = saved.state | {"loop": saved.state["loop"] | {"score": [0.0] * 20, "carry": {"sum": torch.randn(20, 2)}}}
    checkpoint.save(run, saved.step, weights=saved.weights, state=state, meta=saved.meta)
    main(fakes.app, ["eval", "D", "--episodes", "3"])
    for words, count, told in ([], 8, "8 of the 20"), (["--memories", "64"], 20, "all of the 20"):
        main(fakes.app, ["publish", "D", "--to", "gift", *words])
        loaded = load(fakes.app, "gift")
        assert loaded.environments == count and torch.equal(loaded.carry["sum"], state["loop"]["carry"]["sum"][:count])
        assert f"what {told} environments" in Path("gift/README.md").read_text()


def test_a_memory_of_any_tensors_comes_back(tmp_path):
    memory = {
        "bank": torch.randn(2, 3).half(),
        "at": [torch.tensor([1, 2]), None],
        "s": (torch.randn(2, 2, dtype=torch.cfloat),),
    }
    memory["ok"] = torch.tensor([[True], [False]])
    files, structure = inference.files({"w": torch.ones(3)}, memory)
    about = {
        "app": "a",
        "version": "1",
        "step": 3,
        "task": "t",
        "protocol": {},
        "spaces": {},
        "environments": 2,
        "memory": structure,
    }
    published.write(tmp_path / "gift", about, files | {"config.toml": b""}, "")
    back = inference.load(tmp_path / "gift")
    found = back.state["loop"]["carry"]
    assert list(found) == list(memory) and type(found["s"]) is tuple and found["at"][1] is None
    for mine, theirs in (
        (found["bank"], memory["bank"]),
        (found["at"][0], memory["at"][0]),
        (found["s"][0], memory["s"][0]),
    ):
        assert mine.dtype == theirs.dtype and torch.equal(mine, theirs)
    assert found["ok"].dtype == torch.bool and len(back.state["loop"]["score"]) == 2


@pytest.mark.parametrize("format", sorted(path.name for path in FORMATS.iterdir()))
def test_what_was_published_in_any_format_loads_for_ever(format, fakes, capsys):
    """The folder was written by the code of its time, with what the agent did then."""
    shutil.copytree(FORMATS / format, "old")
    expected = json.loads(Path("old/expected.json").read_text())
    os.remove("old/expected.json")
    app = dataclasses.replace(fakes.app, remembers=True)
    loaded = load(app, "old")
    assert loaded.agent.weight.tolist() == expected["weight"] and loaded.carry["sum"].tolist() == expected["carry"]
    result = evaluated(app, "old", capsys)
    assert {name: result[name] for name in ("scores", "lengths", "step")} == expected["eval"]
    assert card.facts(Path("old/README.md").read_text())["scores"][0]["score"] == pytest.approx(expected["score"])


def test_every_format_that_was_ever_written_is_kept():
    assert {path.name for path in FORMATS.iterdir()} == {f"format-{k}" for k in range(1, published.FORMAT + 1)}


# ---- what a stranger may have done


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("pwned",)


def again(folder: Path, **changed: object) -> None:
    """agent.json with these entries, sizes and checksums of the files as they are, and a seal that fits: a careful stranger's."""
    about = json.loads((folder / "agent.json").read_text())
    about["files"] = {
        name: {
            "sha256": hashlib.sha256((folder / name).read_bytes()).hexdigest(),
            "bytes": (folder / name).stat().st_size,
        }
        for name in about["files"]
        if (folder / name).is_file()
    }
    (folder / "agent.json").write_text(json.dumps(sealed(about | changed)))


def weights(data: bytes) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / "model.safetensors").write_bytes(data)
        again(folder)

    return change


def link(name: str, to: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        shutil.move(folder / name, to)
        os.symlink(os.path.abspath(to), folder / name)

    return change


def text(name: str, change: Callable[[str], str]) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_text(change((folder / name).read_text())) and None


def entry(**changed: object) -> Callable[[Path], None]:
    return lambda folder: again(folder, **changed)


def outside(folder: Path) -> None:
    about = json.loads((folder / "agent.json").read_text())
    about["files"]["../secret"] = about["files"]["config.toml"]
    Path("secret").write_bytes((folder / "config.toml").read_bytes())
    (folder / "agent.json").write_text(json.dumps(sealed(about)))


TENSOR = b'{"weight":{"dtype":"F32","shape":[2],"data_offsets":[0,99999999999]}}'
HOSTILE: dict[str, tuple[Callable[[Path], None], str]] = {
    "a pickle": (weights(pickle.dumps(Bomb())), "the weights in gift cannot be read"),
    "a header of a terabyte": (weights(struct.pack("<Q", 2**40) + b"{}"), "the weights in gift cannot be read"),
    "a header of the largest number": (weights(struct.pack("<Q", 2**64 - 1)), "the weights in gift cannot be read"),
    "a tensor beyond the file": (
        weights(struct.pack("<Q", len(TENSOR)) + TENSOR),
        "the weights in gift cannot be read",
    ),
    "no weights at all": (weights(b""), "the weights in gift cannot be read"),
    "weights of another network": (
        weights(safetensors.torch.save({"other": torch.ones(2)})),
        "the weights in gift do not fit this config",
    ),
    "a weight that is no number": (
        weights(safetensors.torch.save({"weight": torch.tensor([0.0, float("nan")])})),
        "take another checkpoint",
    ),
    "a changed weight": (
        lambda folder: (
            (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-1] + b"!") and None
        ),
        "model.safetensors is not what was published (its sha256 differs)",
    ),
    "more weights than were said": (
        lambda folder: (folder / "model.safetensors").open("ab").write(b"!" * 9) and None,
        "model.safetensors is not what was published",
    ),
    "a changed config": (
        text("config.toml", lambda old: old.replace("lr =", "# \nlr =")),
        "config.toml is not what was published",
    ),
    "a changed word": (
        text("agent.json", lambda old: old.replace('"fake"', '"fakd"', 1)),
        "not what was published (its seal differs)",
    ),
    "a path out of the folder": (outside, "does not say what a published agent is"),
    "weights by a link": (link("model.safetensors", "elsewhere"), "gift/model.safetensors is no file of this folder"),
    "a config by a link": (link("config.toml", "elsewhere"), "gift/config.toml is no file of this folder"),
    "no file of weights": (lambda folder: os.remove(folder / "model.safetensors"), "gift/model.safetensors is missing"),
    "no memory": (lambda folder: os.remove(folder / "memory.safetensors"), "gift/memory.safetensors is missing"),
    "no config": (lambda folder: os.remove(folder / "config.toml"), "gift/config.toml is missing"),
    "a card alone": (lambda folder: os.remove(folder / "agent.json"), "gift/agent.json is missing"),
    "half a description": (text("agent.json", lambda old: old[:100]), "does not say what a published agent is"),
    "a list": (text("agent.json", lambda old: "[1, 2]"), "does not say what a published agent is"),
    "brackets without end": (text("agent.json", lambda old: "[" * 100_000), "does not say what a published agent is"),
    "another format": (entry(format=2), "has format 2, and this wm-run reads format 1"),
    "a format in words": (entry(format="1"), "does not say what a published agent is"),
    "more environments than there are": (entry(environments=10**15), "does not say what a published agent is"),
    "a memory that is not there": (entry(memory={"dict": {"sum": 5}}), "the weights in gift cannot be read"),
    "a memory in itself": (entry(memory={"list": [{"tuple": [{"set": [0]}]}]}), "the weights in gift cannot be read"),
    "a memory of another agent": (entry(memory={"dict": {"sum": 0, "more": 0}}), "--memory empty"),
    "another app's": (entry(app="dreamer_x"), "wm-app-dreamer-x, which is not installed here"),
    "an app by a path": (entry(app="../../x"), "use that app"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_strangers_folder_is_met_by_a_sentence(name, gift, fakes, capsys):
    change, words = HOSTILE[name]
    change(gift)
    before = tree(Path("."))
    said = fakes.refused(capsys, "eval gift")
    assert words in said, said
    if "--memory empty" not in words:  # which `load` does not look at
        with pytest.raises(UserError):
            load(fakes.app, "gift")
    assert tree(Path(".")) == before and not Path("pwned").exists()


def test_a_stranger_names_another_app_in_the_config_alone(gift, fakes, capsys):
    text("config.toml", lambda old: old.replace('app = "fakeapp"', 'app = "storm"'))(gift)
    again(gift)
    assert "gift holds a run of 'storm', not of 'fakeapp': use that app" in fakes.refused(capsys, "play gift")


def test_links_within_the_hubs_cache_are_followed(gift, fakes, capsys):
    """Its snapshots are links to files that lie beside them."""
    Path("cache/snapshots").mkdir(parents=True)
    Path("cache/blobs").mkdir()
    shutil.move(gift, "cache/snapshots/c0ffee")
    shutil.move("cache/snapshots/c0ffee/model.safetensors", "cache/blobs/1")
    os.symlink("../../blobs/1", "cache/snapshots/c0ffee/model.safetensors")
    assert load(fakes.app, "cache/snapshots/c0ffee").step == 64
    shutil.move("cache/blobs/1", "elsewhere")
    os.symlink("../../../elsewhere", "cache/blobs/1")
    assert "is no file of this folder" in fakes.refused(capsys, "eval cache/snapshots/c0ffee")


# ---- names


@pytest.fixture
def shelf(gift, monkeypatch) -> Path:
    """A checkout's folder of pretrained agents."""
    folder = Path("checkout/pretrained").absolute()
    folder.mkdir(parents=True)
    shutil.move(gift, folder / "gift")
    monkeypatch.setattr(agents, "shelf", lambda: folder)
    return folder


def test_results_of_a_pretrained_agent_lie_in_a_copy_of_the_users(shelf, fakes, capsys):
    before = tree(shelf)
    main(fakes.app, ["eval", "pretrained:gift", "--episodes", "3"])
    out, err = capsys.readouterr()
    assert json.loads(out)["step"] == 64 and "runs/pretrained/gift" in err
    copy = Path("runs/pretrained/gift")
    assert (copy / "eval" / "64.json").is_file() and tree(shelf) == before
    assert {path.name: path.read_bytes() for path in copy.iterdir() if path.is_file()} == {
        Path(name).name: text for name, text in before.items()
    }


def test_the_copy_is_brought_up_to_date_and_keeps_the_results(shelf, fakes, capsys):
    first = evaluated(fakes.app, "pretrained:gift", capsys)
    (shelf / "gift" / "model.safetensors").write_bytes(safetensors.torch.save({"weight": torch.tensor([5.0, 5.0])}))
    again(shelf / "gift")
    Path("runs/pretrained/gift/eval/note.txt").write_text("mine")
    assert evaluated(fakes.app, "pretrained:gift", capsys)["step"] == first["step"]
    assert load(fakes.app, "runs/pretrained/gift").agent.weight.tolist() == [5.0, 5.0]
    assert Path("runs/pretrained/gift/eval/note.txt").read_text() == "mine"


def test_loading_writes_nothing_anywhere(shelf, fakes):
    before = tree(Path("."))
    assert load(fakes.app, "pretrained:gift").step == 64 and fakes.app.load("pretrained:gift").step == 64
    assert tree(Path(".")) == before


def test_a_name_of_nothing_is_met_by_a_sentence(shelf, fakes, capsys, monkeypatch):
    assert "no pretrained agent 'gfit'; did you mean 'gift'?" in fakes.refused(capsys, "eval pretrained:gfit")
    for odd in ("pretrained:", "pretrained:../pretrained/gift", "pretrained:/etc"):
        assert "there is no pretrained agent" in fakes.refused(capsys, f"play {odd}")
    monkeypatch.setattr(agents, "shelf", lambda: None)
    assert "work in a clone of it, or name a folder or hf:ORG/NAME" in fakes.refused(capsys, "eval pretrained:gift")


def test_a_run_begins_with_the_weights_of_a_published_agent(shelf, fakes, capsys):
    line = ["train", "--preset", "tiny", "--steps", "8", "--learning_starts", "999", "--final_video", "False"]
    for name, logdir in (("pretrained:gift", "N1"), (str(shelf / "gift"), "N2")):
        main(fakes.app, [*line, "--logdir", logdir, "--init_from", name])
        assert "weights of " in capsys.readouterr().err
        mine, theirs = load(fakes.app, logdir).agent, load(fakes.app, "pretrained:gift").agent
        assert torch.equal(mine.weight, theirs.weight)
    assert 'init_from = "pretrained:gift"' in Path("N1/config.toml").read_text()


def test_no_run_goes_on_from_a_published_agent(shelf, fakes, capsys):
    before = tree(shelf)
    assert "--init_from pretrained:gift" in fakes.refused(capsys, "train --logdir pretrained:gift")
    said = fakes.refused(capsys, f"train --logdir {shelf}/gift --steps 9")
    assert "holds a published agent, with which no run goes on" in said
    assert "no pretrained agent" in fakes.refused(capsys, "train --preset tiny --logdir N --init_from pretrained:gfit")
    assert tree(shelf) == before and not Path("N").exists()


# ---- publishing


def test_the_card_tells_what_it_is_and_how_well_it_plays(gift, fakes):
    text = (gift / "README.md").read_text()
    facts, result = card.facts(text), json.loads(Path("D/eval/64.json").read_text())
    assert facts["task"] == "fake" and facts["protocol"] == {"task": "fake", "name": "fake", "sizes": [1, 2]}
    assert facts["license"] == "mit" and facts["step"] == 64 and facts["parameters"] == 2
    assert facts["command"].endswith(" train --preset tiny --steps 60")
    (row,) = facts["scores"]
    assert row["score"] == pytest.approx(result["score"]) and row["episodes"] == 3
    assert {"commit", "hardware"} <= facts.keys() and "cores of" in facts["hardware"]
    assert os.getcwd() not in text and "logdir" not in text


def test_rows_give_the_scores_of_every_seed(run, fakes, capsys):
    made = {"app": "fakeapp", "preset": "tiny", "options": {}}
    rows = [
        {
            "task": "fake",
            "arm": "a",
            "seed": 1,
            "settings": made,
            "step": 60,
            "commit": "abc",
            "trained": [1, 0],
            "won": [1, 0],
        },
        {"task": "fake", "arm": "a", "seed": 0, "settings": made, "step": 60, "commit": "abc", "trained": [1, 1]},
        {
            "task": "fake",
            "arm": "b",
            "seed": 0,
            "settings": made | {"ablation": "narrow"},
            "step": 60,
            "trained": [9, 9],
        },
        {"task": "other", "arm": "a", "seed": 2, "settings": made, "step": 60, "trained": [9, 9]},
    ]
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    main(fakes.app, ["publish", "D", "--rows", "rows.jsonl"])
    facts = card.facts(Path("D/published/README.md").read_text())
    assert [(row["seed"], row["score"]) for row in facts["scores"]] == [(0, 1.0), (1, 0.5)] and facts["scores"][1][
        "won"
    ] == 0.5
    Path("rows.jsonl").write_text(json.dumps(rows[0]) + "\n")
    assert "seed 0, which this agent has" in fakes.refused(capsys, "publish D --rows rows.jsonl")
    Path("rows.jsonl").write_text("no rows")
    assert "is no file of rows" in fakes.refused(capsys, "publish D --rows rows.jsonl")
    assert "cannot read the rows in nowhere" in fakes.refused(capsys, "publish D --rows nowhere")
    assert card.facts(Path("D/published/README.md").read_text()) == facts


def test_what_cannot_be_published_is_met_by_a_sentence(run, gift, fakes, capsys):
    Path("full").mkdir()
    Path("full/mine.txt").write_text("mine")
    for line, words in {
        "publish D --to full": "full holds mine.txt, and a published agent lies in a folder of its own",
        "publish D --to D": "a published agent lies in a folder of its own",
        "publish D --to pretrained:gift": "a name for reading",
        "publish D --to hf:nothing": "names no repository",
        "publish D --seed 9": "--seed would be another agent than the run's",
        "publish D --steps 9": "--steps is for training",
        "publish gift": "gift is published already",
        "publish nowhere": "there is no run in nowhere",
    }.items():
        before = tree(Path("."))
        assert words in fakes.refused(capsys, line), line
        assert tree(Path(".")) == before
    shutil.rmtree("D/eval")
    assert "run `eval D` first" in fakes.refused(capsys, "publish D --to other") and not Path("other").exists()


def test_publishing_again_replaces_what_was_published(run, gift, fakes, capsys):
    before = tree(gift)
    main(fakes.app, ["publish", "D", "--to", "gift", "--licence", "cc-by-4.0"])
    after = tree(gift)
    assert {name for name in after if after[name] != before[name]} == {"gift/README.md"}
    assert not [path for path in Path(".").iterdir() if path.name.startswith(".")]


def test_weights_stay_in_full(run, gift):
    saved = checkpoint.load(checkpoint.latest("D")).weights
    stored = safetensors.torch.load_file(gift / "model.safetensors")
    assert {name: value.dtype for name, value in stored.items()} == {name: value.dtype for name, value in saved.items()}
