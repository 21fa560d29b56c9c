"""An app without an environment suite and without a world model: what loop and commands are tested with."""

from __future__ import annotations

import dataclasses
import math
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
import tyro  # noqa: F401 - which looks at `builtins` when it is imported, and a doctest leaves its last value there
from torch import nn
from wm_core import draws
from wm_core.actor_critic import ActorCritic
from wm_core.agent import Agent
from wm_core.clock import Clock
from wm_core.encoders import MultiDecoder, MultiEncoder
from wm_core.heads import Head, PolicyHead, reward_and_continue
from wm_core.kl import BalancedKL
from wm_core.observations import Observations
from wm_core.rssm import RSSM
from wm_core.twohot import TwoHot
from wm_core.world import WorldModel
from wm_run import checkpoint
from wm_run.app import App
from wm_run.cli import main
from wm_run.config import RunConfig
from wm_run.toml import to_toml


@dataclass(frozen=True)
class Spec:
    discrete: tuple[int, ...] = (3,)
    continuous: int = 0
    size: int = 3


class TaskError(ValueError):
    """By this name the app knows that the message is for the user."""


class FakeEnvs:
    """n counters; episodes end after 3 to 7 actions, by their own generator. `events` happen at a number of steps."""

    repeat = 4
    observation_space = SimpleNamespace(spaces={"image": SimpleNamespace(dtype=np.dtype(np.uint8), shape=(16, 16, 3))})
    action_space = "three doors"
    action_spec = Spec()
    protocol: ClassVar[dict[str, Any]] = {"name": "fake", "sizes": (1, 2)}
    events: ClassVar[dict[int, Callable[[], None]]] = {}
    failure = ""

    def __init__(self, n: int) -> None:
        self.num_envs, self.calls, self.faults = n, 0, []
        self.cut = np.zeros(n, bool)
        self.out: np.ndarray | None = None

    def reset(self, seed: int) -> dict[str, np.ndarray]:
        n = self.num_envs
        self.rng = np.random.default_rng(seed)
        self.left = self.rng.integers(3, 8, n)
        self.over = np.zeros(n, bool)
        self.at = np.zeros(n, np.int64)
        return self._record(np.zeros((n, 3), np.float32), np.zeros(n), np.ones(n, bool))

    def step(self, action: np.ndarray) -> dict[str, np.ndarray]:
        self.calls += 1
        self.events.get(self.calls, lambda: None)()
        first = self.over
        self.at = np.where(first, 0, self.at + 1)
        self.left = np.where(first, self.rng.integers(3, 8, self.num_envs), self.left - 1)
        reward = np.where(first, 0, action.argmax(-1) + self.rng.random(self.num_envs))
        return self._record(action * ~first[:, None], reward, first)

    def send(self, action: np.ndarray) -> None:
        assert self.out is None
        self.out = action.copy()

    def receive(self) -> dict[str, np.ndarray]:
        action, self.out = self.out, None
        assert action is not None
        return self.step(action)

    def _record(self, action: np.ndarray, reward: np.ndarray, first: np.ndarray) -> dict[str, np.ndarray]:
        self.over = self.left <= 0
        image = np.zeros((self.num_envs, 16, 16, 3), np.uint8) + self.at[:, None, None, None].astype(np.uint8)
        self.last = {
            "action": action.astype(np.float32),
            "reward": reward.astype(np.float32),
            "first": first,
            "last": self.over,
            "terminal": self.over & (self.at % 2 == 0),
            "image": image,
        }
        return self.last

    def state(self) -> dict[str, Any]:
        assert self.out is None
        rng = self.rng.bit_generator.state["state"]
        words = [str(rng["state"]), str(rng["inc"])]
        return {"left": self.left, "over": self.over, "at": self.at, "rng": words}

    def load_state(self, state: dict[str, Any]) -> None:
        self.left, self.over, self.at = state["left"], state["over"], state["at"]
        self.rng = np.random.default_rng(0)
        whole = self.rng.bit_generator.state
        whole["state"] = {"state": int(state["rng"][0]), "inc": int(state["rng"][1])}
        self.rng.bit_generator.state = whole

    def take_faults(self) -> list[str]:
        taken, self.faults = self.faults, []
        return taken

    def close(self) -> None:
        pass


class FakeAgent(nn.Module):
    """Two numbers that every sample, draw, dropout and carry leaves a mark on, so that nothing can be lost unseen."""

    def __init__(self, config: FakeConfig) -> None:
        super().__init__()
        self.device = torch.device(config.device)
        self.weight = nn.Parameter(torch.linspace(0, 1, config.width))
        self.stores = {"deter": 1}
        self.world = SimpleNamespace(
            dynamics=SimpleNamespace(stores=self.stores, initial=self.initial, left=lambda carry: math.inf)
        )
        self.source, self.clock, self.online, self.aligned = draws.Generator(config.seed), Clock(), True, False
        self.batch, self.length = config.batch, config.length
        self.moment = torch.zeros(())

    def initial(self, n: int) -> dict[str, torch.Tensor]:
        return {"sum": torch.zeros(n, 2)}

    def act(
        self, carry: Any, step: Any, mode: bool = False, temperature: float = 1.0
    ) -> tuple[Any, np.ndarray, dict[str, torch.Tensor]]:
        self.eval()
        n = len(step["first"])
        with draws.drawing(self.source):
            noise = draws.normal((n, 3)) * (not mode)
        total = carry["sum"] * 0.9 + torch.as_tensor(step["image"]).float().mean((1, 2, 3))[:, None]
        logits = noise + total[:, :1] + self.weight[0] + torch.as_tensor(step["action"])
        action = nn.functional.one_hot(logits.argmax(-1), 3).float()
        return {"sum": total.detach()}, action.numpy(), {"deter": total.detach().half()}

    def learn(self, replay: Any) -> dict[str, torch.Tensor]:
        self.train()
        batch = replay.sample(self.batch, self.length, past=1)
        with draws.drawing(self.source):
            noise = draws.uniform((1,)) + torch.rand(1)
        target = batch.steps["reward"].mean() + batch.past.stored["deter"].float().mean() + noise
        loss = (self.weight - target).square().mean()
        (gradient,) = torch.autograd.grad(loss, self.weight)
        with torch.no_grad():
            self.moment = 0.9 * self.moment + gradient.mean()
            self.weight -= 0.01 * self.moment
        replay.annotate(batch.index, deter=(batch.steps["deter"].float() + 0.5).half())
        self.clock.count_update()
        return {"loss/reward": loss.detach(), "opt/moment": self.moment}

    def state(self) -> dict[str, Any]:
        return {"source": self.source.state_dict(), "clock": self.clock.state_dict(), "moment": self.moment}

    def load_state(self, state: dict[str, Any]) -> None:
        self.source.load_state_dict(state["source"])
        self.clock.load_state_dict(state["clock"])
        self.moment = state["moment"]

    def capture(self, how: str, say: Callable[[str], None]) -> None:
        assert how == "eager"

    def parameters_by_module(self) -> dict[str, int]:
        return {"encoder": self.weight.numel(), "total": self.weight.numel()}


@dataclass(frozen=True)
class FakeConfig(RunConfig):
    """Numbers of the fake method."""

    width: int = 2
    """Of the only layer."""
    branches: tuple[int, ...] = (1, 2)
    """A list."""
    lr: float = 1e-3
    """Not used."""


def environments(config: FakeConfig, n: int) -> FakeEnvs:
    if config.task not in ("fake", "blind"):
        raise TaskError(f"there is no task {config.task!r}\nat all")
    envs = FakeEnvs(n)
    if config.task == "blind":
        vector = SimpleNamespace(dtype=np.dtype(np.float32), shape=(2,))
        envs.observation_space = SimpleNamespace(spaces={"vector": vector})  # type: ignore[misc]
    return envs


def build(config: FakeConfig, observation_space: Any, action_spec: Any) -> FakeAgent:
    return FakeAgent(config)


TINY = """
task = "fake"
steps = 240
envs = 2
batch = 2
length = 4
train_ratio = 2.5
learning_starts = 12
log_every = 40
save_every = 100
chunk = 32
replay_bytes = 10_000_000
eval_episodes = 3
tensorboard = false
"""


@dataclass
class Fakes:
    """The app, and what tests reach into."""

    app: App
    envs: type[FakeEnvs] = FakeEnvs
    agent: type[FakeAgent] = FakeAgent
    config: type[FakeConfig] = FakeConfig
    refusal: type[TaskError] = TaskError
    signals: dict[str, Callable[[], None]] = field(default_factory=dict)

    def refused(self, capsys: pytest.CaptureFixture[str], line: str, code: int = 2) -> str:
        """The one sentence with which a command is refused."""
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main(self.app, line.split())
        said = [one for one in capsys.readouterr().err.splitlines() if one.startswith(f"{self.app.name}: ")]
        assert stop.value.code == code and len(said) == 1 and len(said[0]) < 700
        return said[0]


@pytest.fixture(autouse=True)
def heard() -> Iterator[None]:
    """Whoever started the tests may ignore SIGHUP (`nohup`), and a run then would, too."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture
def fakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fakes:
    folder = tmp_path / "app"
    for path, text in {
        "presets/tiny.toml": TINY,
        "presets/cpu.toml": TINY + "width = 3\n",
        "presets/atari100k.toml": TINY + 'size = "small"\nlr = 0.5\n',
        "presets/odd.toml": "bacth = 3\n",
        "presets/wrong.toml": 'batch = "many"\n',
        "ablations/narrow.toml": "width = 1\nlr = 1\n",
    }.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    sizes = {"small": {"width": 4, "lr": 0.25}, "large": {"width": 8}}
    monkeypatch.setattr(FakeEnvs, "events", {})
    monkeypatch.chdir(tmp_path)
    app = App("fakeapp", "fake", "1.2.3", FakeConfig, folder, sizes, build, environments)

    def send(number: int) -> Callable[[], None]:
        return lambda: os.kill(os.getpid(), number)

    names = ("term", "int", "hup", "usr1", "usr2")
    numbers = {name: signal.Signals[f"SIG{name.upper()}"] for name in names}
    return Fakes(app, signals={name: send(number) for name, number in numbers.items()})


class Acting(Agent):
    """It acts, and nothing here learns."""

    def learn(self, replay: Any) -> Any:
        raise AssertionError("nothing learns here")

    def update(self, *batches: Any) -> Any:
        raise AssertionError("nothing learns here")


def acting(config: Any, space: Any, spec: Any) -> Agent:
    """A tiny agent with random weights and a world model."""
    seen = Observations(images={"image": (16, 16, 3)})
    encoder = MultiEncoder(seen, units=8, depth=2)
    dynamics = RSSM(deter=16, stoch=(4, 3), embed=encoder.width, action=3, hidden=8, blocks=2)
    widths = dynamics.widths
    world = WorldModel(
        encoder=encoder,
        dynamics=dynamics,
        decoder=MultiDecoder(seen, widths=widths, units=8, depth=2, blocks=2),
        heads=reward_and_continue(widths, units=8),
        kl=BalancedKL(),
        discount=0.9,
    )
    critic = Head(TwoHot, 255, widths=widths, units=8, layers=1, outscale=1.0)
    policy = PolicyHead(discrete=(3,), continuous=0, widths=widths, units=8, layers=1, outscale=1.0)
    return Acting(world=world, behaviour=ActorCritic(policy=policy, critic=critic), optimiser=None)


@pytest.fixture
def agent() -> Agent:
    torch.manual_seed(0)
    return acting(None, None, None)


@pytest.fixture
def run(fakes: Fakes) -> Path:
    """A run folder of such an agent at step 7; `fakes.app` builds it."""
    fakes.app = dataclasses.replace(fakes.app, build=acting)
    torch.manual_seed(0)
    weights = acting(None, None, None).state_dict()
    checkpoint.save(Path("D"), 7, weights=weights, state={}, meta={"app": "fakeapp", "version": "1.2.3"})
    origin = {"app": "fakeapp", "version": "1.2.3", "preset": "tiny", "size": "", "ablation": ""}
    (Path("D") / "config.toml").write_text(to_toml({"task": "fake", "device": "cpu", "run": origin}))
    return Path("D")


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """No films, which take seconds."""
    monkeypatch.setattr("wm_run.dreams.videos", lambda session, step: [])
