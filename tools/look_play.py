# /// script
# requires-python = ">=3.11"
# dependencies = ["pyside6>=6.9"]
# ///
# mypy: ignore-errors
"""Play in the page of `play --browser` as a user would, in Chromium (Qt's WebEngine); needs no screen.

uv run tools/look_play.py ADDRESS OUT    keys move, a dream begins and ends, one step is one; pictures into OUT, light, dark and
                                         narrow; prints what was found as one line of JSON
"""

from __future__ import annotations

import json
import pathlib
import sys
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).parent / "book"))

from look import CONTRAST, Page, Requests, asked, wait
from PySide6.QtCore import QEventLoop, Qt, QTimer, QUrl
from PySide6.QtTest import QTest
from PySide6.QtWebEngineCore import QWebEngineProfile, QWebEngineSettings
from PySide6.QtWebEngineWidgets import QWebEngineView
from PySide6.QtWidgets import QApplication

PATIENCE = 100  # times a fifth of a second
NAMES = "[...document.querySelectorAll('button,input,select')].filter(one => !one.closest('[hidden]') && "
UNNAMED = NAMES + "!(one.textContent.trim() || one.getAttribute('aria-label') || one.labels?.length)).length"


def main() -> None:
    address, out = sys.argv[1:]
    folder = pathlib.Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    _app, profile, requests = QApplication(sys.argv[:1]), QWebEngineProfile(), Requests()
    profile.setUrlRequestInterceptor(requests)
    page, view, found = Page(profile), QWebEngineView(), dict[str, Any]()
    view.setPage(page)
    view.resize(900, 900)
    view.show()

    def until(script: str, what: str) -> None:
        for _ in range(PATIENCE):
            if asked(page, script):
                found[what] = True
                return
            wait(200)
        found[what] = False

    def press(key: Any, down: bool | None = None) -> None:
        at = view.focusProxy() or view
        if down is None:
            QTest.keyClick(at, key)
        else:
            (QTest.keyPress if down else QTest.keyRelease)(at, key)
        wait(200)

    loop = QEventLoop()
    page.loadFinished.connect(loop.quit)
    page.load(QUrl(address))
    QTimer.singleShot(60_000, loop.quit)
    loop.exec()
    until("document.getElementById('told').textContent === 'you are at the wheel'", "wheel")
    until("frame.t > 0 && frame.who === 'policy' && !!document.getElementById('seen').src", "policy")
    press(Qt.Key.Key_0, True)
    until("frame.who === 'you' && frame.t > 0", "keys")
    press(Qt.Key.Key_0, False)
    until("frame.who === 'policy' && frame.t > 0", "released")
    press(Qt.Key.Key_Space)
    until("frame.paused && document.getElementById('where').textContent === 'real, paused'", "paused")
    if asked(page, "!!frame.recalled"):  # of an agent that remembers: what a dream shows is of where it began
        until("frame.recalled.steps.length === document.querySelectorAll('#recalled li').length", "recalled")
        found["recalled frames"] = asked(
            page, "[...document.querySelectorAll('#recalled img')].filter(one => one.naturalWidth).length"
        )
    found["remembers"] = not asked(page, "document.getElementById('memory').hidden")
    if asked(page, "frame.over"):
        press(Qt.Key.Key_Period)
    until("(window.before = frame.t, !frame.over)", "stands")
    for way, dark, width in (("light", False, 900), ("dark", True, 900), ("narrow", False, 390)):
        page.settings().setAttribute(QWebEngineSettings.WebAttribute.ForceDarkMode, False)
        if dark:  # the page's own dark rules, as a dark system selects them
            asked(
                page,
                "[...document.styleSheets[0].cssRules].forEach(one => { if (one.media && one.conditionText.includes('dark')) "
                "one.media.mediaText = 'all' }); document.documentElement.style.colorScheme = 'dark'; true",
            )
        elif way == "narrow":
            asked(
                page,
                "[...document.styleSheets[0].cssRules].forEach(one => { if (one.media && one.conditionText === 'all') "
                "one.media.mediaText = 'not all' }); document.documentElement.style.colorScheme = ''; true",
            )
        view.resize(width, 900)
        wait(700)
        seen = json.loads(asked(page, CONTRAST) or "{}")
        found[f"{way} contrast"], found[f"{way} wide"] = seen.get("found"), seen.get("wide")
        if way == "dark":
            press(Qt.Key.Key_Comma)
            until("frame.dreaming && frame.t === before", "dreaming")
            press(Qt.Key.Key_Period)
            until("frame.imagined && frame.t === before + 1 && document.getElementById('seen').hidden", "dreamed")
            wait(300)
        view.grab().save(str(folder / f"{way}.png"))
        if way == "dark":
            press(Qt.Key.Key_Comma)
            until("!frame.dreaming && frame.t === before", "woken")
    found["unnamed"] = asked(page, UNNAMED)
    found["alts"] = asked(page, "[...document.images].filter(one => !one.hidden && !one.alt).length")
    press(Qt.Key.Key_Tab)
    found["focus"] = asked(page, "document.activeElement.tagName")
    found["console"] = page.console
    found["elsewhere"] = [
        one for one in requests.seen if not one.startswith(("http://127.0.0.1:", "ws://127.0.0.1:", "data:"))
    ]
    print(json.dumps(found), flush=True)
    view.setPage(None)


if __name__ == "__main__":
    main()
