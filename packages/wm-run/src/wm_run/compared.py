"""The exported step beside the agent's own, over an episode of real observations: are they one function?

Both begin with an empty memory, are shown the same observations and get the same noise. It is the step that is compared: each
begins with the agent's carry, where that has the same tensors, else with what the file itself gave (a padded window).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from wm_core import draws
from wm_core.agent import Agent
from wm_core.errors import UserError

from wm_run.converted import Arrays, Runner
from wm_run.loop import Environments, Step
from wm_run.noise import Given, handed_out
from wm_run.ports import named
from wm_run.programs import NEXT, Program, chosen, dreamt, observed, said
from wm_run.rollout import drawing_from

LIMIT = 1e-5  # of a difference, relative to numbers above 1
DECODED = 1e-4  # of what a dream decodes: norms over few channels and means over bins up to 5e8 make much of rounding
PREDICTIONS = ("reward", "cont", "observation")  # what that is; nothing follows from it
TRIES = 3  # other noise is tried where a draw may lie within rounding of a tie: about one of a million does
BEYOND = 3  # steps into the next episode, whose first forgets what there was
DREAM = 15  # steps of a dream
DREAMS = (0, 7, 63, 511)  # steps from which one is dreamt

Runners = Mapping[str, Runner]  # of the programs, by their names
Both = tuple[Any, Arrays]  # what ours gives, to go on from, and what a file gave


@dataclass
class Compared:
    """Steps of acting, whether the episode ended, dreams and their steps, how often other noise was tried, and the largest
    difference of each kind of file: in all that is gone on from or acted on, and in what is decoded."""

    steps: int = 0
    ended: bool = False
    dreams: int = 0
    dreamt: int = 0
    again: int = 0
    largest: dict[str, float] = field(default_factory=dict)
    decoded: dict[str, float] = field(default_factory=dict)


class Comparison:
    """An agent, its programs, and files of them that are to be compared, each kind ("onnx", "torch") by its name."""

    def __init__(self, agent: Agent, programs: Iterable[Program], files: Mapping[str, Runners], seed: int = 0) -> None:
        self.agent, self.files = agent.eval(), files
        self.programs = {program.name: program for program in programs}
        self.random = np.random.default_rng(seed)
        self.found = Compared(largest=dict.fromkeys(files, 0.0), decoded=dict.fromkeys(files, 0.0))

    def play(self, envs: Environments, seed: int, limit: int) -> Compared:
        """An episode of one environment and a little of the next, at most `limit` steps. Raises UserError where the two
        differ."""
        step, found = envs.reset(seed), self.found
        carry: Any = self.agent.initial(1)
        empty = {name: one.numpy() for name, one in self.programs["observe"].inputs.items() if _is("carry", name)}
        carries = dict.fromkeys(self.files, empty)
        while limit:
            now, before = found.steps, (carry, carries)
            carry, action, carries, noise = self._act(step, carry, carries)
            if now in DREAMS:
                self._dream(step, *before, noise)
            found.steps, limit = found.steps + 1, limit - 1
            if step["last"][0] and not found.ended:
                found.ended, limit = True, min(limit, BEYOND)
            step = envs.step(action)
        return found

    # ---- one step both ways

    def _act(
        self, step: Step, carry: Any, carries: dict[str, Arrays]
    ) -> tuple[Any, NDArray[np.float32], dict[str, Arrays], Arrays]:
        def ours(source: Given) -> tuple[Any, Mapping[str, Tensor]]:
            with drawing_from(self.agent, cast(Any, source)):  # as it acts anywhere
                after, action, _ = self.agent.act(carry, step)
            return after, _tensors(f"{NEXT}carry", after) | {"action": torch.from_numpy(action)}

        def theirs(kind: str, noise: Arrays) -> Arrays:
            found = self.files[kind]["observe"](carries[kind] | self._shown(step) | _of(noise, "observe"))
            return found | self.files[kind]["policy"](found | _of(noise, "policy"))

        after, outputs, found, noise = self._alike(("observe", "policy"), ours, theirs, self.found.steps)
        mine = _arrays("carry", after)
        kept = {kind: _with(_next("carry", one), mine) for kind, one in found.items()}
        return after, outputs["action"].numpy(), kept, noise

    def _dream(self, step: Step, carry: Any, carries: dict[str, Arrays], noise: Arrays) -> None:
        """A dream from this step, in which the policy acts."""
        world, at = self.agent.world, self.found.steps
        given = {key: torch.from_numpy(value) for key, value in self._shown(step).items()}
        seen = {key.removeprefix("observation."): value for key, value in given.items() if _is("observation", key)}
        with draws.drawing(_source(noise, "observe")), torch.no_grad():
            _, start, latent = observed(world, carry, seen, given["action"], given["first"])
        begun = {
            kind: files["observe"](carries[kind] | self._shown(step) | _of(noise, "observe"))
            for kind, files in self.files.items()
        }
        self._check(named("latent", said(latent)), begun, at)
        left = int(min(DREAM, world.dynamics.left(start)))
        for _ in range(left):
            now, begins = (start, latent), {kind: _state(one) for kind, one in begun.items()}

            def ours(source: Given, now: Any = now) -> tuple[Any, Mapping[str, Tensor]]:
                with draws.drawing(source), torch.no_grad():
                    action = chosen(self.agent.behaviour, now[1])
                    after, felt, heads = dreamt(world, now[0], action)
                return (after, felt), named("latent", said(felt)) | heads | {"chosen": action}

            def theirs(kind: str, noise: Arrays, begins: Any = begins) -> Arrays:
                files, state = self.files[kind], begins[kind]
                action = files["policy"](state | _of(noise, "policy"))["action"]
                return files["dream"](state | {"action": action} | _of(noise, "dream")) | {"chosen": action}

            (start, latent), _, begun, _ = self._alike(("policy", "dream"), ours, theirs, at)
            mine = _arrays("start", start) | _arrays("latent", said(latent))
            begun = {kind: _with(_state(one), mine) for kind, one in begun.items()}
            self.found.dreamt += 1
        self.found.dreams += bool(left)

    def _alike(
        self,
        names: tuple[str, ...],
        ours: Callable[[Given], tuple[Any, Mapping[str, Tensor]]],
        theirs: Callable[[str, Arrays], Arrays],
        at: int,
    ) -> tuple[Any, Mapping[str, Tensor], dict[str, Arrays], Arrays]:
        """Both ways with the same noise for these programs; with other noise where they differ, up to TRIES times."""
        for left in reversed(range(TRIES)):
            noise = self._noise(*names)
            after, outputs = ours(_source(noise, *names))
            found = {kind: theirs(kind, noise) for kind in self.files}
            try:
                self._check(outputs, found, at)
                break
            except UserError:
                if not left:
                    raise
                self.found.again += 1
        return after, outputs, found, noise

    def _check(self, outputs: Mapping[str, Tensor], found: Mapping[str, Arrays], at: int) -> None:
        """Compare what both have; of a padded window ours has another shape, and what follows from it tells."""
        seen = {True: dict(self.found.decoded), False: dict(self.found.largest)}
        for kind, arrays in found.items():
            for name, mine in outputs.items():
                other, shown = arrays.get(name), any(_is(part, name) for part in PREDICTIONS)
                if other is None or other.shape != tuple(mine.shape):
                    continue
                one, limit = mine.detach().double().numpy(), DECODED if shown else LIMIT
                apart = float((np.abs(one - other) / np.maximum(1.0, np.abs(one))).max(initial=0.0))
                if not apart <= limit:
                    raise UserError(
                        f"the exported step is not this agent's: {name.removeprefix(NEXT)} differs by {apart:.1e} at step "
                        f"{at:,} of the episode in the {kind} file (the limit is {limit:g}), so nothing was written"
                    )
                seen[shown][kind] = max(seen[shown][kind], apart)
        self.found.decoded, self.found.largest = seen[True], seen[False]

    # ---- what goes in

    def _shown(self, step: Step) -> Arrays:
        names = self.programs["observe"].inputs
        seen = {name: np.asarray(step[name.removeprefix("observation.")]) for name in names if _is("observation", name)}
        return seen | {"action": np.asarray(step["action"], np.float32), "first": np.asarray(step["first"])}

    def _noise(self, *names: str) -> Arrays:
        """For these programs: observe.noise.0, ... in the order in which an agent draws."""
        found = {}
        for name in names:
            program = self.programs[name]
            for key, kind in program.noise.items():
                shape = tuple(program.inputs[key].shape)
                drawn = self.random.random(shape) if kind == "uniform" else self.random.standard_normal(shape)
                found[f"{name}.{key}"] = (
                    np.minimum(drawn, 1 - 2**-24).astype(np.float32)
                    if kind == "uniform"
                    else (drawn.astype(np.float32))
                )
        return found


def _source(noise: Arrays, *names: str) -> Given:
    return handed_out(torch.from_numpy(value) for name in names for value in _of(noise, name).values())


def _of(noise: Arrays, name: str) -> Arrays:
    """A program's own noise, by the names of its inputs."""
    return {key.removeprefix(f"{name}."): value for key, value in noise.items() if key.startswith(f"{name}.")}


def _tensors(name: str, tree: Any) -> dict[str, Tensor]:
    """The tensors in nested dicts, by the names that `ports.named` gives them; what else there is, as a cache, is left out."""
    if isinstance(tree, Tensor):
        return {name: tree}
    parts = tree.items() if isinstance(tree, Mapping) else ()
    return {key: value for part, inner in parts for key, value in _tensors(f"{name}.{part}", inner).items()}


def _arrays(name: str, tree: Any) -> Arrays:
    return {key: value.numpy() for key, value in _tensors(name, tree).items()}


def _with(found: Arrays, mine: Arrays) -> Arrays:
    """What a file gave, with the agent's own in the place of what has the same name and shape."""
    return {key: mine[key] if key in mine and mine[key].shape == one.shape else one for key, one in found.items()}


def _is(part: str, name: str) -> bool:
    return name == part or name.startswith(f"{part}.")


def _next(part: str, found: Arrays) -> Arrays:
    """What the next call takes, by the names of its inputs."""
    return {key.removeprefix(NEXT): value for key, value in found.items() if _is(part, key.removeprefix(NEXT))}


def _state(found: Arrays) -> Arrays:
    """Latent and start of what `observe` or `dream` gave."""
    return _next("latent", found) | _next("start", found)
