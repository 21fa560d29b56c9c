"""What a user calls an agent -> the folder that holds it: a folder, `pretrained:NAME`, or `hf:ORG/NAME[@revision]`.

This is the one place where names are resolved. Commands that leave something behind work in a copy of the user's own,
runs/pretrained/NAME or runs/hf/ORG/NAME: nothing is written into this package's folder or into the hub's cache.
"""

from __future__ import annotations

import os
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from wm_core.errors import UserError

from wm_run import durable, published
from wm_run.reading import unknown
from wm_run.stop import say
from wm_run.trust import TRUST

PRETRAINED, HUB = "pretrained:", "hf:"
HOME = "runs"


def named(name: str | Path) -> bool:
    """Whether it is no folder but the name of a published agent.

    >>> named("pretrained:catch"), named("hf:someone/catch@v1"), named("runs/catch")
    (True, True, False)
    """
    return str(name).startswith((PRETRAINED, HUB))


def found(name: str | Path) -> Path:
    """The folder of an agent, downloaded where it is named `hf:`. Raises UserError for a name of nothing.

    >>> found("runs/catch").as_posix()
    'runs/catch'
    """
    text = str(name)
    if text.startswith(PRETRAINED):
        return _pretrained(text.removeprefix(PRETRAINED))
    if text.startswith(HUB):
        from wm_run import hub

        return hub.fetched(text.removeprefix(HUB))
    return Path(name)


def copied(name: str | Path) -> Path:
    """The same for a command that leaves results: of a published agent the user's copy, brought up to date."""
    source = found(name)
    if not named(name):
        return source
    about = published.checked(source)
    scheme, _, rest = str(name).partition(":")
    folder = Path(HOME, scheme, *rest.split("/"))
    texts = {name: published.content(source, name, facts["bytes"]) for name, facts in about["files"].items()}
    texts[published.ABOUT] = (source / published.ABOUT).read_bytes()  # last: the others are what it says
    durable.make_folder(folder)
    for file, text in texts.items():
        path = folder / file
        if not path.is_file() or path.is_symlink() or path.read_bytes() != text:
            draft = folder / f".{os.getpid()}-{file}"
            draft.write_bytes(text)
            draft.replace(path)
    if (source / published.CARD).is_file():
        shutil.copyfile(source / published.CARD, folder / published.CARD)
    say(f"{name}: a copy lies in {folder}, and what is made of it goes there")
    return folder


def check_app(folder: Path, name: str) -> None:
    """Before a module is imported because a folder names it as its app: only an app that is installed as one (wm-app-NAME),
    since any module has a name; unless the user said that they trust it. Raises UserError."""
    if os.environ.get(TRUST) == "1" and not published.there(folder):
        return
    try:
        version(f"wm-app-{name.replace('_', '-')}")
    except (PackageNotFoundError, ValueError) as error:
        way = "" if published.there(folder) else ", or, if it is a module of your own, give --trust"
        raise UserError(
            f"{folder} holds an agent of {name!r}, which is not installed here (wm-app-{name.replace('_', '-')}): install "
            f"it{way}"
        ) from error


def shelf() -> Path | None:
    """The folder `pretrained` of the checkout that this is run from; None where there is none."""
    for root in (Path(__file__).resolve().parents[4], Path.cwd()):
        folder = root / "pretrained"
        if any(folder.glob(f"*/{published.ABOUT}")):
            return folder
    return None


def _pretrained(name: str) -> Path:
    folder = shelf()
    if folder is None:
        raise UserError(
            f"{PRETRAINED}{name} lies in the folder pretrained/ of the repository, which is not here: work in a clone of it, or "
            "name a folder or hf:ORG/NAME"
        )
    known = {path.parent.name: path.parent for path in sorted(folder.glob(f"*/{published.ABOUT}"))}
    if name not in known:
        raise UserError(unknown("pretrained agent", name, known))
    return known[name]
