"""What every environment of this package keeps, as a function anyone can run on their own."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import gymnasium
import numpy as np

from env_adapters.actions import ActionCodec
from env_adapters.errors import CheckError, Diverged, Elsewhere, TaskError
from env_adapters.facts import fact, repeats, unread
from env_adapters.kept import LOST
from env_adapters.make import Factory, make
from env_adapters.step import Environment, Reader, digest
from env_adapters.team import Beside, Bools, choose, decoded, team_of
from env_adapters.values import flags, numbers
from env_adapters.wrappers import Adapted, adapt

Mask = Bools | None  # what may be chosen next; None without agents
_PLAIN = (np.ndarray, str, int, float, bool, type(None))


def check_env(env: str | Factory | Environment, *, steps: int = 200, seed: int = 0, **options: Any) -> list[str]:
    """Run an environment through the specification; remarks on what could not be exercised, none if all was.

    env: an environment, or anything `make` takes (with its options). steps: how many to play at a time.

    CheckError, in one sentence, where the environment breaks it: observations that their space cannot hold; rewards that
    are no finite number; flags that are no bool; actions that do not survive their vector; records that differ for the same
    seed and actions; a snapshot of other than plain values, or one after which the episode goes another way; a protocol
    that is no JSON or has no name.

    >>> check_env("toy:catch", steps=20)
    []
    """
    findings = examine(env, steps=steps, seed=seed, **options)
    for one in findings:
        if one.verdict == "fails":
            raise CheckError(one.detail)
    return [one.detail for one in findings if one.verdict == "remark"]


@dataclass(frozen=True)
class Finding:
    """One part of an examination: what was looked at; "passes", "remark" or "fails"; a sentence, or empty."""

    what: str
    verdict: Literal["passes", "remark", "fails"]
    detail: str = ""


def examine(env: str | Factory | Environment, *, steps: int = 200, seed: int = 0, **options: Any) -> list[Finding]:
    """The parts of `check_env` one after another, until one fails. Elsewhere, a TaskError, for one that lives `apart`, in a
    process that did not begin with its variables.

    >>> [one.what for one in examine("toy:catch", steps=20)]
    ['protocol', 'actions', 'records', 'seeding', 'snapshot', 'episode ends']
    """
    if not isinstance(env, gymnasium.Env):
        env = make(env, seed=seed, **options)
    else:
        try:
            env = adapt(env, type(env.unwrapped).__name__)
        except TaskError as error:
            return [Finding("spaces", "fails", str(error))]
    apart: dict[str, str] = fact(env, "apart", None) or {}
    if lacking := {name: value for name, value in apart.items() if os.environ.get(name) != value}:
        env.close()
        raise Elsewhere(lacking)
    findings: list[Finding] = []
    for what, part in _parts(env, steps, seed).items():
        try:
            remark = part()
        except (CheckError, TaskError) as error:
            return [*findings, Finding(what, "fails", str(error))]
        findings.append(Finding(what, "remark", remark) if remark else Finding(what, "passes"))
    return findings


def _parts(env: Environment, steps: int, seed: int) -> dict[str, Callable[[], str | None]]:
    """Name -> the part, which raises CheckError or returns a remark."""
    codec: list[ActionCodec] = []
    records: list[str] = []
    ends = [0]

    def actions() -> None:
        codec.append(_check_actions(env, seed))

    def first() -> str | None:
        found, ends[0] = _play(env, codec[0], steps, seed)
        records.extend(found)
        return "; ".join(env.reader.notices.values()) if isinstance(env, Adapted) else None

    def second() -> str | None:
        if not repeats(fact(env, "protocol", {})):
            return "the environment says that it does not repeat under a seed: nothing was compared"
        again, _ = _play(env, codec[0], steps, seed)
        for at, (one, two) in enumerate(zip(records, again, strict=True)):
            same = f"two passes with the same seeds and actions differ at step {at}; it is not deterministic"
            _require(one == two, same)
        return None

    def ended() -> str | None:
        return None if ends[0] else f"no episode ended within {steps} steps: ends and the next reset were not exercised"

    return {
        "protocol": lambda: _check_protocol(env),
        "actions": actions,
        "records": first,
        "seeding": second,
        "snapshot": lambda: _check_snapshot(env, codec[0], steps, seed),
        "episode ends": ended,
    }


def _require(holds: bool, sentence: str) -> None:
    if not holds:
        raise CheckError(sentence)


def _check_protocol(env: Environment) -> str:
    protocol, repeat = fact(env, "protocol", None), fact(env, "repeat", 1)
    try:
        plain = json.loads(json.dumps(protocol))
    except (TypeError, ValueError) as error:
        raise CheckError(f"the protocol is no JSON: {error}") from error
    _require(plain == protocol, "the protocol changes when it is written as JSON; use str keys and lists")
    _require(isinstance(plain, dict) and isinstance(plain.get("name"), str), "the protocol is a dict with a name")
    _require(isinstance(repeat, int) and repeat >= 1, f"repeat is {repeat!r}; it counts steps and is at least 1")
    return unread(env)


def _check_actions(env: Environment, seed: int) -> ActionCodec:
    codec = ActionCodec(env.action_space)
    env.action_space.seed(seed)
    for _ in range(10):
        native = env.action_space.sample()
        back = codec.decode(codec.encode(native))
        _require(env.action_space.contains(back), f"the action {native!r} comes back as {back!r}, outside its space")
        same = np.allclose(codec.encode(back), codec.encode(native), atol=1e-5)
        _require(same, f"the action {native!r} comes back from its vector as {back!r}")
    return codec


def _play(env: Environment, codec: ActionCodec, steps: int, seed: int) -> tuple[list[str], int]:
    """Fingerprints of the records of a few episodes with random actions, and how many episodes ended."""
    fact(env, "reseed", lambda seed: None)(seed)
    rng, records, ends, done, mask = np.random.default_rng(seed), [], 0, True, None
    for at in range(steps):
        if done:
            record, mask = _reset(env, codec, seed + at)
            records.append(record)
            done = False
        else:
            record, done, mask = _step(env, codec, rng, mask)
            records.append(record)
            ends += done
    return records, ends


def _reset(env: Environment, codec: ActionCodec, seed: int) -> tuple[str, Mask]:
    observation, info = env.reset(seed=seed)
    _check_observation(env, observation, "reset")
    _require(isinstance(info, dict), f"reset returned the info {info!r}, no dict")
    beside, _ = Beside(team_of(env), codec.spec)(info)
    return digest((observation, beside)), beside.get("action_mask")


def _step(env: Environment, codec: ActionCodec, rng: np.random.Generator, mask: Mask) -> tuple[str, bool, Mask]:
    """A step with random actions of those that the mask allows."""
    team = team_of(env)
    vector = rng.uniform(-1, 1, (*team.axis, codec.spec.size)).astype(np.float32)
    action = decoded(codec, vector if mask is None else choose(codec.spec, vector, mask))
    observation, reward, terminated, truncated, info = env.step(action)
    _check_observation(env, observation, "step")
    earned = numbers(reward, team.axis)
    for name, flag in (("terminated", terminated), ("truncated", truncated)):
        _require(isinstance(flag, bool | np.bool_), f"{name} is {flag!r}, no bool")
    _require(isinstance(info, dict), f"step returned the info {info!r}, no dict")
    for name in team.signals:
        signal = info.get(name)
        if name in team.agent_signals:
            flags(f"info[{name!r}]", signal, team.axis)
        else:
            _require(isinstance(signal, bool | np.bool_), f"the signal {name!r} is {signal!r} in info, no bool")
    beside, _ = Beside(team, codec.spec)(info)
    done = bool(terminated or truncated)
    record = digest((observation, earned, bool(terminated), bool(truncated), beside))
    return record, done, beside.get("action_mask")


def _check_observation(env: Environment, value: Any, verb: str) -> None:
    space = env.observation_space
    if isinstance(env, Adapted):  # which has read it
        env.reader.look(value)
        return
    _require(isinstance(value, dict), f"{verb} returned an observation of type {type(value).__name__}, not a dict")
    team = team_of(env)
    reader = Reader(space, team.taken, axis=team.axis, sizes_kept=fact(env, "sizes_kept", ()))
    notices = reader.look(reader(value))
    _require(not notices, "; ".join(notices.values()))
    each = [{key: part[agent] for key, part in value.items()} for agent in range(team.agents or 0)] or [value]
    _require(all(map(space.contains, each)), f"{verb} returned an observation outside its space")


def _check_snapshot(env: Environment, codec: ActionCodec, steps: int, seed: int) -> str | None:
    """Leave an episode in its middle, play something else, come back: the same records must follow."""
    fact(env, "reseed", lambda seed: None)(seed)
    rng = np.random.default_rng(seed + 1)
    # twice the same way: only an episode that is left before its end has something to lose
    _, mask = _reset(env, codec, seed)
    length, done = 0, False
    while not done and length < steps:
        (_, done, mask), length = _step(env, codec, rng, mask), length + 1
    half = (length - 1) // 2
    rng = np.random.default_rng(seed + 1)
    _, mask = _reset(env, codec, seed)
    for _ in range(half):
        _, done, mask = _step(env, codec, rng, mask)
        if done:
            return "the episode was shorter the second time: the snapshot was not exercised"
    state = env.snapshot()  # type: ignore[attr-defined]
    if LOST in state:
        return f"the environment cannot be restored: {state[LOST]}; a resume cuts the episode under way short"
    _check_plain(state, "snapshot")
    stored = pickle.dumps(state)
    after = rng.bit_generator.state
    expected = _rest(env, codec, rng, mask, length - half, seed)
    try:
        env.restore(pickle.loads(stored))  # type: ignore[attr-defined]
    except Diverged as error:
        raise CheckError(f"a snapshot cannot be restored: {error}") from error
    rng.bit_generator.state = after
    found = _rest(env, codec, rng, mask, length - half, seed)
    for at, (one, two) in enumerate(zip(expected, found, strict=False)):
        _require(one == two, f"after a snapshot is restored, record {at} differs from that of the unbroken run")
    return None


def _rest(
    env: Environment, codec: ActionCodec, rng: np.random.Generator, mask: Mask, steps: int, seed: int
) -> list[str]:
    """Records to the end of the episode, and of the beginning of one more, which is another way."""
    records = []
    for _ in range(steps):
        record, done, mask = _step(env, codec, rng, mask)
        records.append(record)
        if done:
            break
    record, mask = _reset(env, codec, seed + 7)
    return [*records, record, _step(env, codec, rng, mask)[0]]


def _check_plain(value: Any, path: str) -> None:
    if isinstance(value, dict):
        for key, inner in value.items():
            _require(isinstance(key, str), f"{path} has the key {key!r}; keys are str")
            _check_plain(inner, f"{path}[{key!r}]")
    elif isinstance(value, list):
        for at, inner in enumerate(value):
            _check_plain(inner, f"{path}[{at}]")
    else:
        sentence = (
            f"{path} is a {type(value).__name__}; a snapshot holds dicts, lists, arrays, str, int, float, bool, None"
        )
        _require(type(value) in _PLAIN, sentence)
