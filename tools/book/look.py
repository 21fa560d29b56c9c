# /// script
# requires-python = ">=3.11"
# dependencies = ["pyside6>=6.9"]
# ///
# mypy: ignore-errors
"""Look at the built site in Chromium, the one in Qt's WebEngine: light, dark and narrow; needs no screen.

uv run tools/book/look.py SITE OUT [PAGE ...]    pictures into OUT; says what was asked of elsewhere, what the console told,
                                                 which page is wider than its window, and texts whose contrast is below 4.5

PySide6 is large and of no other use here, therefore it is this script's own and no part of the locked environment.
"""

from __future__ import annotations

import functools
import http.server
import json
import os
import pathlib
import sys
import threading
from typing import Any

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
os.environ.setdefault("QTWEBENGINE_CHROMIUM_FLAGS", "--no-sandbox --disable-gpu")

from PySide6.QtCore import QEventLoop, QTimer, QUrl
from PySide6.QtWebEngineCore import QWebEnginePage, QWebEngineProfile, QWebEngineUrlRequestInterceptor
from PySide6.QtWebEngineWidgets import QWebEngineView
from PySide6.QtWidgets import QApplication

PAGES = [
    "index",
    "environment",
    "methods/dreamer",
    "methods/storm",
    "commands/index",
    "api/wm-core",
    "results/speed",
    "apps/r2i",
]
WAYS = {"light": (1280, 900, "default"), "dark": (1280, 900, "slate"), "narrow": (390, 844, "default")}
# of every visible text: its colour against the first background that is not transparent
CONTRAST = """(() => {
  const part = c => { c /= 255; return c <= .03928 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4 };
  const read = s => (s.match(/[\\d.]+/g) || []).map(Number);
  const light = c => .2126 * part(c[0]) + .7152 * part(c[1]) + .0722 * part(c[2]);
  const over = (top, under) => top.slice(0, 3).map((v, i) => v * (top[3] ?? 1) + under[i] * (1 - (top[3] ?? 1)));
  const found = {};
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node; (node = walk.nextNode());) {
    const at = node.parentElement, box = at.getBoundingClientRect();
    if (!node.textContent.trim() || !box.width || !box.height || box.top > 2000) continue;
    const style = getComputedStyle(at);
    if (style.visibility !== 'visible' || style.opacity === '0' || at.closest('script,style,noscript')) continue;
    const layers = [];
    for (let up = at; up; up = up.parentElement) layers.push(read(getComputedStyle(up).backgroundColor));
    let under = [255, 255, 255];
    for (const one of layers.reverse()) if (one.length && (one[3] ?? 1) > 0) under = over(one, under);
    const a = light(over(read(style.color), under)), b = light(under);
    const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    const big = parseFloat(style.fontSize) >= 24 || (parseFloat(style.fontSize) >= 18.66 && style.fontWeight >= 700);
    if (ratio < (big ? 3 : 4.5)) found[at.tagName + '.' + at.className] = [ratio.toFixed(2), node.textContent.trim().slice(0, 30)];
  }
  return JSON.stringify({found, wide: document.documentElement.scrollWidth - innerWidth});
})()"""


class Requests(QWebEngineUrlRequestInterceptor):
    """Everything that a page asks for."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def interceptRequest(self, info: Any) -> None:
        self.seen.append(info.requestUrl().toString())


class Page(QWebEnginePage):
    """A page whose console is kept."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.console: list[str] = []

    def javaScriptConsoleMessage(self, level: Any, message: str, line: int, source: str) -> None:
        self.console.append(f"{message} ({source}:{line})")


def wait(milliseconds: int) -> None:
    loop = QEventLoop()
    QTimer.singleShot(milliseconds, loop.quit)
    loop.exec()


def asked(page: QWebEnginePage, script: str) -> Any:
    loop, found = QEventLoop(), []

    def take(value: Any) -> None:
        found.append(value)
        loop.quit()

    page.runJavaScript(script, 0, take)
    QTimer.singleShot(20_000, loop.quit)
    loop.exec()
    return found[0] if found else None


def main() -> None:
    site, out, *pages = sys.argv[1:]
    folder = pathlib.Path(out)
    folder.mkdir(parents=True, exist_ok=True)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=site))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    home = f"http://127.0.0.1:{server.server_port}/"
    app, profile, requests = QApplication(sys.argv[:1]), QWebEngineProfile(), Requests()
    profile.setUrlRequestInterceptor(requests)
    page = Page(profile)
    view = QWebEngineView()
    view.setPage(page)
    faults: list[str] = []
    for way, (width, height, scheme) in WAYS.items():
        view.resize(width, height)
        view.show()
        for name in pages or [f"{one}.html" for one in PAGES]:
            loop = QEventLoop()
            page.loadFinished.connect(loop.quit)
            page.load(QUrl(home + name))
            QTimer.singleShot(60_000, loop.quit)
            loop.exec()
            asked(page, f"document.querySelector('input[data-md-color-scheme={scheme}]').click()")
            wait(1500)
            view.grab().save(str(folder / f"{way}-{name.replace('/', '-').removesuffix('.html')}.png"))
            measured = json.loads(asked(page, CONTRAST) or "{}")
            faults += [
                f"{way} {name}: contrast {ratio} of {words!r} ({at})"
                for at, (ratio, words) in measured["found"].items()
            ]
            faults += [f"{way} {name}: {measured['wide']} pixels wider than its window"] if measured["wide"] > 0 else []
    faults += [f"the console says: {one}" for one in page.console]
    elsewhere = {one for one in requests.seen if not one.startswith((home, "data:", "blob:"))}
    faults += [f"asked of elsewhere: {one}" for one in sorted(elsewhere)]
    view.setPage(None)
    server.shutdown()
    del page, app
    if faults:
        sys.exit("\n".join(faults))
    print(f"{len(pages or PAGES)} pages, {', '.join(WAYS)}: nothing to say")


if __name__ == "__main__":
    main()
