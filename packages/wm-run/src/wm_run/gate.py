"""Who may open the page: a request with the token, from this machine's own loopback name, and from no other page.

A page of another site cannot read the token, but it can ask a browser to open an address: hence Host and Origin too.
"""

from __future__ import annotations

import hmac
import secrets
from urllib.parse import parse_qs, urlsplit

NAMES = ("127.0.0.1", "localhost", "[::1]")


def new_token() -> str:
    """128 bits, as an address can carry them."""
    return secrets.token_urlsafe(16)


def refusal(token: str, path: str, host: str, origin: str | None) -> str:
    """Why a request is refused, in a sentence, or nothing.

    path: with its query; host and origin: the headers. What is compared with the token takes as long wherever it differs.

    >>> refusal("secret", "/?token=secret", "localhost:8000", None)
    ''
    >>> refusal("secret", "/?token=wrong", "localhost:8000", None)
    'the token in this address is missing or wrong: open the whole address that `play --browser` printed'
    >>> refusal("secret", "/live?token=secret", "127.0.0.1:8000", "http://elsewhere.example")
    'this page answers to its own address alone, not to http://elsewhere.example'
    >>> refusal("secret", "/?token=secret", "elsewhere.example", None)
    'this page is found at 127.0.0.1 or localhost, not at elsewhere.example: forward its port by ssh'
    """
    given = parse_qs(urlsplit(path).query).get("token", [""])[0]
    if not hmac.compare_digest(given.encode(), token.encode()):
        return "the token in this address is missing or wrong: open the whole address that `play --browser` printed"
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
    if name not in NAMES:
        return f"this page is found at 127.0.0.1 or localhost, not at {host[:100]}: forward its port by ssh"
    if origin is not None and origin != f"http://{host}":
        return f"this page answers to its own address alone, not to {origin[:100]}"
    return ""
