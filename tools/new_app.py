"""A new app that trains: a world model of parts from wm-core, DreamerV3's update, and the law of an app as its test.

new_app.py NAME                 apps/NAME, and its place in the root's lists; then `uv sync` and `uv run apps/NAME train`
new_app.py NAME --root FOLDER   the same in another checkout

Its dynamics is the plainest there is, in parts.py: put yours there. Nothing is written over.
"""

from __future__ import annotations

import argparse
import importlib.util
import keyword
import re
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

FILES = {
    "pyproject.toml": """[project]
name = "wm-app-@SCRIPT@"
version = "0.1.0"
description = "@NAME@: say in a line what it is"
readme = "README.md"
requires-python = ">=3.11,<3.14"
license = "MIT"
license-files = ["LICENSE"]
classifiers = ["Private :: Do Not Upload"]
dependencies = [
  "wm-core>=0.1,<0.2",
  "wm-run>=0.1,<0.2",
  "env-adapters[atari]>=0.1,<0.2",
]

[project.scripts]
@SCRIPT@ = "@NAME@.cli:main"

[build-system]
requires = ["uv_build>=0.13,<0.14"]
build-backend = "uv_build"

[tool.uv.build-backend]
module-name = "@NAME@"

[tool.uv.sources]
wm-core = { workspace = true }
wm-run = { workspace = true }
env-adapters = { workspace = true }
""",
    "README.md": """# @NAME@

Say here what it is, from which paper, and every departure from it.

```bash
uv run apps/@NAME@ train --preset tiny
```
""",
    "CHANGELOG.md": "# Changelog of @NAME@\n\n<!-- towncrier release notes start -->\n",
    "__main__.py": '''"""`uv run apps/@NAME@ ...`."""

from @NAME@.cli import main

if __name__ == "__main__":
    main()
''',
    "src/@NAME@/py.typed": "",
    "src/@NAME@/__init__.py": '''"""@NAME@: say in a line what it is.

`train(env=MyEnv, steps=10_000)` trains, `load(logdir).policy(observation)` acts with a trained agent.
"""

from @NAME@.cli import load, train

__all__ = ["load", "train"]
''',
    "src/@NAME@/__main__.py": '''"""`python -m @NAME@ ...`."""

from @NAME@.cli import main

if __name__ == "__main__":
    main()
''',
    "src/@NAME@/cli.py": '''"""@NAME@: the command line, and the app as data."""

from wm_run.app import App

from @NAME@.config import Config

APP = App.of("@NAME@", Config)
main, load, train = APP.main, APP.load, APP.train
''',
    "src/@NAME@/config.py": '''"""Every number of @NAME@; presets and the command line fill them. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from wm_run.bounds import Count
from wm_run.config import RunConfig


@dataclass(frozen=True)
class Config(RunConfig):
    """Every number of @NAME@."""

    deter: Count = 256
    """Width of the deterministic state."""
    hidden: Count = 128
    """Width of the dynamics' hidden layers."""
    stoch: Count = 16
    """Number of stochastic latents."""
    classes: Count = 16
    """Classes of each."""
    depth: Count = 8
    """Channel unit of the convolutions."""
    units: Count = 128
    """Width of encoder, decoder and head layers."""
    horizon: Count = 15
    """Steps of imagination."""
    lr: float = 1e-3
    """Learning rate."""
''',
    "src/@NAME@/parts.py": '''"""The dynamics: the place for an idea of your own. `wm_core.testing.check_dynamics` holds it to the laws."""

from __future__ import annotations

from wm_core import Dynamics, Parallel
from wm_core.parallel import GRUBackbone

from @NAME@.config import Config


def make_dynamics(config: Config, embed: int, action: int) -> Dynamics:
    """z ~ q(e), a GRU over (z, a), p(z | h)."""
    return Parallel(
        GRUBackbone(config.deter),
        deter=config.deter,
        stoch=(config.stoch, config.classes),
        embed=embed,
        action=action,
        hidden=config.hidden,
    )
''',
    "src/@NAME@/agent.py": '''"""@NAME@: build and learn."""

from __future__ import annotations

from typing import Any

import torch
from wm_core import (
    ActorCritic,
    Agent,
    Experience,
    Metrics,
    Update,
    WorldModel,
    joint_update,
    loss_scales,
    world_update,
)
from wm_core.encoders import MultiDecoder, MultiEncoder
from wm_core.heads import reward_and_continue
from wm_core.kl import BalancedKL
from wm_core.observations import describe
from wm_core.optim import AdaptiveClip, LaProp
from wm_core.types import Batch

from @NAME@.config import Config
from @NAME@.parts import make_dynamics


class Learning(Agent):
    """What is done with a batch."""

    behaviour: ActorCritic

    def __init__(
        self, *, batch: int, length: int, past: int, horizon: int, scales: dict[str, float], **parts: Any
    ) -> None:
        super().__init__(**parts)
        self.batch, self.length, self.past = batch, length, past
        self.horizon, self.scales = horizon, scales

    def learn(self, replay: Experience) -> Metrics:
        batch = self.to_device(replay.sample(self.batch, self.length, past=self.past))
        metrics, notes = self.updated(batch)
        replay.annotate(batch.index, **notes)
        return metrics

    def update(self, *batches: Batch) -> Update:
        return joint_update(self, self.behaviour, *batches, scales=self.scales, horizon=self.horizon)

    def update_world(self, *batches: Batch) -> Update:
        return world_update(self, *batches, scales=self.scales)


def build(config: Config, observation_space: Any, action_spec: Any) -> Learning:
    """The agent of a config for one environment's spaces; UserError for a space that the encoder cannot read."""
    torch.manual_seed(config.seed)
    seen = describe(observation_space)
    with torch.device(config.device):
        encoder = MultiEncoder(seen, units=config.units, depth=config.depth)
        dynamics = make_dynamics(config, encoder.width, action_spec.size)
        widths = dynamics.widths
        world = WorldModel(
            encoder=encoder,
            dynamics=dynamics,
            decoder=MultiDecoder(seen, widths=widths, units=config.units, depth=config.depth, blocks=1),
            heads=reward_and_continue(widths, units=config.units),
            kl=BalancedKL(1.0),
        )
        behaviour = ActorCritic.of(
            action_spec.discrete, action_spec.continuous, widths=widths, units=config.units, entropy=1e-2
        )
        params = [*world.parameters(), *behaviour.parameters()]
        optimiser = LaProp(params, lr=config.lr, warmup=100, clip=AdaptiveClip(0.3))
    return Learning(
        world=world,
        behaviour=behaviour,
        optimiser=optimiser,
        seed=config.seed,
        precision=config.precision,
        batch=config.batch,
        length=config.length,
        past=max(dynamics.stores.values(), default=0),
        horizon=config.horizon,
        scales=loss_scales(seen.keys),
    )
''',
    "src/@NAME@/presets/tiny.toml": """# Seconds, for tests
task = "toy:catch"
steps = 200
envs = 2
workers = 0
threads = 1
batch = 2
length = 8
train_ratio = 8.0
deter = 32
hidden = 8
stoch = 4
classes = 4
depth = 2
units = 16
horizon = 4
learning_starts = 40
log_every = 40
save_every = 100
eval_episodes = 1
chunk = 64
replay_bytes = 50_000_000
tensorboard = false
""",
    "src/@NAME@/presets/cpu.toml": """# A ball falls on an 8x8 grid of 64x64 pixels
task = "toy:catch"
steps = 12_000
envs = 8
workers = 0
length = 10
train_ratio = 40.0
learning_starts = 1_000
horizon = 10
log_every = 400
save_every = 6_000
replay_bytes = 1_000_000_000
""",
    "tests/test_law.py": '''"""What every app does."""

from pathlib import Path

from @NAME@.cli import APP
from wm_run.testing import check_app


def test_it_obeys_the_law_of_an_app(tmp_path: Path) -> None:
    check_app(APP, tmp_path)
''',
}


def write(name: str, root: Path) -> Path:
    """The files of an app, and its place in the root's pyproject.toml; its folder. SystemExit where it cannot be."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        sys.exit(f"an app is called by small letters, digits and underscores, not {name!r}")
    if keyword.iskeyword(name) or importlib.util.find_spec(name):
        sys.exit(f"{name!r} is a word or a module of Python's that the app would hide: choose another name")
    folder = root / "apps" / name
    if folder.exists():
        sys.exit(f"{folder} is there already: choose another name")
    listing = (root / "pyproject.toml").read_text()
    for path, text in FILES.items():
        file = folder / path.replace("@NAME@", name)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text.replace("@NAME@", name).replace("@SCRIPT@", name.replace("_", "-")))
    shutil.copy(root / "LICENSE", folder)
    (root / "pyproject.toml").write_text(listed(listing, name))
    return folder


def listed(text: str, name: str) -> str:
    """The root's pyproject.toml with an app in its dependencies, sources and import contracts, beside dreamer."""
    distribution = f"wm-app-{name.replace('_', '-')}"
    for old, new in (
        ('  "wm-app-dreamer",\n', f'  "wm-app-dreamer",\n  "{distribution}",\n'),
        (
            "wm-app-dreamer = { workspace = true }\n",
            f"wm-app-dreamer = {{ workspace = true }}\n{distribution} = {{ workspace = true }}\n",
        ),
        (' "dreamer",', f' "dreamer", "{name}",'),
        ("| dreamer |", f"| dreamer | {name} |"),
    ):
        if text.count(old) != 1:
            sys.exit(f"pyproject.toml does not list dreamer as it did ({old.strip()!r}): see docs/contributing.md")
        text = text.replace(old, new)
    return text


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0] if __doc__ else "", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name")
    parser.add_argument("--root", type=Path, default=ROOT)
    given = parser.parse_args()
    folder = write(given.name, given.root)
    print(folder)
    print(f"next: uv sync && uv run apps/{given.name} train --preset tiny && uv run pytest apps/{given.name}")


if __name__ == "__main__":
    main()
