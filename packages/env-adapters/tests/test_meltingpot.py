"""Melting Pot's adapter around a stand-in for the package: the worker's own script in a Python of its own, as in earnest.

With the package itself: nox's session `integration`.
"""

import itertools
import math
import os
import random
import re
import signal
import subprocess
import sys
import textwrap
import time
import venv
from pathlib import Path

import numpy as np
import pytest
from env_adapters import TaskError, check_env, make, make_vec, meltingpot, meltingpot_home, tasks
from env_adapters.__main__ import main
from env_adapters.meltingpot_worker import means, roles_of
from env_adapters.seeds import episode_seed

NOTHING, DIES, HANGS, RAISES = 0, 7, 6, 5
# Its pictures are noise that follows from (what `random` gave at the build, time, player), so that each can be told.
STAND_IN = """
    import os, random, time, types
    import numpy as np

    SUBSTRATES = frozenset({"coop_mining", "daycare", "coins", "commons_harvest__open"})

    def get_config(name):
        roles = ("child", "parent") if name == "daycare" else ("default",) * 6
        return types.SimpleNamespace(
            default_player_roles=roles, valid_roles={*roles, "target"}, action_spec=types.SimpleNamespace(num_values=8),
            timestep_spec=types.SimpleNamespace(observation={"RGB": np.zeros((40 if name == "coins" else 88,) * 2 + (3,))}))

    class Substrate:
        def __init__(self, name, roles):
            if name == "coins" and len(roles) > 2:
                raise AssertionError("Wrong number of players")
            self.seed, self.side, self.roles = random.randint(1, 2**32 - 1), 40 if name == "coins" else 88, roles
            self.ends = {"daycare": 3, "coins": 302}.get(name, 1004)

        def shown(self, rewards):
            def one(player):
                noise = np.random.default_rng([self.seed, self.time, player])
                return {"RGB": noise.integers(0, 256, (self.side, self.side, 3), dtype=np.uint8),
                        "WORLD.RGB": np.zeros((216, 216, 3), np.uint8), "COLLECTIVE_REWARD": np.array(sum(rewards))}
            return types.SimpleNamespace(observation=[one(i) for i in range(len(self.roles))],
                reward=[np.array(float(one)) for one in rewards], last=lambda: self.time == self.ends)

        def reset(self):
            self.time = 0
            return self.shown([0] * len(self.roles))

        def step(self, actions):
            if set(actions) == {7}:
                print("the engine is on fire", flush=True)
                os._exit(7)
            if set(actions) == {6}:
                time.sleep(600)
            if set(actions) == {5}:
                raise ArithmeticError("the sum is wrong")
            self.time += 1
            return self.shown([10 * player + action for player, action in enumerate(actions)])

        def close(self):
            pass

    def build(name, *, roles):
        return Substrate(name, roles)
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python of its own in which a package of this name is installed."""
    home = tmp_path_factory.mktemp("pot")
    venv.create(home, with_pip=False, symlinks=True)
    site = next(home.glob("lib/python*/site-packages"))
    (site / "numpy.pth").write_text(str(Path(np.__file__).parents[1]))
    (site / "meltingpot").mkdir()
    (site / "meltingpot" / "__init__.py").write_text("import tensorflow\nanything: tensorflow.Tensor\n")
    (site / "meltingpot" / "substrate.py").write_text(textwrap.dedent(STAND_IN))
    for name in ("dm_meltingpot", "dmlab2d"):
        (site / f"{name}-9.9.dist-info").mkdir()
        (site / f"{name}-9.9.dist-info" / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 9.9\n")
    return home / "bin" / "python"


@pytest.fixture
def stand_in(python: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(meltingpot_home.NAMED, str(python))
    return python


def act(*chosen: int) -> np.ndarray:
    """(1, N, 8)"""
    return np.eye(8, dtype=np.float32)[list(chosen)][None]


def brute(seed: int, at: int, player: int, side: int = 88, *, half: bool = True) -> np.ndarray:
    """What the stand-in shows after a reset with this seed, in loops."""
    drawn = random.Random(seed).randint(1, 2**32 - 1)
    whole = np.random.default_rng([drawn, at, player]).integers(0, 256, (side, side, 3), dtype=np.uint8)
    if not half:
        return whole
    small = np.zeros((side // 2, side // 2, 3), np.uint8)
    for row, column, channel in np.ndindex(*small.shape):
        four = [int(whole[2 * row + i, 2 * column + j, channel]) for i in range(2) for j in range(2)]
        small[row, column, channel] = math.floor(sum(four) / 4 + 0.5)
    return small


def test_means_are_exact_and_round_halves_up() -> None:
    for total in range(4 * 255 + 1):
        four = [min(255, max(0, total - 255 * i)) for i in range(4)]
        for one in itertools.islice(itertools.permutations(four), 3):
            picture = np.array(one, np.uint8).reshape(1, 2, 2, 1)
            assert means(picture).tolist() == [[[[math.floor(total / 4 + 0.5)]]]]


def test_records_hold_every_players_picture_and_reward(stand_in: Path) -> None:
    with make_vec("meltingpot:coop_mining", 2, workers=0) as env:
        assert (env.agents, env.noop, env.state_size, env.signals, env.outcomes) == (4, 0, None, (), ())
        assert (
            env.observation_space["image"].shape == (44, 44, 3) and env.action_spec.discrete == (8,) and not env.views
        )
        record = env.reset(seed=3)
        assert set(record) == {"action", "reward", "first", "last", "terminal", "action_mask", "alive", "image"}
        assert record["image"].shape == (2, 4, 44, 44, 3) and record["image"].dtype == np.uint8
        assert record["action_mask"].all() and record["alive"].all() and record["action_mask"].shape == (2, 4, 8)
        for at in range(3):
            for row, player in ((0, 0), (0, 3), (1, 2)):
                assert np.array_equal(record["image"][row, player], brute(episode_seed(3, row, 0), at, player))
            record = env.step(np.repeat(act(0, 1, 2, 3), 2, 0))
            assert record["reward"].tolist() == [[0, 11, 22, 33]] * 2 and not record["last"].any()
            assert env.score(record).tolist() == [16.5, 16.5]


@pytest.mark.parametrize(
    ("share", "reward", "score"), [("none", [1, 12], 6.5), ("mean", [6.5] * 2, 6.5), ("sum", [13] * 2, 13)]
)
def test_rewards_are_each_players_own_or_shared(stand_in: Path, share: str, reward: list[float], score: float) -> None:
    with make_vec("meltingpot:coop_mining", 1, players=2, share_reward=share, max_steps=3) as env:
        env.reset(seed=0)
        record = env.step(act(1, 2))
        assert record["reward"].tolist() == [reward] and env.score(record).tolist() == [score]
        assert env.protocol["share_reward"] == share and env.protocol["agents"] == 2


@pytest.mark.parametrize(
    ("task", "options", "length", "terminal"),
    [
        ("coop_mining", {"max_steps": 3}, 3, False),  # our limit
        ("coop_mining", {"max_steps": 5000}, 1004, False),  # the substrate's, drawn by chance
        ("coins", {"players": 2, "max_steps": 5000}, 302, False),  # by chance, earlier
        ("daycare", {"players": 2}, 3, True),  # the game's own end
        ("daycare", {"players": 2, "max_steps": 2}, 2, False),
    ],
)
def test_time_that_is_up_is_a_truncation(stand_in: Path, task: str, options: dict, length: int, terminal: bool) -> None:
    with make_vec(f"meltingpot:{task}", 1, **options) as env:
        record = env.reset(seed=0)
        action, steps = np.zeros_like(record["action"]), 0
        action[..., NOTHING] = 1
        while not record["last"][0]:
            record, steps = env.step(action), steps + 1
        assert steps == length and record["terminal"].tolist() == [terminal]
        assert env.step(action)["first"].all()


def test_the_protocol_says_what_a_score_means(stand_in: Path) -> None:
    with make_vec("meltingpot:coop_mining", 1) as env:
        said = env.protocol
    assert said["name"] == "Melting Pot coop_mining" and said["max_steps"] == 1000 and said["deterministic"] is False
    assert said["roles"] == ["default"] * 4 and said["package"] == "dm-meltingpot 9.9, dmlab2d 9.9"
    assert said["size"] == 44 and "halves up" in said["image"] and "mean over the players" in said["score"]
    with make_vec("meltingpot:coop_mining", 1, size=88, players=None) as env:
        assert env.observation_space["image"].shape == (88, 88, 3) and env.agents == 6
        image = env.reset(seed=5)["image"]
        assert np.array_equal(image[0, 4], brute(episode_seed(5, 0, 0), 0, 4, half=False))
        assert env.protocol["image"] == "every pixel"
    with make_vec("meltingpot:coins", 1, players=2) as env:
        assert env.reset(seed=1)["image"].shape == (1, 2, 20, 20, 3)


def test_roles_are_the_substrates_own_or_default() -> None:
    def config(own: list[str], *more: str) -> object:
        return type("Config", (), {"default_player_roles": tuple(own), "valid_roles": {*own, *more}})

    prey = ["predator", "prey", "prey"]
    assert roles_of(config(prey), None) == prey and roles_of(config(prey), 3) == prey
    assert roles_of(config(prey), 4) == [*prey, "predator"]
    assert roles_of(config(["red", "green"], "default"), 4) == ["default"] * 4
    assert roles_of(config(["red", "green"], "default"), 2) == ["red", "green"]


def assert_cut(record: dict, before: dict) -> None:
    """The only environment's episode ends as a truncation with its last record."""
    assert record["last"].all() and not record["terminal"].any() and not record["reward"].any()
    assert np.array_equal(record["image"], before["image"])


def test_a_killed_worker_is_replaced_and_the_run_goes_on(stand_in: Path) -> None:
    with make_vec("meltingpot:coop_mining", 1) as env:
        env.reset(seed=0)
        before, (pid,) = env.step(act(0, 0, 0, 0)), env.get("pid")
        os.kill(pid, signal.SIGKILL)
        assert_cut(env.step(act(0, 0, 0, 0)), before)
        faults = env.take_faults()
        assert "the worker of meltingpot:coop_mining died (exit code -9)" in faults[0] and "is made anew" in faults[0]
        assert faults[1:] == ["the episode of environment 0 was cut short as a truncation"] and not env.failure
        assert env.step(act(0, 0, 0, 0))["first"].all() and env.get("pid") != [pid]
        assert env.step(act(1, 1, 1, 1))["reward"].tolist() == [[1, 11, 21, 31]]


@pytest.mark.parametrize(
    ("action", "told"),
    [(DIES, r"died \(exit code 7\): the engine is on fire"), (RAISES, "raised ArithmeticError: the sum is wrong")],
)
def test_what_a_worker_says_last_is_told(stand_in: Path, action: int, told: str) -> None:
    with make_vec("meltingpot:coop_mining", 1) as env:
        before = env.reset(seed=0)
        assert_cut(env.step(act(*[action] * 4)), before)
        assert re.search(told, env.take_faults()[0])
        assert env.step(act(0, 0, 0, 0))["first"].all()


def test_a_hung_worker_is_replaced(stand_in: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with make_vec("meltingpot:coop_mining", 1) as env:
        before, (pid,) = env.reset(seed=0), env.get("pid")
        monkeypatch.setattr(meltingpot, "_PATIENCE", 0.2)
        record = env.step(act(*[HANGS] * 4))
        monkeypatch.undo()
        monkeypatch.setenv(meltingpot_home.NAMED, str(stand_in))
        assert_cut(record, before)
        assert "gave no answer within 0.2 s" in env.take_faults()[0]
        assert env.step(act(0, 0, 0, 0))["first"].all()
        assert gone(pid)


def test_workers_side_by_side_and_one_of_them_lost(stand_in: Path) -> None:
    with make_vec("meltingpot:coop_mining", 3, workers=2) as env:
        record, pids = env.reset(seed=3), env.get("pid")
        assert len({*pids, *env.pids()}) == 5
        for row in range(3):
            assert np.array_equal(record["image"][row, 1], brute(episode_seed(3, row, 0), 0, 1))
        os.kill(pids[2], signal.SIGKILL)
        after = env.step(np.repeat(act(0, 1, 2, 3), 3, 0))
        assert after["last"].tolist() == [False, False, True] and after["reward"].sum(1).tolist() == [66, 66, 0]
        assert env.step(np.repeat(act(0, 1, 2, 3), 3, 0))["first"].tolist() == [False, False, True]
    assert all(map(gone, pids))


def gone(pid: int, seconds: float = 60.0) -> bool:
    """Whether a process ends."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.05)
    return False


def test_a_hung_worker_does_not_outlive_its_parent(stand_in: Path) -> None:
    hangs = (
        HANGS if sys.platform == "linux" else NOTHING
    )  # other systems do not tell a process that its parent has died
    code = f"""
        import os, threading, time
        from env_adapters.meltingpot import MeltingPot
        env = MeltingPot("coop_mining")
        env.reset(seed=0)
        threading.Thread(target=env.step, args=([{hangs}] * 4,), daemon=True).start()
        time.sleep(0.5)
        print(env.pid, flush=True)
        os._exit(0)
    """
    told = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True, check=True)
    assert gone(int(told.stdout))


def test_a_resume_cuts_the_episode_short(stand_in: Path) -> None:
    with make_vec("meltingpot:coop_mining", 1) as env:
        env.reset(seed=0)
        before = env.step(act(1, 1, 1, 1))
        state = env.state()
    with make_vec("meltingpot:coop_mining", 1) as env:
        env.load_state(state)
        (told,) = env.take_faults()
        assert (
            told
            == "environment 0 could not be restored: Melting Pot does not repeat under a seed; its episode is cut short"
        )
        assert_cut(env.step(act(0, 0, 0, 0)), before)
        record = env.step(act(0, 0, 0, 0))
        assert record["first"].all()
        assert np.array_equal(record["image"][0, 0], brute(episode_seed(0, 0, 1), 0, 0))  # the run's next episode


def test_it_keeps_the_specification_as_far_as_it_says(stand_in: Path) -> None:
    remarks = check_env("meltingpot:coop_mining", steps=20, max_steps=6)
    assert len(remarks) == 2 and "does not repeat under a seed" in remarks[0] and "cannot be restored" in remarks[1]


@pytest.mark.parametrize(
    ("task", "options", "told"),
    [
        ("coop_minning", {}, "has no substrate 'coop_minning'; close: coop_mining"),
        ("clean_up", {}, "Melting Pot 9.9 has no substrate 'clean_up'"),
        ("coop_mining", {"size": 64}, "size is 64; coop_mining is seen in 88x88, or half of that: 44"),
        ("coop_mining", {"players": 0}, "players and max_steps are at least 1; got 0 and 1000"),
        ("coop_mining", {"share_reward": "all"}, "share_reward is 'all'"),
        ("coop_mining", {"team": 1}, "has no option 'team'"),
    ],
)
def test_mistakes_are_one_sentence(stand_in: Path, task: str, options: dict, told: str) -> None:
    with pytest.raises(TaskError, match=told) as caught:
        make(f"meltingpot:{task}", **options)
    assert "\n" not in str(caught.value)


def test_more_players_than_a_substrate_has_room_for(stand_in: Path) -> None:
    with (
        make_vec("meltingpot:coins", 1) as env,
        pytest.raises(TaskError, match="cannot be played by 4: AssertionError: Wrong"),
    ):
        env.reset(seed=0)


def test_substrates_are_listed() -> None:
    assert {"meltingpot:coop_mining", "meltingpot:commons_harvest__open"} <= set(tasks())


# ---- the Python that it runs in


@pytest.fixture
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and a uv that writes down how it was called."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv(meltingpot_home.NAMED, raising=False)
    uv = tmp_path / "uv"
    uv.write_text(f"""#!/bin/sh
        echo "$@" >> {tmp_path}/calls
        for last; do :; done
        case "$1" in
        venv)
            [ -e {tmp_path}/no-python ] && {{ echo "  × No interpreter found for Python 3.11" >&2; exit 2; }}
            mkdir -p "$last/bin"
            printf '#!/bin/sh\\necho dm-meltingpot 9.9 with 2 substrates\\n' > "$last/bin/python"
            chmod +x "$last/bin/python" ;;
        pip)
            [ -n "$TMPDIR" ] && ls "$TMPDIR" >> {tmp_path}/archives
            for one; do case "$one" in */pins.txt) cat "$one" >> {tmp_path}/pins ;; esac; done
            [ -e {tmp_path}/no-network ] && {{ printf 'error: dmlab2d\\n  not found\\n' >&2; exit 1; }} ;;
        esac
        exit 0
    """)
    uv.chmod(0o755)
    monkeypatch.setenv("UV", str(uv))
    return tmp_path


def test_without_it_a_sentence_says_how_to_make_it(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for behind_uv, started in ((False, "python"), (True, "uv run")):
        monkeypatch.delenv("UV_RUN_RECURSION_DEPTH", raising=False)
        if behind_uv:
            monkeypatch.setenv("UV_RUN_RECURSION_DEPTH", "1")
        with pytest.raises(TaskError, match=f"`{started} -m env_adapters meltingpot` makes it"):
            make("meltingpot:coop_mining")
    monkeypatch.setenv(meltingpot_home.NAMED, str(fresh / "nowhere"))
    with pytest.raises(TaskError, match=f"{meltingpot_home.NAMED} names .*nowhere, which is no program"):
        make("meltingpot:coop_mining")


def test_it_is_made_once_and_again_when_it_is_to_hold_something_else(
    fresh: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["meltingpot"]) == 0
    assert "dm-meltingpot==2.4.1" in (said := capsys.readouterr().out) and "done: dm-meltingpot 9.9" in said
    calls = (fresh / "calls").read_text().splitlines()
    assert [one.split()[0] for one in calls] == ["venv", "pip", "pip"] and "--python 3.11" in calls[0]
    assert all("--no-deps" in one for one in calls[1:]) and "--no-cache" in calls[2] and "dm-meltingpot" in calls[2]
    pins = (fresh / "pins").read_text().split()
    assert all("==" in one for one in pins) and not any("tensorflow" in one or "pygame" in one for one in pins)
    assert "meltingpot-assets-2.3.0.tar.gz" in (fresh / "archives").read_text()  # in place of a download
    assert meltingpot_home.python() == fresh / "cache" / "env-adapters" / "meltingpot" / "bin" / "python"
    assert main(["meltingpot"]) == 0 and "is there already" in capsys.readouterr().out
    assert len((fresh / "calls").read_text().splitlines()) == 3
    monkeypatch.setattr(meltingpot_home, "NEEDED", (*meltingpot_home.NEEDED[1:], "numpy==2.5.0"))
    assert main(["meltingpot"]) == 0 and len((fresh / "calls").read_text().splitlines()) == 6


@pytest.mark.parametrize(
    ("lacks", "told"),
    [
        ("no-python", "uv found no Python 3.11 and could fetch none: No interpreter found for Python 3.11"),
        ("no-network", "what Melting Pot needs could not be installed: error: dmlab2d not found"),
    ],
)
def test_what_is_missing_is_said_and_nothing_half_made_is_used(
    fresh: Path, capsys: pytest.CaptureFixture[str], lacks: str, told: str
) -> None:
    (fresh / lacks).touch()
    assert main(["meltingpot"]) == 2 and capsys.readouterr().err == f"error: {told}\n"
    with pytest.raises(TaskError, match="is not there yet"):
        meltingpot_home.python()
    (fresh / lacks).unlink()
    assert main(["meltingpot"]) == 0 and meltingpot_home.python()


def test_without_uv_a_sentence_says_so(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UV")
    monkeypatch.setenv("PATH", str(fresh / "empty"))
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(TaskError, match="made by uv, which is not installed"):
        meltingpot_home.make()
    monkeypatch.setenv("UV", str(fresh / "empty"))
    with pytest.raises(TaskError, match=r"uv found no Python 3\.11 and could fetch none: .*No such file"):
        meltingpot_home.make()


def test_the_worker_needs_numpy_and_nothing_of_ours(stand_in: Path) -> None:
    told = subprocess.run(
        [str(stand_in), "-I", str(meltingpot_home.WORKER)], capture_output=True, text=True, check=True
    ).stdout
    assert told.startswith("dm-meltingpot 9.9 with 4 substrates, Python 3")
    source = meltingpot_home.WORKER.read_text()
    assert "import env_adapters" not in source and "from env_adapters" not in source
