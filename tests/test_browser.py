"""play --browser on toy:catch: keys that are held there move the paddle, seen in the pictures that the page gets."""

from __future__ import annotations

import base64
import dataclasses
import json
import threading
from contextlib import closing

import imageio.v3 as imageio
import numpy as np
from dreamer.cli import APP
from websockets.sync.client import connect
from wm_core.agent import Agent
from wm_run import browser, loading
from wm_run.audience import Audience
from wm_run.configs import resolve
from wm_run.observer import Observer
from wm_run.stage import Stage
from wm_run.window import Keyboard


def paddle(seen: str) -> float:
    """Where the blue of the lowest rows lies, from left to right."""
    picture = imageio.imread(base64.b64decode(seen.partition(",")[2]), extension=".png").astype(int)
    blue = picture[-4:, :, 2] - picture[-4:, :, 0]
    return float(np.argwhere(blue > 60)[:, 1].mean())


def test_keys_move_the_paddle() -> None:
    config = loading.runtime(dataclasses.replace(resolve(APP, "tiny"), device="cpu"))
    with closing(loading.environments(APP, config, 1)) as envs:
        agent = loading.build(APP, config, envs)
        assert isinstance(agent, Agent)
        hands = Keyboard(tuple(envs.action_spec.discrete), int(envs.action_spec.continuous))
        show = browser.Show(Stage(Observer(agent, "image", seed=0), envs, seed=0), hands, "catch")
        show.paused = True
        audience, ended = Audience(), threading.Event()
        doors = browser.Doors(audience, 0)
        playing = threading.Thread(target=browser.run, args=(show, audience), kwargs={"ended": ended})
        playing.start()
        try:
            with connect(doors.address.replace("http", "ws").replace("/?", "/live?")) as page:

                def step(key: str) -> float:
                    before = show.stage.now
                    page.send(json.dumps({"keys": [key], "step": True}))
                    while (found := json.loads(page.recv(timeout=60))).get("who") != "you" or show.stage.now is before:
                        pass
                    return paddle(found["seen"])

                lefts = [step("0") for _ in range(3)]
                rights = [step("2") for _ in range(3)]
        finally:
            ended.set()
            playing.join()
            doors.close()
    assert lefts[0] > lefts[-1] and rights[0] < rights[-1], (lefts, rights)
