"""A run folder -> an agent that acts: `load(app, logdir).policy(observation)`."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np
import torch
from numpy.typing import NDArray
from wm_core.agent import Agent
from wm_core.errors import UserError
from wm_core.learner import Learner

from wm_run import agents, bound, checkpoint, inference, observed, published
from wm_run.alarm import NotFinite, check_weights
from wm_run.allocator import keep_pages
from wm_run.allotted import WAY_OUT, built
from wm_run.config import RunConfig
from wm_run.configs import read_run
from wm_run.loop import to_device
from wm_run.memory import check_environments
from wm_run.options import Memory
from wm_run.recording import Recording
from wm_run.stand_in import StandIn
from wm_run.teams import Team, team_of
from wm_run.trust import on_a_strangers_word, strange
from wm_run.unfit import read_or_refused

if TYPE_CHECKING:
    from wm_run.app import App
    from wm_run.loop import Environments


@dataclass(frozen=True)
class Loaded:
    """An agent with the spaces it was trained for.

    app, config, step (environment steps trained), protocol (what its scores mean), agent, carry (what it knew of each of
    the training environments at that step), environments (how many these were; 0 where no carry was kept).
    """

    app: App
    config: RunConfig
    step: int
    protocol: dict[str, Any]
    agent: Learner
    observation_space: Any
    action_space: Any
    action_size: int
    carry: Any = None
    sources: observed.Sources = dataclasses.field(default_factory=dict)  # where the entries lie in a native observation
    views: observed.Views = dataclasses.field(default_factory=dict)  # and how they are looked at
    team: Team | None = None  # of environments with several agents
    environments: int = 0
    unseen: frozenset[tuple[str, ...]] = frozenset()  # the keys on the way to what is shown and not looked at
    logdir: Path | None = None  # whose run it is
    replay: Mapping[str, Any] | None = None  # where that run's replay stood

    def save(self, folder: Path | str) -> Path:
        """The agent alone, as a folder that `load`, `eval`, `play` and `--init-from` take; see `wm_run.kept`."""
        from wm_run import kept

        return kept.save(self, Path(folder))

    def eval(self, episodes: int = 10, mode: bool | None = None, memory: Memory = "auto") -> dict[str, Any]:
        """Scores of fresh episodes, as `eval` prints them; see `wm_run.kept`."""
        from wm_run import kept

        return kept.scores(self, episodes, mode, memory)

    def policy(
        self, observation: Any, carry: Any = None, first: bool = False, mode: bool = False, mask: Any = None
    ) -> tuple[Any, Any]:
        """One unbatched gymnasium observation -> (an action valid for the environment's space, carry for the next).

        carry None remembers nothing; first=True begins an episode and keeps a memory that outlives episodes. The
        previous action lives in the carry. mode takes the policy's mode instead of a sample. Of a team, every entry of the
        observation has its N agents in front, the action is a list of N, and mask (N, A) bool says what each may choose;
        None: everything. Raises UserError for an observation that does not fit.
        """
        lead = () if self.team is None else (self.team.agents,)
        first = first or carry is None
        if carry is None:
            carry = {"agent": self.agent.initial(1), "action": np.zeros((*lead, self.action_size), np.float32)}
        action = np.zeros_like(carry["action"]) if first else carry["action"]
        flag = np.zeros(1, np.bool_)
        step = {key: value[None] for key, value in self.entries(observation).items()} | {
            "action": action[None],
            "reward": np.zeros((1, *lead), np.float32),
            "first": np.full(1, first),
            "last": flag,
            "terminal": flag,
        }
        if self.team is not None:
            step |= self.team.entries(self.action_size, mask)
        after, chosen, _ = self.agent.act(carry["agent"], step, mode)
        natives = list(chosen.reshape(-1, self.action_size))
        if self.app.decode_action:
            decode = self.app.part("decode_action")
            natives = [decode(self.action_space, one) for one in natives]
        return natives if lead else natives[0], {"agent": after, "action": chosen[0]}

    def entries(self, observation: Any) -> dict[str, NDArray[Any]]:
        """The observation as the agent's entries, in their dtypes and shapes."""
        space = self.observation_space.spaces
        known = (space, self.sources, self.views, self.unseen)
        if self.team is None:
            return observed.entries(observation, *known)
        if isinstance(observation, Mapping):  # what is not looked at may have no agents in front
            observation = {key: value for key, value in observation.items() if (key,) not in self.unseen}
        return self.team.observed(observation, lambda one: observed.entries(one, *known))


def load(app: App, logdir: Path | str, *, device: str = "auto") -> Loaded:
    """The agent of a run folder's last checkpoint, or a published one: its folder, `pretrained:NAME` or
    `hf:ORG/NAME[@REVISION]`. Raises UserError where there is none, or of another app.

    An app offers it as `load(logdir)`:  load = functools.partial(wm_run.loading.load, APP)
    """
    folder = agents.found(logdir)
    if published.there(folder):
        published.read(folder)
    config, _ = read_run(app, folder)
    with on_a_strangers_word(strange(app.environments, config)):
        return restore(app, folder, dataclasses.replace(config, device=device, workers=0))  # type: ignore[arg-type]


def restore(app: App, logdir: Path, config: RunConfig) -> Loaded:
    """The same with another device, seed or task in the config, by who knows whose word the task is (`wm_run.trust`). What was
    passed over is said on stderr."""
    stated, _ = read_run(app, logdir)
    given = inference.load(logdir, app=app) if published.there(logdir) else None
    if given is None:
        _latest(logdir)  # asked before time is spent
    config = runtime(config)
    with closing(environments(app, config, 1)) as envs:
        agent = build(app, config, envs)
        saved = given or _newest(app, logdir)
        bound.check(app, stated, saved)
        with read_or_refused(app, saved):
            checkpoint.check_step(saved)
        fit(agent, saved)
        if given is None:
            tell_passed_over(saved.path)
        spaces = envs.observation_space, envs.action_space, int(envs.action_spec.size)
        with read_or_refused(app, saved):
            loop = saved.state.get("loop", {})
            carry, count = to_device(loop.get("carry"), agent.device), len(loop.get("score", ()))
            replay = saved.state.get("replay")
        sources, views = getattr(envs, "sources", {}), getattr(envs, "views", {})  # no promise of Environments
        unseen: frozenset[tuple[str, ...]] = getattr(envs, "unseen", frozenset())
        return Loaded(
            app,
            config,
            saved.step,
            dict(envs.protocol),
            agent,
            *spaces,
            carry,
            sources,
            views,
            team_of(envs),
            count,
            unseen,
            logdir,
            replay,
        )


def _latest(logdir: Path) -> Path:
    """The last checkpoint. Raises UserError where there is none, and says which there was."""
    path = checkpoint.latest(logdir)
    if path is not None:
        return path
    if broken := checkpoint.damaged(logdir):
        raise UserError(
            f"{broken[0]} is damaged, and there is no other checkpoint: copy it again from where it is whole, or train "
            "anew with another --logdir"
        )
    raise UserError(f"there is no checkpoint in {logdir} yet: train it first")


def _newest(app: App, logdir: Path) -> checkpoint.Checkpoint:
    """The last checkpoint, read. A run that trains may replace it meanwhile: then it is the one after it."""
    tried: list[Path] = []
    while True:
        path = _latest(logdir)
        try:
            return checkpoint.load(path, app=app.name)
        except (checkpoint.CheckpointError, FileNotFoundError):
            if path in tried or len(tried) == 2:
                raise
            tried.append(path)


def tell_passed_over(path: Path) -> None:
    """Say on stderr that a later checkpoint than the one that is used is damaged."""
    for other in checkpoint.passed_over(path):
        print(f"{other} lacks a part and is passed over: the one of step {path.name} is used", file=sys.stderr)


def fit(agent: Learner, saved: checkpoint.Checkpoint) -> None:
    """The checkpoint's weights into the agent. Raises UserError where names or shapes are of another network."""
    mine = {name: tuple(value.shape) for name, value in agent.state_dict().items()}
    theirs = {name: tuple(value.shape) for name, value in saved.weights.items()}
    odd = sorted(name for name in mine.keys() | theirs.keys() if mine.get(name) != theirs.get(name))
    if odd:
        there, here = (str(shapes.get(odd[0], "missing")) for shapes in (theirs, mine))
        first = f"{odd[0]!r} is {there} there and {here} here"
        more = f", and {len(odd) - 1} more differ" if len(odd) > 1 else ""
        raise UserError(
            f"the weights in {saved.path} do not fit this config ({first}{more}): leave out the options that change the "
            "networks or the task's spaces"
        )
    try:
        check_weights([(name, saved.weights[name]) for name, _ in agent.named_parameters()])
    except NotFinite as error:
        raise UserError(f"{error} in {saved.path}: take another checkpoint, for no run of ours saves that") from error
    agent.load_state_dict(saved.weights)


def initialise(agent: Learner, source: Path | str) -> Path:
    """Weights of another run's checkpoint, of a run folder's last one, or of a published agent; gives where they were. Raises
    UserError."""
    path = agents.found(source)
    if published.there(path):
        fit(agent, inference.load(path))
        return path
    if not (path / "manifest.json").is_file():
        found = checkpoint.latest(path)
        if found is None:
            odd = "only a damaged" if checkpoint.damaged(path) else "no"
            raise UserError(f"there is {odd} checkpoint in {path}: name a run folder or one of its checkpoint/<step>")
        path = found
        tell_passed_over(path)
    fit(agent, checkpoint.load(path))
    return path


def environments(app: App, config: RunConfig, n: int) -> Environments:
    """n environments of the config's task; where none is known, the recording that was learned from stands in for them."""
    if not config.task and config.data:
        return StandIn(Recording.open(config.data))
    if not config.task:
        raise UserError("no task is named: give --task, or a --preset that names one")
    check_environments(n)
    envs: Environments = app.part("environments")(config, n)
    if config.env and dict(envs.protocol).get("options") != config.env:
        envs.close()
        raise UserError(
            f"the environments of {app.name} take no options of the task: leave out --env.{next(iter(config.env))}"
        )
    return envs


def played(app: App, config: RunConfig, n: int, recording: Recording | None) -> Environments:
    """n environments, or the recording that a run learns from in their place."""
    return environments(app, config, n) if recording is None else StandIn(recording)


def build(app: App, config: RunConfig, envs: Environments) -> Learner:
    """A new agent for these environments, with weights from the config's seed, on the config's device.

    Raises UserError for numbers that do not fit each other.
    """
    team, what = team_of(envs), config.task or config.data
    if team is not None and app.teams == "none":
        raise UserError(
            f"{what} has an axis of {team.agents} agents, and {app.name} learns a single one: take an app for several"
        )
    if team is None and app.teams == "only":
        raise UserError(
            f"{app.name} learns environments of several agents, and {what} has a single one: take an app for it, or "
            "a task such as smax:3m"
        )

    def make(device: str) -> Learner:
        torch.manual_seed(config.seed)
        here: Any = device
        parts = (dataclasses.replace(config, device=here), envs.observation_space, envs.action_spec)
        made: Learner = app.part("build")(*parts, *filter(None, [team]))
        return made

    try:
        learner = built(make, config.device)
    except ValueError as error:
        if getattr(error, "user_error", False):
            raise
        raise UserError(f"these numbers make no agent: {error}") from error
    except (OverflowError, RuntimeError, TypeError) as error:  # torch says it in three ways
        if "overflow" not in str(error).lower():
            raise
        raise UserError(f"these numbers make networks that no memory can hold: {WAY_OUT}") from error
    if not config.behaviour:
        with_world(app, learner, "leave out --behaviour").learn_alone()
    return learner


def has_world(learner: Learner) -> TypeGuard[Agent]:
    """Whether it has a world model; a model-free learner has none."""
    return hasattr(learner, "world")


def with_world(app: App, learner: Learner, so: str = "there is nothing to dream") -> Agent:
    """The learner as one that has a world model. Raises UserError where it has none, which says what follows."""
    if has_world(learner):
        return learner
    raise UserError(f"{app.name} learns no world model: {so}")


def runtime(config: RunConfig) -> RunConfig:
    """The config with device, precision and capture decided and torch's threads set. Raises UserError for an absent GPU."""
    if config.device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda was asked for, but torch sees no GPU: use --device cpu or auto")
    device = config.device if config.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    precision = config.precision if config.precision != "auto" else "bf16" if device == "cuda" else "fp32"
    alone = device == "cuda" and config.devices == 1
    if config.capture == "graph" and config.devices > 1:
        raise UserError(
            f"--capture graph was asked for with --devices {config.devices}, but each process compares its recording with "
            "the plain update by itself, and where one alone went on plainly the others would wait for it for ever: use "
            "--capture compile, eager or auto"
        )
    capture = config.capture if config.capture != "auto" else "graph" if alone else "eager"
    if capture == "graph" and device == "cpu":
        raise UserError("--capture graph was asked for, but a CPU has no graphs: use --capture compile, eager or auto")
    if config.threads:
        torch.set_num_threads(config.threads)
    if device == "cpu":
        keep_pages()
    return dataclasses.replace(config, device=device, precision=precision, capture=capture)
