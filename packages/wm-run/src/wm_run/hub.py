"""hf:ORG/NAME[@revision] <-> a published agent's folder, by huggingface_hub, which is imported here and nowhere else.

A download takes the files of a published agent by name and no other: what else lies in a repository stays there. What
came once is in the library's cache, and is used where there is no network. HF_ENDPOINT, HF_TOKEN, HF_HOME and
HF_HUB_OFFLINE are the library's own.
"""

from __future__ import annotations

import os
import re
import socket
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from wm_core.errors import UserError

from wm_run import published
from wm_run.published import ABOUT, CARD

PATIENCE = 5.0  # seconds within which whoever is there takes a call
NAME = re.compile(r"([\w-][\w.-]*/[\w-][\w.-]*)(?:@([\w./-]+))?")


class HubError(UserError):
    """What a user can do about it is in the sentence."""


def split(name: str) -> tuple[str, str | None]:
    """ORG/NAME and the revision. Raises HubError.

    >>> split("someone/catch@v1"), split("someone/catch")
    (('someone/catch', 'v1'), ('someone/catch', None))
    >>> split("../catch")
    Traceback (most recent call last):
    wm_run.hub.HubError: hf:../catch names no repository: write hf:ORG/NAME, or hf:ORG/NAME@REVISION
    """
    match = NAME.fullmatch(name)
    if match is None or ".." in name:
        raise HubError(f"hf:{name} names no repository: write hf:ORG/NAME, or hf:ORG/NAME@REVISION")
    return match[1], match[2]


def fetched(name: str) -> Path:
    """The folder of a published agent in the hub's cache. Raises HubError, or PublishedError for what is none."""
    repository, revision = split(name)
    library = _library()
    cached = not _reachable()
    with _hub_errors(f"hf:{name}", "read"):

        def get(file: str, at: str | None) -> Path:
            return Path(library.hf_hub_download(repository, file, revision=at, local_files_only=cached))

        about = get(ABOUT, revision)
        folder = about.parent  # snapshots/<commit>: whatever moves meanwhile, the other files are of this commit
        facts = published.parsed(_read(about), f"{ABOUT} of hf:{name}")
        for file in facts["files"]:
            get(file, folder.name)
        _possibly(lambda: get(CARD, folder.name))
    return folder


def _reachable() -> bool:
    """Whether anybody takes a call where the hub is; the library would find out by half a minute of trying. Behind a proxy, and
    where it is told to stay at home, it knows best itself."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE or urllib.request.getproxies():
        return True
    try:
        where = urlsplit(constants.ENDPOINT)
        port = where.port or {"http": 80}.get(where.scheme, 443)
    except ValueError as error:
        raise HubError(f"HF_ENDPOINT is {constants.ENDPOINT}, which is no address ({_line(error)})") from error
    try:
        socket.create_connection((where.hostname or "", port), PATIENCE).close()
    except OSError:
        return False
    return True


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(published.LONGEST + 1)


def _possibly(get: Callable[[], Any]) -> None:
    """Without its card an agent plays as well."""
    from huggingface_hub.errors import EntryNotFoundError

    try:
        get()
    except EntryNotFoundError:
        return


def sent(name: str, files: Mapping[str, bytes], message: str, *, private: bool) -> str:
    """Upload these files, and nothing else, as one commit of the repository, which is made where it is not there. Returns
    the commit. Raises HubError."""
    repository, revision = split(name)
    library = _library()
    with _hub_errors(f"hf:{name}", "write to"):
        api = library.HfApi()
        api.create_repo(repository, exist_ok=True, private=private or None)
        adds = [library.CommitOperationAdd(path_in_repo=file, path_or_fileobj=text) for file, text in files.items()]
        done = api.create_commit(repository, adds, commit_message=message, revision=revision)
    return str(done.oid)


def _library() -> Any:
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # they would lie between the lines of a command
    try:
        import huggingface_hub
    except ModuleNotFoundError as error:
        if error.name != "huggingface_hub":
            raise
        raise HubError("agents of a hub need the package huggingface_hub: install wm-run[hub]") from error
    return huggingface_hub


@contextmanager
def _hub_errors(name: str, verb: str) -> Iterator[None]:
    """Raises HubError for what the library raises inside, by what it is about."""
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError as error:
        raise HubError(
            f"cannot {verb} {name}: its owner lets in only who asked, on its page, and is logged in"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise HubError(
            f"cannot {verb} {name}: there is no such repository, or it is private: look at the name, or log in with "
            "`hf auth login`, or set HF_TOKEN"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise HubError(
            f"{name}: the repository has no such revision: name a branch, a tag or a commit of it"
        ) from error
    except errors.LocalEntryNotFoundError as error:  # also where the hub answered, and neither yes nor no
        if isinstance(error.__cause__, errors.HfHubHTTPError):
            raise HubError(_refusal(error.__cause__, name, verb)) from error
        raise HubError(
            f"cannot reach the hub for {name}, and it is not in the cache: try again with a network, or name a folder"
        ) from error
    except errors.EntryNotFoundError as error:
        what = "the file that an agent of ours begins with" if ABOUT in str(error) else "one of the files that it names"
        raise HubError(f"{name} is no agent that `publish` wrote: {what} is not there") from error
    except (errors.HFValidationError, errors.HfUriError) as error:
        raise HubError(f"{name} names no repository: write hf:ORG/NAME, or hf:ORG/NAME@REVISION") from error
    except errors.HfHubHTTPError as error:
        raise HubError(_refusal(error, name, verb)) from error
    except errors.FileMetadataError as error:
        raise HubError(f"cannot {verb} {name}: what answers there is no hub: look at HF_ENDPOINT") from error
    except (ConnectionError, TimeoutError) as error:
        raise HubError(f"cannot reach the hub for {name} ({_line(error)}): try again later") from error
    except Exception as error:
        if getattr(error, "user_error", False) or not _of_network(error):
            raise
        raise HubError(f"cannot reach the hub for {name} ({_line(error)}): try again later") from error


def _refusal(error: Any, name: str, verb: str) -> str:
    """What a hub meant that answered with a status."""
    status = getattr(error.response, "status_code", None)
    if status in (401, 403):
        return f"cannot {verb} {name}: log in with `hf auth login`, or set HF_TOKEN to one that may"
    return f"cannot {verb} {name}: the hub answered {status or _line(error)}: try again later"


def _of_network(error: Exception) -> bool:
    """Whether it comes from the library's HTTP client, whichever that is in this version."""
    return type(error).__module__.partition(".")[0] in ("httpx", "httpx2", "httpcore", "httpcore2", "requests")


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:120]
