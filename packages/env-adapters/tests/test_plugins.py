"""An id of a package that nobody imported, and what is shown that is no array."""

import importlib
import os
import sys
import types
import warnings

import gymnasium
import numpy as np
import pytest
from env_adapters import TaskError, make, make_vec, plugins
from env_adapters.check import examine
from env_adapters.step import digest
from gymnasium import spaces

EYE = spaces.Box(0, 255, (16, 16, 3), np.uint8)
PLUGIN = """
import gymnasium, numpy as np
from gymnasium import spaces

class Told(gymnasium.Env):
    observation_space = spaces.Dict(
        eye=spaces.Box(0, 1, (3,), np.float32), mission=spaces.Text(20),
        more=spaces.Dict(where=spaces.Discrete(4), around=spaces.Graph(spaces.Box(0, 1, (2,)), None)),
    )
    action_space = spaces.Discrete(2)

    def __init__(self, length=5):
        self.length = length

    def seen(self):
        graph = spaces.GraphInstance(np.zeros((1, 2), np.float32), None, None)
        word = "go to the " + ("red" if self.t % 2 else "blue") + " door"
        return {"eye": np.full(3, self.t / 10, np.float32), "mission": word, "more": {"where": self.t % 4, "around": graph}}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self.seen(), {}

    def step(self, action):
        self.t += 1
        return self.seen(), float(action), False, self.t == self.length, {}

def register():
    gymnasium.register("Standing-In-v0", entry_point=Told)
"""


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """A package in a folder of Python's path that registers Standing-In-v0; gives its folder."""
    before = dict(gymnasium.registry)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "stand_in.py").write_text(PLUGIN + "\nregister()\n")
    (tmp_path / "stand_in_asked.py").write_text(PLUGIN)
    yield tmp_path
    for id in gymnasium.registry.keys() - before.keys():
        del gymnasium.registry[id]
    for name in ("stand_in", "stand_in_asked"):
        sys.modules.pop(name, None)


@pytest.fixture
def known(plugin, monkeypatch):
    monkeypatch.setitem(plugins.KNOWN, "Standing-", ("stand_in", "stand-in"))


def published(folder, value, name="__root__"):
    """Says in the folder's metadata that it has such a plugin."""
    about = folder / "stand_in-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Name: stand-in\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(f"[gymnasium.envs]\n{name} = {value}\n")
    importlib.invalidate_caches()


quiet = pytest.mark.filterwarnings("ignore:.*left out")


@quiet
def test_a_known_package_is_imported(known) -> None:
    with make_vec("gym:Standing-In-v0", 2, workers=0) as envs:
        assert envs.reset(seed=0)["eye"].shape == (2, 3)


@quiet
@pytest.mark.skipif(sys.platform != "linux", reason="where a display is named by DISPLAY")
@pytest.mark.parametrize("display", ["", ":0"])
def test_what_opens_a_display_is_told_where_there_is_none(known, monkeypatch, display: str) -> None:
    monkeypatch.setattr(plugins, "HEADLESS", {"stand_in": "STAND_IN_HEADLESS"})
    monkeypatch.setenv("DISPLAY", display)
    monkeypatch.delenv("STAND_IN_HEADLESS", raising=False)
    make("gym:Standing-In-v0")
    assert os.environ.get("STAND_IN_HEADLESS") == (None if display else "true")
    os.environ.pop("STAND_IN_HEADLESS", None)


@quiet
@pytest.mark.parametrize("value", ["stand_in", "stand_in_asked:register"])
def test_a_package_that_publishes_its_environments_is_imported(plugin, value: str) -> None:
    """Which gymnasium did until 1.2, and does no more."""
    published(plugin, value)
    assert make("gym:Standing-In-v0").reset(seed=0)[0]["eye"].shape == (3,)


@quiet
def test_the_module_may_be_named(plugin) -> None:
    assert make("gym:stand_in:Standing-In-v0", length=3).reset(seed=0)[0]["more/where"] == 0


def test_a_package_that_is_not_there_is_a_sentence_with_the_way_out(monkeypatch) -> None:
    monkeypatch.setitem(plugins.KNOWN, "Nowhere-", ("nowhere_at_all", "nowhere-at-all"))
    with pytest.raises(
        TaskError, match=r"is not installed: start with `uv run --with nowhere-at-all apps/...`"
    ) as told:
        make("gym:Nowhere-v0")
    assert "pip" not in str(told.value) and "\n" not in str(told.value)


@pytest.mark.parametrize("id", ["MiniGrid-Empty-5x5-v0", "CrafterReward-v1", "MiniWorld-Hallway-v0"])
def test_well_known_ids_name_their_package(id: str, monkeypatch) -> None:
    module, package = next(both for prefix, both in plugins.KNOWN.items() if id.startswith(prefix))
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "env_adapters.crafter", raising=False)
    monkeypatch.delitem(gymnasium.registry, id, raising=False)
    monkeypatch.setitem(sys.modules, package if module.startswith("env_adapters") else module, None)  # not installed
    with pytest.raises(TaskError, match=f"`uv run --with {package} apps/...`"):
        make(f"gym:{id}")


def test_what_gymnasium_would_install_by_pip_comes_with_uv(monkeypatch) -> None:
    def lacking() -> None:
        raise gymnasium.error.DependencyNotInstalled('run `pip install swig` and `pip install "gymnasium[box2d]"`')

    monkeypatch.setitem(gymnasium.registry, "Lacking-v0", gymnasium.envs.registration.EnvSpec("Lacking-v0", lacking))
    with pytest.raises(TaskError, match=r"missing: start with `uv run --with 'gymnasium\[box2d\]' apps/...`") as told:
        make("gym:Lacking-v0")
    assert "pip" not in str(told.value)


def test_a_plugin_that_does_not_load_is_a_sentence(plugin) -> None:
    published(plugin, "stand_in_asked:nothing")
    with pytest.raises(TaskError, match="the plugin stand_in_asked:nothing that is to register it does not load"):
        make("gym:Standing-In-v0")


# ---- what is no array


@pytest.mark.parametrize("workers", [0, 1])
def test_what_is_no_array_is_left_out_with_one_notice(known, workers: int, plugin, monkeypatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(plugin))
    task = "gym:stand_in:Standing-In-v0" if workers else "gym:Standing-In-v0"  # a worker has a table of its own
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        with make_vec(task, 3, workers=workers) as envs:
            step = envs.reset(seed=0)
            for _ in range(12):
                step = envs.step(np.eye(2, dtype=np.float32)[[0, 1, 1]])
    told = [str(one.message) for one in heard]
    assert sorted(word for word in told if "left out" in word) == [
        "the observation 'mission' is a Text and no array: it is left out (`drop` names what is)",
        "the observation 'more/around' is a Graph and no array: it is left out (`drop` names what is)",
    ]
    assert set(envs.observation_space.spaces) == {"eye", "more/where"} == set(envs.sources)
    assert envs.drop == ("mission", "more/around") and envs.unseen == {("mission",), ("more", "around")}
    assert envs.protocol["dropped"] == ["mission", "more/around"]
    assert step["first"].all() and (step["eye"] == 0).all()  # after twice five steps and a reset each


def test_what_is_named_is_left_out_in_silence(plugin) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with make_vec("gym:stand_in:Standing-In-v0", 1, drop=["more/around", "mission", "eye"]) as envs:
            step = envs.reset(seed=0)
            assert set(envs.observation_space.spaces) == {"more/where"} and "eye" not in step
            seen = [int(envs.step(np.eye(2, dtype=np.float32)[:1])["more/where"][0]) for _ in range(3)]
    assert seen == [1, 2, 3] and envs.protocol["dropped"] == ["eye", "mission", "more/around"]


@pytest.mark.parametrize(
    ("drop", "told"),
    [
        (["sound"], "drop names 'sound', but the observations are eye, mission, more/around, more/where"),
        (["mission"], r"'more/around' is Graph.*or leave it out \(drop: mission, more/around\)"),
        ([], r"'mission' is Text.*or leave it out \(drop: mission\)"),
        (["eye", "mission", "more/around", "more/where"], "which leaves nothing to see"),
    ],
)
def test_what_cannot_be_left_out_is_told(plugin, drop: list[str], told: str) -> None:
    with pytest.raises(TaskError, match=told):
        make("gym:stand_in:Standing-In-v0", drop=drop)


def test_an_environment_that_shows_a_text_alone_is_refused_as_before() -> None:
    class Spoken(gymnasium.Env):
        observation_space, action_space = spaces.Text(3), spaces.Discrete(2)

    with pytest.raises(TaskError, match=r"the observation 'vector' is Text.*with a wrapper$"):
        make(Spoken)


def test_one_of_ours_drops_too() -> None:
    """A toy has all that is asked and is otherwise returned as it is."""
    with pytest.raises(TaskError, match="leaves nothing to see"):
        make("toy:catch", drop=["image"])


@quiet
def test_the_check_tells_it_as_a_remark_and_a_snapshot_is_restored(plugin) -> None:
    """The graph's None has no bytes of its own: what was compared were addresses."""
    found = examine("gym:stand_in:Standing-In-v0", steps=20)
    assert {one.verdict for one in found} <= {"passes", "remark"}, found
    assert any("'mission' is a Text" in one.detail for one in found)
    assert digest((None, "a")) == digest((None, "a")) != digest((None, "b"))
    assert digest(object()) == digest(object())


def test_an_assertion_of_a_plugin_that_wants_another_package_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for gymnasium-robotics beside a mujoco that it does not agree with; what nobody knows stays an assertion."""
    for name in ("gymnasium_robotics", "strange_plugin"):
        module = types.ModuleType(name)

        def made(**_: object) -> None:
            raise AssertionError

        made.__module__ = name
        module.Fetch = made  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, name, module)
    for id, point in (("FetchStandIn-v0", "gymnasium_robotics:Fetch"), ("StrangeStandIn-v0", "strange_plugin:Fetch")):
        spec = gymnasium.envs.registration.EnvSpec(id, entry_point=point)
        monkeypatch.setitem(gymnasium.registry, id, spec)
    with pytest.raises(TaskError, match=r"does not agree with the mujoco here: .*--with mujoco==3\.3\.7 apps"):
        make("gym:FetchStandIn-v0")
    with pytest.raises(AssertionError):
        make("gym:StrangeStandIn-v0")
