"""`play LOGDIR --browser`: a stage -> frames as JSON over a WebSocket -> a page of this package; keys held there -> actions.

Everything is on loopback and behind a token (gate.py). The stage is this thread's; every browser has two of its own
(audience.py). The page names no address but its own.
"""

from __future__ import annotations

import base64
import importlib
import json
import logging
import sys
import threading
import time
from collections.abc import Mapping
from http import HTTPStatus
from importlib.resources import files
from itertools import zip_longest
from typing import Any

import imageio.v3 as imageio
import numpy as np
from numpy.typing import NDArray
from wm_core.errors import UserError

from wm_run.audience import Audience, Gone
from wm_run.canvas import action_words, panel
from wm_run.filmstrip import rgb
from wm_run.gate import new_token, refusal
from wm_run.remembered import Recalling
from wm_run.stage import Moment, Stage
from wm_run.window import ARROWS, DIGITS, FPS, Keyboard

LIVE = "/live"
LONGEST = 4096  # bytes of a message from a page
SHOWN = 8  # agents of a team, side by side
FARTHEST = 10_000  # steps of a dream that may be asked for
NOTHING = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'"


class Show:
    """A stage, and what the page has set: the state behind every frame. `obey` takes a page's messages."""

    def __init__(self, stage: Stage, hands: Keyboard, title: str) -> None:
        self.stage, self.hands, self.title = stage, hands, title
        self.paused, self.once = False, False
        self.most = 1e-6  # the largest number of any vector so far

    def obey(self, said: Mapping[str, Any]) -> None:
        """One message: `keys` held, `pause`, `step` once, `dream` or not, `horizon`, hands `off`, `agent`. What is none of
        these, or no such value, changes nothing."""
        stage = self.stage
        if said.get("left"):
            self.paused, self.hands.held = True, []
        if isinstance(keys := said.get("keys"), list):
            self.hands.held = [key for key in keys if isinstance(key, str) and (key in ARROWS or key in set(DIGITS))]
        if isinstance(pause := said.get("pause"), bool):
            self.paused = pause
        if said.get("step") is True:
            self.paused = self.once = True
        if isinstance(dream := said.get("dream"), bool):
            (stage.sleep if dream else stage.wake)()
        if isinstance(off := said.get("off"), bool):
            self.hands.off = off
        horizon, agent = said.get("horizon"), said.get("agent")
        if type(horizon) is int and 1 <= horizon <= FARTHEST:
            stage.horizon = horizon
        team = stage.observer.team
        if type(agent) is int and team is not None and 0 <= agent < team.agents:
            stage.switch(agent)

    def due(self) -> bool:
        """Whether the stage is to go on."""
        once, self.once = self.once, False
        return once or not self.paused

    def frame(self) -> str:
        """What there is to see."""
        moment, observer = self.stage.now, self.stage.observer
        predicted = moment.predicted
        for value in (moment.seen, predicted.shown):
            if value is not None and value.ndim == 1 and value.size:
                self.most = max(self.most, float(np.abs(np.nan_to_num(value)).max()))
        return json.dumps(
            {
                "title": self.title,
                "dreaming": self.stage.dream is not None,
                "paused": self.paused,
                "off": self.hands.off,
                "horizon": self.stage.horizon,
                "agent": observer.which,
                "agents": 1 if observer.team is None else observer.team.agents,
                "choices": int(next(iter(self.hands.discrete), 0)),
                "arrows": min(2, self.hands.continuous),
                "seen": None if moment.seen is None else _png(panel(moment.seen, self.most)),
                "shown": None if predicted.shown is None else _png(panel(predicted.shown, self.most)),
                "beside": [
                    [None if one is None else _png(panel(one, self.most)) for one in both]
                    for both in zip_longest(moment.beside[:SHOWN], predicted.beside[:SHOWN])
                ],
                "recalled": self._recalled(moment.recalled),
            }
            | _numbers(moment)
        )

    def _recalled(self, recalling: Recalling | None) -> dict[str, Any] | None:
        """Of who recalls past steps: which, and of how many; `at` is the step in whose episode it was."""
        if recalling is None:
            return None

        def picture(seen: NDArray[Any]) -> str:  # an image in its own size: there are many, and the page scales them
            value = self.stage.observer.pictured(seen)
            return _png(rgb(value) if value.ndim == 3 else panel(value, self.most))

        steps = [
            {
                "ago": one.ago,
                "episodes": one.episodes,
                "weight": round(one.weight, 4),
                "frame": None if one.seen is None else picture(one.seen),
            }
            for one in recalling.steps
        ]
        return {"at": self.stage.t, "found": recalling.found, "steps": steps}


def _numbers(moment: Moment) -> dict[str, Any]:
    predicted = moment.predicted
    numbers = {"reward": predicted.reward, "value": predicted.value, "continue": predicted.cont}
    numbers |= {"score": moment.score} | ({} if moment.reward is None else {"arrived": moment.reward})
    finite = {name: round(value, 4) if np.isfinite(value) else None for name, value in numbers.items()}
    return finite | {
        "t": moment.t,
        "imagined": moment.imagined,
        "over": moment.over,
        "who": moment.who,
        "action": action_words(moment.action),
    }


def _png(picture: NDArray[np.uint8]) -> str:
    return "data:image/png;base64," + base64.b64encode(imageio.imwrite("<bytes>", picture, extension=".png")).decode()


class Doors:
    """The server on loopback, in threads of its own: the page, and a WebSocket beside it for the audience."""

    def __init__(self, audience: Audience, port: int) -> None:
        try:
            server = importlib.import_module("websockets.sync.server")
            http = importlib.import_module("websockets.http11")
            headers = importlib.import_module("websockets.datastructures").Headers
            self._closed = importlib.import_module("websockets.exceptions").ConnectionClosed
        except ModuleNotFoundError as error:
            raise UserError("a page in the browser needs the package websockets: install wm-run[play]") from error
        self.token, self.audience, self._open = new_token(), audience, set[Any]()
        self._page = (files("wm_run") / "data" / "play.html").read_bytes()
        self._kinds = http.Response, headers
        try:
            self._server = server.serve(
                self._talk,
                "127.0.0.1",
                port,
                process_request=self._answer,
                max_size=LONGEST,
                compression=None,
                logger=_silent(),
            )
        except OSError as error:
            raise UserError(f"port {port} cannot be had ({error.strerror}): leave --port out for a free one") from error
        self.port = int(self._server.socket.getsockname()[1])
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}/?token={self.token}"

    def close(self) -> None:
        """Nobody is let in any more, and who is there is sent away: an older websockets leaves them, and with them this
        process."""
        self._server.shutdown()
        for connection in [*self._open]:
            connection.close()

    def _respond(self, status: HTTPStatus, kind: str, body: bytes) -> Any:
        response, headers = self._kinds
        return response(status.value, status.phrase, headers(_headers(kind, body)), body)

    def _answer(self, connection: Any, request: Any) -> Any:
        """The page, or a refusal; None goes on to the WebSocket."""
        path = request.path.partition("?")[0]
        why = refusal(self.token, request.path, request.headers.get("Host", ""), request.headers.get("Origin"))
        if why:
            return self._respond(HTTPStatus.FORBIDDEN, "text/plain", f"{why}\n".encode())
        if path == LIVE:
            return None
        if path != "/":
            return self._respond(HTTPStatus.NOT_FOUND, "text/plain", b"there is one page here, at /\n")
        return self._respond(HTTPStatus.OK, "text/html", self._page)

    def _talk(self, connection: Any) -> None:
        def send(message: str) -> None:
            try:
                connection.send(message)
            except (self._closed, OSError) as error:
                raise Gone from error

        seat = self.audience.enter(send)
        self._open.add(connection)
        try:
            for message in connection:
                self.audience.said(seat, message)
        finally:
            self._open.discard(connection)
            self.audience.leave(seat)


def _silent() -> logging.Logger:
    """What a reader's closed socket or broken request does to the log: nothing."""
    logger = logging.getLogger(f"{__name__}.server")
    logger.disabled = True
    return logger


def _headers(kind: str, body: bytes) -> dict[str, str]:
    return {
        "Content-Type": f"{kind}; charset=utf-8",
        "Content-Length": str(len(body)),
        "Content-Security-Policy": NOTHING,
        "Cache-Control": "no-store",
        "Connection": "close",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
    }


def serve(stage: Stage, hands: Keyboard, title: str, *, port: int = 0, dreaming: bool = False) -> None:
    """Until Ctrl-C. Raises UserError without websockets, or where the port is taken. dreaming: begin inside the dream."""
    audience = Audience()
    doors = Doors(audience, port)
    try:
        print(f"open {doors.address}", flush=True)
        print(
            f"on another machine: ssh -N -L {doors.port}:127.0.0.1:{doors.port} THIS_HOST, then the same address there; "
            "Ctrl-C ends",
            flush=True,
        )
        if dreaming:
            stage.sleep()
        run(Show(stage, hands, title), audience)
    except KeyboardInterrupt:
        print("\nended", file=sys.stderr, flush=True)
    finally:
        doors.close()


def run(show: Show, audience: Audience, *, fps: float = FPS, ended: threading.Event | None = None) -> None:
    """Go on while somebody looks, show what changes, and do what they say, until `ended`."""
    next_at = time.monotonic()
    while ended is None or not ended.is_set():
        idle = show.paused or not len(audience)
        said = audience.taken(0.2 if idle else max(0.0, next_at - time.monotonic()))
        for message in said:
            show.obey(message)
        moved = bool(len(audience)) and (show.once or time.monotonic() >= next_at) and show.due()
        if moved:
            show.stage.go_on(show.hands)
            next_at = time.monotonic() + 1 / fps
        if moved or said:
            audience.show(show.frame())
