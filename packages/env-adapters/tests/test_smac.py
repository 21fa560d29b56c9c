"""SMAC and SMACv2 without StarCraft II and without SMACv2's code: names, what is told of what is missing, the server of the
tests and its protocol, and the adapter around a stand-in for the code. With the code itself: nox's session `integration`."""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
from env_adapters import TaskError, check_env, make, make_vec, smac_installed, smac_maps, tasks

HERE = pathlib.Path(__file__).parent
SERVER = HERE / "starcraft_server.py"


def load(file):
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


server = load(SERVER)

# ---------------------------------------------------------------- names


def test_every_map_and_the_papers_scenarios_are_tasks() -> None:
    listed = set(tasks())
    assert {"smac:3m", "smac:corridor", "smac:MMM2", "smacv2:protoss_5_vs_5", "smacv2:terran_20_vs_23"} <= listed
    assert (
        sum(one.startswith("smac:") for one in listed) == 23 and sum(one.startswith("smacv2:") for one in listed) == 15
    )


def test_a_scenarios_arguments_are_the_papers() -> None:
    asked = smac_maps.smacv2("terran_10_vs_11")
    config = asked["capability_config"]
    assert (asked["map_name"], config["n_units"], config["n_enemies"]) == ("10gen_terran", 10, 11)
    assert config["team_gen"] == {
        "dist_type": "weighted_teams",
        "unit_types": ["marine", "marauder", "medivac"],
        "weights": [0.45, 0.45, 0.1],
        "exception_unit_types": ["medivac"],
        "observe": True,
    }
    assert smac_maps.smacv2("terran_10_vs_11")["capability_config"] is not config  # the package writes into it


@pytest.mark.parametrize(
    ("task", "told"),
    [
        ("smac:3n", "there is no SMAC map '3n'; close: 3m"),
        ("smac:", "there is no SMAC map ''; maps: 2m_vs_1z"),
        ("smacv2:protos_5_vs_5", "a race of protoss, terran, zerg"),
        ("smacv2:zerg_0_vs_5", "1 to 99 units a side, such as protoss_5_vs_5"),
        ("smacv2:zerg_5", "there is no SMACv2 scenario 'zerg_5'"),
        ("smac_3m", "close: smac:3m"),
    ],
)
def test_other_names_are_told(task, told) -> None:
    with pytest.raises(TaskError, match=told):
        make_vec(task, 1)


# ---------------------------------------------------------------- what is missing


@pytest.fixture
def whole(tmp_path, monkeypatch):
    """Everything is there: an installation, a checkout (see `STAND_IN`), the packages of the extra."""
    folder, checkout = server.install(tmp_path / "StarCraftII"), tmp_path / "checkout"
    for file, text in STAND_IN.items():
        (checkout / file).parent.mkdir(parents=True, exist_ok=True)
        (checkout / file).write_text(textwrap.dedent(text))
    for name, value in (("SC2PATH", folder), ("SMACV2_SOURCE", checkout), ("STAND_IN_LOG", tmp_path / "log")):
        monkeypatch.setenv(name, str(value))
    monkeypatch.syspath_prepend(checkout)
    return tmp_path


def without(monkeypatch, module):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == module else find(name, *rest))


def refused(match):
    with pytest.raises(TaskError, match=match) as caught:
        make_vec("smac:3m", 1)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("module", ["pysc2", "s2clientprotocol"])
def test_a_missing_package_is_named_with_the_way_to_it(whole, monkeypatch, module) -> None:
    without(monkeypatch, module)
    refused(rf"needs {module}, which is not installed: start with `uv run --with {module} apps/\.\.\.`")


def test_a_missing_checkout_is_named_with_its_source(whole, monkeypatch) -> None:
    monkeypatch.setenv("SMACV2_SOURCE", str(whole))
    refused("which is no checkout of SMACv2 .*`git clone https://github.com/oxwhirl/smacv2` and set SMACV2_SOURCE")
    monkeypatch.delenv("SMACV2_SOURCE")
    assert smac_installed.code() == whole / "checkout" / "smacv2" / "env" / "starcraft2"  # as an installed package
    without(monkeypatch, "smacv2")
    refused("on no package registry; `git clone https://github.com/oxwhirl/smacv2` and set SMACV2_SOURCE")


def test_a_missing_game_is_named_with_the_line_that_installs_it(whole, monkeypatch) -> None:
    (whole / "StarCraftII/Versions/Base75689/SC2_x64").chmod(0o644)  # not to be executed
    refused(r"StarCraft II is not in .*StarCraftII \(no Versions.*`curl -O .*SC2.4.10.zip.*or set SC2PATH")
    monkeypatch.setenv("SC2PATH", str(whole / "nowhere"))
    refused("StarCraft II is not in .*nowhere")
    monkeypatch.delenv("SC2PATH")
    monkeypatch.setenv("HOME", str(whole))
    (whole / "StarCraftII/Versions/Base75689/SC2_x64").chmod(0o755)
    assert smac_installed.starcraft() == whole / "StarCraftII"


@pytest.mark.parametrize(("task", "file"), [("smac:6h_vs_8z", "6h_vs_8z"), ("smacv2:zerg_5_vs_5", "32x32_flat")])
def test_a_missing_map_is_named_with_the_line_that_copies_it(whole, task, file) -> None:
    (whole / "StarCraftII/Maps/SMAC_Maps/32x32_flat.SC2Map").unlink()
    with pytest.raises(
        TaskError, match=f"lacks the map {file}.SC2Map in .*`mkdir -p .*/Maps && cp -r .*SMAC_Maps .*/Maps`"
    ):
        make_vec(task, 1)


def test_the_newest_build_counts(whole) -> None:
    for number in (9999, 80000):
        folder = whole / "StarCraftII" / "Versions" / f"Base{number}"
        folder.mkdir()
        (folder / "SC2_x64").write_text("#!/bin/sh\n")
    (folder / "SC2_x64").chmod(0o755)
    assert smac_installed.builds(whole / "StarCraftII") == [75689, 80000]  # one cannot be executed


# ---------------------------------------------------------------- the server and its protocol

CLIENT = """
import os, subprocess, sys, time
os.environ["PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION"] = "python"
from s2clientprotocol import common_pb2, debug_pb2, raw_pb2, sc2api_pb2 as api
from websockets.sync.client import connect

process = subprocess.Popen([sys.argv[1], "-listen", "127.0.0.1", "-port", sys.argv[2], "-dataDir", sys.argv[3] + "/"])
for _ in range(600):
    try:
        socket = connect(f"ws://127.0.0.1:{sys.argv[2]}/sc2api", compression=None, max_size=None)
        break
    except OSError:
        assert process.poll() is None, "the server does not start"
        time.sleep(0.1)
count = 0

def ask(error=False, text=True, **request):
    global count
    count += 1
    message = api.Request(id=count, **request).SerializeToString()
    socket.send(message, text=text)  # pysc2 sends text frames
    raw = socket.recv()
    assert isinstance(raw, bytes)  # a binary frame
    response = api.Response.FromString(raw)
    assert response.id == count and response.HasField("status") and bool(response.error) == error, response
    return response if error else getattr(response, response.WhichOneof("response"))

def units():
    return ask(observation=api.RequestObservation()).observation.raw_data.units

def order(tags, **command):
    unit = raw_pb2.ActionRawUnitCommand(unit_tags=tags, **command)
    action = api.Action(action_raw=raw_pb2.ActionRaw(unit_command=unit))
    return list(ask(action=api.RequestAction(actions=[action])).result)

assert ask(ping=api.RequestPing()).base_build == 75689
assert "under way" in ask(error=True, observation=api.RequestObservation()).error[0]
assert "no answer to save_map" in ask(error=True, save_map=api.RequestSaveMap()).error[0]
players = [api.PlayerSetup(type=api.Participant), api.PlayerSetup(type=api.Computer, difficulty=api.VeryHard)]
game = dict(map_path="SMAC_Maps/3m.SC2Map", map_data=b"MPQ")
assert ask(create_game=api.RequestCreateGame(local_map=api.LocalMap(map_path="3m"), player_setup=players)).HasField("error")
assert ask(create_game=api.RequestCreateGame(local_map=api.LocalMap(**game))).HasField("error")  # nobody plays
assert not ask(create_game=api.RequestCreateGame(local_map=api.LocalMap(**game), player_setup=players)).HasField("error")
joined = ask(join_game=api.RequestJoinGame(race=common_pb2.Terran, options=api.InterfaceOptions(raw=True)))
assert joined.player_id == 1 and not joined.HasField("error")

info = ask(game_info=api.RequestGameInfo()).start_raw
assert len(info.pathing_grid.data) == 128 and len(info.terrain_height.data) == 1024 and info.map_size.x == 32
types = ask(text=False, data=api.RequestData(unit_type_id=True)).units  # binary frames do as well
assert len(types) == 200

first = units()
mine, theirs = ([one for one in first if one.owner == owner] for owner in (1, 2))
assert len(mine) == len(theirs) == 3 and {one.health for one in first} == {45.0} and {one.unit_type for one in theirs} == {48}
tags = [one.tag for one in mine]
assert order(tags, ability_id=16, target_world_space_pos=common_pb2.Point2D(x=12, y=16)) == [1]
assert order([99], ability_id=16) == [2] and order(tags, ability_id=23, target_unit_tag=99) == [2]
ask(step=api.RequestStep(count=4))
assert all(abs(one.pos.x - before.pos.x) > 0.1 for one, before in zip(units(), mine) if one.owner == 1)
while theirs := [one for one in units() if one.owner == 2]:
    assert order(tags, ability_id=23, target_unit_tag=theirs[0].tag) in ([1], [2])
    assert ask(step=api.RequestStep(count=8)).simulation_loop < 4000
left = [one.tag for one in units()]
assert left and set(left) <= set(tags)  # the allies hit harder here
kill = debug_pb2.DebugCommand(kill_unit=debug_pb2.DebugKillUnit(tag=left))
ask(debug=api.RequestDebug(debug=[kill]))
ask(step=api.RequestStep(count=2))  # nobody has seen the empty map yet: nobody appears
assert not units()
ask(step=api.RequestStep(count=2))
assert len(units()) == 6
made = debug_pb2.DebugCreateUnit(unit_type=74, owner=2, pos=common_pb2.Point2D(x=1, y=2), quantity=2)
ask(debug=api.RequestDebug(debug=[debug_pb2.DebugCommand(create_unit=made)]))
new = units()[6:]
assert len(new) == 2 and all((one.shield, one.owner, one.pos.y) == (80, 2, 2) for one in new)
socket.send(api.Request(quit=api.RequestQuit()).SerializeToString(), text=True)
assert process.wait(20) == 0
print("whole")
"""


@pytest.mark.skipif(
    importlib.util.find_spec("s2clientprotocol") is None or importlib.util.find_spec("websockets") is None,
    reason="needs the group `test`: uv sync --package env-adapters --group test",
)
def test_the_tests_server_speaks_the_protocol(tmp_path) -> None:
    """A whole battle by a client of another library than pysc2's."""
    folder = server.install(tmp_path / "StarCraftII")
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    done = subprocess.run(
        [sys.executable, "-c", CLIENT, folder / "Versions/Base75689/SC2_x64", str(port), folder],
        env=os.environ | {"SC2_TEST_ALLIES": "20", "SC2_TEST_ENEMIES": "3"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout == "whole\n", done.stderr[-2000:]
    assert len(list((folder / "pids").iterdir())) == 1


# ---------------------------------------------------------------- the adapter around a stand-in for SMACv2's code

# The stand-in has the code's interface and its traps, and no game: health is counted down by the actions. It proves nothing
# about SMACv2; it is what CI can have of it. An action 5 of the first agent loses the game.
STAND_IN = {
    "s2clientprotocol/__init__.py": "",
    "pysc2/__init__.py": "",
    "pysc2/lib/__init__.py": "",
    "pysc2/lib/sc_process.py": "class StarcraftProcess:\n    pass\n",
    "pysc2/run_configs/__init__.py": "",
    "pysc2/run_configs/lib.py": """
        class Version:
            build_version = 75689
        VERSIONS = {"4.10.0": Version}
        """,
    "smacv2/__init__.py": "",
    "smacv2/env/__init__.py": """
        from smacv2.env.starcraft2.starcraft2 import StarCraft2Env
        from smacv2.env.starcraft2.wrapper import StarCraftCapabilityEnvWrapper
        """,
    "smacv2/env/starcraft2/__init__.py": "",
    "smacv2/env/starcraft2/maps/smac_maps.py": "",
    "smacv2/env/starcraft2/distributions.py": "",
    "smacv2/env/starcraft2/starcraft2.py": """
        import json, os
        import numpy as np
        difficulties = {"7": 7, "A": 10}
        class CannotResetException(Exception):
            pass
        class Unit:
            def __init__(self, health):
                self.health = self.health_max = health
                self.shield_max = 5
        class StarCraft2Env:
            def __init__(self, map_name, difficulty="7", game_version=None, capability_config={}, **rest):
                assert os.environ["PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION"] == "python"
                self.n_agents, self.n_enemies, self.game_version = 3, 2, game_version
                self.max_reward, self.timeouts, self._episode_count, self._seed = 220, 0, 0, None
                self._sc2_proc, self.placed, self.obs_enemies = None, 0, np.zeros((2, 3))
            def log(self, **said):
                with open(os.environ["STAND_IN_LOG"], "a") as file:
                    print(json.dumps(said), file=file)
            def get_env_info(self):
                return dict(n_agents=3, n_actions=8, obs_shape=4, state_shape=2, episode_limit=6)
            def reset(self, drawn={}):
                if self._episode_count == 0:
                    self.log(began=self._seed)
                self.placed += 1
                if self.placed == 2:  # the second time there is no room
                    raise CannotResetException
                self._steps, self.drawn = 0, drawn.get("x", 0.0)
                self.agents, self.enemies = {i: Unit(9) for i in range(3)}, {i: Unit(40) for i in range(2)}
                if self._episode_count == 0:
                    self.max_reward += 2 * 2 * 45  # as where it looks twice
            def full_restart(self):
                self.log(restarted=True)
            def step(self, actions):
                assert all(self.get_avail_actions()[i][a] for i, a in enumerate(actions))
                if actions[0] == 5 and not os.environ.get("STAND_IN_STANDS"):
                    self.full_restart()
                    return 0, True, {}
                self._steps += 1
                for i, a in enumerate(actions):
                    if a == 4:
                        self.agents[i].health = 0
                    if a == 7:
                        self.enemies[1].health = self.enemies[0].health = 0
                won = not any(one.health for one in self.enemies.values())
                over = won or not any(one.health for one in self.agents.values())
                late = not over and self._steps >= 6
                self.timeouts += late
                self._episode_count += over or late
                return (310 if won else 31) / (self.max_reward / 20), over or late, {"battle_won": won}
            def get_obs(self):
                return [np.full(4, 1.0 + i) for i in range(3)]
            def get_state(self):
                return np.array([self.drawn, self._steps])
            def get_avail_actions(self):
                return [[0, 1, 1, 1, 1, 1, 0, 1] if self.agents[i].health else [1] + [0] * 7 for i in range(3)]
            def get_unit_type_id(self, unit, ally):
                return 0
            def get_unit_by_id(self, i):
                return self.agents[i]
            def close(self):
                self.log(closed=True)
        """,
    "smacv2/env/starcraft2/wrapper.py": """
        import numpy as np
        from smacv2.env.starcraft2.starcraft2 import StarCraft2Env
        class Inner:
            def __init__(self):
                self.rng = np.random.default_rng()
            def generate(self):
                return self.rng.random()
        class Draws:
            def __init__(self):
                self.inner = Inner()
            def generate(self):
                return {"x": self.inner.generate()}
        class StarCraftCapabilityEnvWrapper:
            def __init__(self, **arguments):
                arguments["capability_config"]["team_gen"]["env_key"] = "team_gen"
                self.env_key_to_distribution_map = {"team_gen": Draws()}
                self.env = StarCraft2Env(**arguments)
            def reset(self):
                return None
        """,
}
EYE = np.eye(8, dtype=np.float32)


def log(whole):
    return [json.loads(line) for line in (whole / "log").read_text().splitlines()]


def acts(*chosen):
    return EYE[np.array([chosen])]


def test_records_and_ends_are_as_the_package_says(whole) -> None:
    with make_vec("smac:3m", 1, workers=0) as env:
        assert (env.agents, env.noop, env.state_size, env.outcomes, len(env.pids())) == (3, 0, 2, ("won",), 1)
        assert json.loads(json.dumps(env.protocol)) == env.protocol
        told = {
            name: env.protocol[name] for name in ("difficulty", "starcraft", "max_steps", "enemies", "deterministic")
        }
        assert told == {
            "difficulty": "7", "starcraft": "build 75689", "max_steps": 6, "enemies": 2, "deterministic": False
        }  # fmt: skip
        step = env.reset(seed=0)
        assert step["vector"][0, :, 0].tolist() == [1, 2, 3] and step["state"].tolist() == [[0, 0]]
        step = env.step(acts(4, 1, 1))  # agent 0 dies
        assert step["alive"][0].tolist() == [False, True, True] and not step["vector"][0, 0].any()
        assert step["action_mask"][0, 0].tolist() == [True] + [False] * 7 and step["action_mask"][0, 1, 1]
        assert step["reward"].tolist() == [[2, 2, 2]]  # 31 of 310: the enemies of the first episode count once
        step = env.step(acts(0, 7, 1))
        assert step["last"][0] and step["terminal"][0] and step["won"][0] and env.score(step) == 20
        step = env.step(acts(1, 1, 1))  # the second reset, where units have no room at first
        assert step["first"][0] and step["alive"].all()
        for _ in range(6):
            assert not step["last"][0]
            step = env.step(acts(1, 1, 1))
        assert step["last"][0] and not step["terminal"][0] and not step["won"][0]
        env.step(acts(1, 1, 1))
        step = env.step(acts(4, 4, 4))
        assert step["last"][0] and step["terminal"][0] and not step["won"][0] and not step["alive"].any()
        env.step(acts(1, 1, 1))
        with pytest.raises(
            ValueError, match="environment 0, agent 0: action 6 is masked out; it may choose 1, 2, 3, 4, 5, 7"
        ):
            env.step(acts(6, 1, 1))
        assert env.take_faults() == []
    assert "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION" not in os.environ


def test_a_lost_game_is_a_truncation_and_another_begins(whole) -> None:
    with make_vec("smac:3m", 1) as env:
        before = env.step(acts(1, 1, 1)) if env.reset(seed=0) else None
        step = env.step(acts(5, 1, 1))
        assert step["last"][0] and not step["terminal"][0] and not step["reward"].any()
        assert (step["vector"] == before["vector"]).all()
        told = env.take_faults()
        assert "StarCraft II is gone" in told[0] and "truncation" in told[1]
        assert env.step(acts(1, 1, 1))["first"][0] and env.failure == ""
    seen = log(whole)
    assert [list(one) for one in seen] == [["began"], ["closed"], ["began"], ["closed"]]  # and restarted by nobody
    assert seen[0]["began"] != seen[2]["began"]  # each instance has a seed of its own


def test_draws_follow_from_the_reset_seed(whole) -> None:
    with make_vec("smacv2:zerg_5_vs_5", 1) as one, make_vec("smacv2:zerg_5_vs_5", 1) as two:
        drawn = [float(one.reset(seed=seed)["state"][0, 0]) for seed in (3, 4, 3)]
        assert drawn[0] != drawn[1] and drawn[0] == drawn[2] == float(two.reset(seed=3)["state"][0, 0])
    assert sum("began" in entry for entry in log(whole)) == 2  # a reset within the first episode begins no other game


def test_a_resumed_run_cuts_the_battle(whole) -> None:
    with make_vec("smac:3m", 1) as env:
        env.reset(seed=0)
        step = env.step(acts(1, 1, 1))
        env.load_state(env.state())
        assert "could not be restored" in env.take_faults()[0]
        step = env.step(acts(1, 1, 1))
        assert step["last"][0] and not step["terminal"][0]
        assert env.step(acts(1, 1, 1))["first"][0]


def test_it_plays_in_no_process_that_began_otherwise(whole) -> None:
    env = make("smac:3m")
    assert env.observation_space["vector"].shape == (4,)
    with pytest.raises(TaskError, match=r"use make_vec\('smac:3m', 1\), or begin this process with PROTOCOL_BUFFERS"):
        env.reset()


def test_a_check_is_made_where_it_can_be(whole) -> None:
    """`python -m env_adapters check` goes on in a process that begins as the workers do."""
    path = os.pathsep.join(filter(None, sys.path))
    done = subprocess.run(
        [sys.executable, "-m", "env_adapters", "check", "smac:3m", "--steps", "20"],
        env=os.environ | {"PYTHONPATH": path, "STAND_IN_STANDS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0 and done.stdout.splitlines()[0] == "smac:3m", done.stdout + done.stderr
    assert "verdict: usable" in done.stdout and "does not repeat under a seed" in done.stdout
    with pytest.raises(
        TaskError, match="lives in processes that begin with PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION=python"
    ):
        check_env("smac:3m")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"difficulty": 11}, "SMAC has no difficulty '11'; it has 7, A"),
        ({"difficulty": 7.5}, "it is int or str"),
        ({"game_version": "4.11"}, r"there is no StarCraft II 4.11 in .*; there is 4.10.0: leave game_version out"),
        ({"repeat": 2}, "smac:3m has no option 'repeat'; it has difficulty, game_version"),
    ],
)
def test_options_that_do_not_fit_are_told(whole, options, told) -> None:
    with pytest.raises(TaskError, match=told):
        make_vec("smac:3m", 1, **options)


def test_code_that_does_not_load_is_told(whole) -> None:
    file = whole / "checkout" / "smacv2" / "env" / "starcraft2" / "starcraft2.py"
    file.write_text("import nowhere_to_be_found\n" + file.read_text())
    refused("SMACv2's code does not load from .*checkout: No module named 'nowhere_to_be_found'")
    file.write_text("import os\nos._exit(3)\n")
    os.utime(file, (time.time() + 5, time.time() + 5))
    with pytest.raises(TaskError, match=r"SMACv2's code does not run here \(exit code 3\)"):
        make_vec("smac:2s3z", 1)
