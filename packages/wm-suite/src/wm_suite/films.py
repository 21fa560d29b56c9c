"""A run folder's newest films and pictures -> figures of a page, each in the page itself."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass
from html import escape
from pathlib import Path

MEDIA_BYTES = 3_000_000  # of one film; a longer one is named and left out


@dataclass(frozen=True)
class Film:
    """One file: data is None where it is too long for a page."""

    path: str
    size: int
    data: bytes | None

    @property
    def name(self) -> str:
        return Path(self.path).stem

    @property
    def sha256(self) -> str | None:
        return None if self.data is None else hashlib.sha256(self.data).hexdigest()


def newest(logdir: Path) -> list[Path]:
    """The newest film and picture of each kind in the folder of a run. No link is followed: what it shows is not the
    run's, and the page may be given away."""
    found: dict[tuple[str, str], Path] = {}
    folder = logdir / "video"
    files = [] if folder.is_symlink() else [one for one in folder.glob("*") if one.is_file() and not one.is_symlink()]
    for path in sorted(files, key=lambda one: (len(one.stem), one.stem)):
        if path.suffix in (".mp4", ".png") and re.fullmatch(r"[^.-][^-]*-[0-9]+", path.stem):  # the run's own
            found[path.stem.partition("-")[0], path.suffix] = path
    return sorted(found.values())


def film(path: Path) -> Film:
    """The file, read where it is not too long."""
    size = path.stat().st_size
    return Film(str(path), size, path.read_bytes() if size <= MEDIA_BYTES else None)


def figure(one: Film, about: str = "") -> str:
    """HTML of a film or a picture with its name; about: what it shows, for those who do not see it."""
    name = escape(one.name)
    if one.data is None:
        return f"<figure><figcaption>{name}: {one.size / 1e6:.1f} MB, left out; see {escape(one.path)}</figcaption></figure>"
    data, alt = base64.b64encode(one.data).decode(), escape(about or one.name, quote=True)
    if one.path.endswith(".png"):
        return f'<figure><img alt="{alt}" src="data:image/png;base64,{data}"><figcaption>{name}</figcaption></figure>'
    label = f' aria-label="{alt}"' if about else ""
    return (
        f'<figure><video controls muted loop playsinline{label} src="data:video/mp4;base64,{data}"></video>'
        f"<figcaption>{name}</figcaption></figure>"
    )
