"""play --browser: keys reach the environment, a dream begins at any frame, and nobody without the token sees anything."""

from __future__ import annotations

import json
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect
from wm_core.errors import UserError
from wm_run import browser as browser_module
from wm_run.audience import WATCHING, WHEEL, Audience, Gone, Seat
from wm_run.browser import Doors, Show
from wm_run.cli import main
from wm_run.observer import Observer
from wm_run.stage import Stage
from wm_run.window import Keyboard


@pytest.fixture
def stage(fakes: Any, agent: Any) -> Stage:
    return Stage(Observer(agent, "image", seed=3), fakes.envs(1), seed=3)


@pytest.fixture(autouse=True)
def endless(monkeypatch: pytest.MonkeyPatch) -> None:
    """An untrained model expects the end at any step."""
    monkeypatch.setattr("wm_run.stage.OVER", -1.0)


@pytest.fixture
def served(stage: Stage) -> Iterator[Any]:
    """The stage behind its doors, with what a test needs of it."""
    audience, ended = Audience(), threading.Event()
    doors, show = Doors(audience, 0), Show(stage, Keyboard((3,), 0), "catch")
    playing = threading.Thread(target=browser_module.run, args=(show, audience), kwargs={"fps": 200.0, "ended": ended})
    playing.start()
    yield SimpleNamespace(
        stage=stage,
        show=show,
        audience=audience,
        doors=doors,
        live=doors.address.replace("http", "ws").replace("/?", "/live?"),
    )
    ended.set()
    playing.join()
    doors.close()


@pytest.mark.parametrize(("error", "told"), [(Gone(), 0), (TypeError("a fault of ours"), 1)])
def test_a_reader_that_is_gone_is_no_fault_and_anything_else_is_told(error, told, monkeypatch) -> None:
    heard: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", heard.append)

    def send(message: str) -> None:
        raise error

    before = set(threading.enumerate())
    seat = Seat(send)
    (thread,) = set(threading.enumerate()) - before
    seat.give("{}")
    thread.join(5)
    assert not thread.is_alive() and len(heard) == told


def said(browser: Any, **message: Any) -> None:
    browser.send(json.dumps(message))


def frame(browser: Any, wanted: Any = lambda found: True) -> dict[str, Any]:
    """The next frame that is wanted."""
    for _ in range(2000):
        found = json.loads(browser.recv(timeout=60))
        if "wheel" not in found and wanted(found):
            return dict(found)
    raise AssertionError("no such frame")


def wheel(browser: Any) -> dict[str, Any]:
    while "wheel" not in (found := json.loads(browser.recv(timeout=60))):
        pass
    return dict(found)


def until(true: Any) -> None:
    for _ in range(6000):
        if true():
            return
        time.sleep(0.01)
    raise AssertionError("it never was")


# ---- the stage


def test_a_dream_begins_at_any_step_and_ends_where_it_began(stage: Stage) -> None:
    for _ in range(2):
        stage.go_on()
    real, calls = stage.now, stage.envs.calls
    stage.horizon = 3
    assert stage.sleep().t == real.t and stage.now.seen is real.seen
    dreamed = [stage.go_on() for _ in range(3)]
    assert [one.imagined for one in dreamed] == [True] * 3 and dreamed[-1].over and stage.envs.calls == calls
    assert [one.t for one in dreamed] == [real.t + 1, real.t + 2, real.t + 3]
    assert [one.score for one in dreamed] == pytest.approx(np.cumsum([one.predicted.reward for one in dreamed]))
    assert stage.go_on() is real and stage.go_on().seen is not None and stage.envs.calls == calls + 1


def test_a_dream_that_is_left_leaves_the_real_steps_as_they_were(fakes: Any, agent: Any) -> None:
    """The environment's steps depend on actions alone, so under held keys the two are the same."""

    def scores(dreams: bool) -> list[float]:
        stage = Stage(Observer(agent, "image", seed=3), fakes.envs(1), seed=3)
        hands, found = Keyboard((3,), 0), []
        hands.held = ["1"]
        for _ in range(12):
            if dreams and not stage.now.over:
                stage.sleep()
                stage.go_on(hands)
                stage.wake()
            found.append(stage.go_on(hands).score)
        return found

    assert scores(True) == scores(False)


# ---- over the socket


def test_held_keys_act_and_the_policy_acts_without(served: Any) -> None:
    with connect(served.live) as browser:
        assert frame(browser, lambda found: found["t"] > 0)["who"] == "policy"
        said(browser, keys=["2"])
        found = frame(browser, lambda found: found["who"] == "you" and found["t"] > 0)
        assert served.stage.envs.last["action"][0].tolist() == [0, 0, 1] or found["over"]
        said(browser, keys=[])
        frame(browser, lambda found: found["who"] == "policy" and found["t"] > 0)
        assert found["seen"].startswith("data:image/png;base64,") and found["choices"] == 3 and not found["dreaming"]


def test_real_and_dreamed_are_switched_at_any_frame(served: Any) -> None:
    with connect(served.live) as browser:
        said(browser, pause=True)
        frame(browser, lambda found: found["paused"])
        said(browser, horizon=2, dream=True)
        begun = frame(browser, lambda found: found["dreaming"])
        calls = served.stage.envs.calls
        for k in (1, 2):
            said(browser, step=True)
            found = frame(browser, lambda found, k=k: found["t"] == begun["t"] + k)
            assert found["imagined"] and found["seen"] is None and "arrived" not in found
        assert found["over"] and served.stage.envs.calls == calls
        said(browser, dream=False)
        back = frame(browser, lambda found: not found["dreaming"])
        assert (back["t"], back["seen"]) == (begun["t"], begun["seen"]) and back["paused"]


def test_a_single_step_is_one(served: Any) -> None:
    with connect(served.live) as browser:
        said(browser, pause=True)
        calls = None
        frame(browser, lambda found: found["paused"])
        calls = served.stage.envs.calls
        said(browser, step=True)
        assert frame(browser, lambda found: found["paused"]) and served.stage.envs.calls == calls + 1
        time.sleep(0.1)
        assert served.stage.envs.calls == calls + 1


def test_a_second_browser_watches_and_is_told_so_and_follows(served: Any) -> None:
    with connect(served.live) as driver:
        assert wheel(driver) == {"wheel": True, "told": WHEEL}  # known to have come before the others do
        with connect(served.live) as guest:
            assert not wheel(guest)["wheel"]
        with connect(served.live) as other:
            assert wheel(other) == {"wheel": False, "told": WATCHING}
            said(other, pause=True, keys=["2"])
            frame(other), frame(other)
            assert not served.show.paused and not served.show.hands.held
            driver.close()
            assert wheel(other)["wheel"]
            said(other, pause=False)
            frame(other, lambda found: not found["paused"])
        with pytest.raises(ConnectionClosed):
            guest.send("x")


def test_a_closed_socket_pauses_lets_the_keys_go_and_may_come_back(served: Any) -> None:
    with connect(served.live) as browser:
        said(browser, keys=["2"])
        frame(browser, lambda found: found["who"] == "you")
        browser.socket.shutdown(socket.SHUT_RDWR)  # no word of farewell
    until(lambda: served.show.paused)
    calls = served.stage.envs.calls
    time.sleep(0.1)
    assert served.stage.envs.calls == calls and served.show.hands.held == []
    with connect(served.live) as again:
        assert wheel(again)["wheel"] and frame(again)["paused"]


@pytest.mark.parametrize(
    "message",
    [
        "",
        "{",
        "[]",
        "7",
        '{"keys": [[1], {}, "no", 3]}',
        '{"horizon": -1, "agent": 9, "pause": "yes", "dream": 0}',
        "[" * 4000,
    ],
)
def test_what_is_no_message_changes_nothing(served: Any, message: str) -> None:
    with connect(served.live) as browser:
        before = frame(browser)
        browser.send(message)
        browser.send(message.encode() or b"\xff")
        after = frame(browser)
        assert all(before[name] == after[name] for name in ("paused", "dreaming", "horizon", "off", "agent", "title"))
        assert served.show.hands.held == []


# ---- the doors


def get(address: str, **headers: str) -> tuple[int, str, Any]:
    try:
        with urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=60) as answer:
            return answer.status, answer.read().decode(), answer.headers
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(), error.headers


def test_the_page_is_whole_and_names_no_other_address(served: Any) -> None:
    status, page, headers = get(served.doors.address)
    assert status == 200 and "<main>" in page and headers["Content-Type"].startswith("text/html")
    assert "default-src 'none'" in headers["Content-Security-Policy"] and headers["Referrer-Policy"] == "no-referrer"
    assert "http" not in page and "//" not in page.replace("ws://${location.host}", "") and "src=" not in page


@pytest.mark.parametrize("path", ["/", "/?token=", "/?token=wrong", "/live", "/live?token=wrong", "/?token=%FF", "/x"])
def test_without_the_token_nothing_is_shown(served: Any, path: str) -> None:
    status, text, _ = get(f"http://127.0.0.1:{served.doors.port}{path}")
    assert status == 403 and text.count("\n") == 1 and "token in this address is missing or wrong" in text
    with pytest.raises(InvalidStatus) as refused:
        connect(f"ws://127.0.0.1:{served.doors.port}{path}")
    assert refused.value.response.status_code == 403 and not len(served.audience)


def test_another_site_is_refused_though_it_had_the_token(served: Any) -> None:
    with pytest.raises(InvalidStatus) as refused:
        connect(served.live, origin="http://elsewhere.example")  # type: ignore[arg-type]
    assert refused.value.response.status_code == 403 and b"its own address alone" in refused.value.response.body
    status, text, _ = get(served.doors.address, Host="elsewhere.example")
    assert status == 403 and "forward its port by ssh" in text
    here = f"http://127.0.0.1:{served.doors.port}"
    with connect(served.live, origin=here) as browser:  # type: ignore[arg-type]
        assert frame(browser)
    assert get(served.doors.address, Host="localhost:9999")[0] == 200  # a forwarded port is another one


def test_the_server_is_on_loopback_alone(served: Any) -> None:
    assert served.doors._server.socket.getsockname()[0] == "127.0.0.1"  # noqa: SLF001


def test_a_port_that_is_taken_is_one_sentence(served: Any) -> None:
    with pytest.raises(UserError, match=f"port {served.doors.port} cannot be had .*leave --port out"):
        Doors(Audience(), served.doors.port)


# ---- the command


def test_the_command_prints_the_address_and_ends_with_ctrl_c(
    fakes: Any, run: Any, capsys: Any, monkeypatch: Any
) -> None:
    seen = []

    def playing(show: Show, audience: Audience) -> None:
        seen.append(show)
        raise KeyboardInterrupt

    monkeypatch.setattr(browser_module, "run", playing)
    main(fakes.app, ["play", "D", "--browser", "--dream", "--imagined", "7"])
    out = capsys.readouterr().out
    assert "open http://127.0.0.1:" in out and "?token=" in out and "ssh -N -L " in out and not (run / "video").exists()
    assert seen[0].stage.dream is not None and seen[0].stage.horizon == 7
