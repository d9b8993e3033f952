"""Who may ask: the checks that every request passes before anything reads it, and the headers of every answer.

A page of another site in the same browser is the attacker: it can send requests here and cannot read the answers,
unless it makes its own name point here (DNS rebinding). So the Host must be ours, Origin and Sec-Fetch-Site must be
ours where the browser sends them, and all but the page's own files needs the token of this start, which only a header
carries.
"""

import hashlib
import hmac
import json
import re
import time
from collections.abc import Mapping
from typing import Any

Scope = Any
"""ASGI's scope, receive and send."""

PICTURE_BYTES = 64 << 20
"""Most bytes of an uploaded image, as `rizbin.data.image_io` takes it."""
JSON_BYTES = 1 << 20
"""Most bytes of any other request."""
TICKET_SECONDS = 60
"""A link to a report is good for so long."""
_HIDDEN = re.compile(rb"%(?:2e|2f|5c|00|25)|\\|\.\.|//", re.IGNORECASE)
"""What no path of the page holds: dots, slashes and percent signs in another spelling."""

PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Policy of the page: everything in it comes from this server."""
REPORT_POLICY = (
    "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Policy of a report, one file with its style and script inside: a sandbox, where it has no origin."""


class _TooLarge(Exception):
    """More of a body came than may."""


class Guard:
    """ASGI middleware: refuses by 403 (another host or origin), 401 (no token), 404 (odd paths), 413 (large bodies)."""

    def __init__(self, app: Any, *, hosts: frozenset[str], token: str) -> None:
        """hosts: allowed values of the Host header, with port. token: what `X-Rizbin-Token` must hold."""
        self.app, self.hosts, self.token = app, hosts, token

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        refusal = self._refusal(scope)
        if refusal is not None:
            await _answer(send, *refusal)
            return
        begun = False

        async def sends(message: dict[str, Any]) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                message = {**message, "headers": _with_headers(scope["path"], message.get("headers", []))}
            await send(message)

        try:
            await self.app(scope, _counted(receive, _most(scope["path"])), sends)
        except _TooLarge:
            if not begun:
                await _answer(send, 413, "This is more than is taken at once.")

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        """Status and sentence for what is not answered."""
        headers: dict[bytes, list[bytes]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.lower(), []).append(value)
        hosts = headers.get(b"host", [])
        if len(hosts) != 1 or hosts[0].decode("latin-1").lower() not in self.hosts:
            return 403, "This address is not served here."
        own = f"http://{hosts[0].decode('latin-1').lower()}"
        if any(value.decode("latin-1").lower() != own for value in headers.get(b"origin", [])):
            return 403, "A page of another site asked."
        path, api = scope["path"], scope["path"].startswith("/api/")
        sites = headers.get(b"sec-fetch-site", [])
        if any(value not in (b"same-origin", *(() if api else (b"none",))) for value in sites):
            return 403, "A page of another site asked."
        raw = scope.get("raw_path") or path.encode("utf-8", "replace")
        if _HIDDEN.search(raw) or any(ord(letter) < 32 or ord(letter) > 126 for letter in path):
            return 404, "There is nothing here."
        tokens = headers.get(b"x-rizbin-token", [])
        if api and not (len(tokens) == 1 and hmac.compare_digest(tokens[0], self.token.encode())):
            return 401, "Open the link that `rizbin studio` printed: it holds the token of this start."
        lengths = headers.get(b"content-length", [])
        if any(not value.isdigit() or int(value) > _most(path) for value in lengths):
            return 413, "This is more than is taken at once."
        return None


def ticket(token: str, name: str, *, now: float | None = None) -> str:
    """What opens one report for a minute without a header, as a new tab cannot send any: EXPIRY-SIGNATURE."""
    expiry = int((time.time() if now is None else now) + TICKET_SECONDS)
    signature = hmac.new(token.encode(), f"{expiry} {name}".encode(), hashlib.sha256).hexdigest()
    return f"{expiry}-{signature}"


def is_valid(token: str, name: str, given: str) -> bool:
    """Whether the ticket is one of this start, for this name, and not over."""
    expiry, _, signature = given.partition("-")
    if not expiry.isdigit() or len(expiry) > 12 or int(expiry) < time.time():
        return False
    right = hmac.new(token.encode(), f"{int(expiry)} {name}".encode(), hashlib.sha256).hexdigest()
    return hmac.compare_digest(signature.encode(), right.encode())


def _most(path: str) -> int:
    return PICTURE_BYTES if path == "/api/pictures" else JSON_BYTES


def _counted(receive: Any, most: int) -> Any:
    """`receive` that raises once more than `most` bytes of a body have come, whatever was announced."""
    came = 0

    async def receives() -> Mapping[str, Any]:
        nonlocal came
        message = await receive()
        came += len(message.get("body", b""))
        if came > most:
            raise _TooLarge
        return message

    return receives


def _with_headers(path: str, headers: list[Any]) -> list[Any]:
    policy = REPORT_POLICY if path.startswith("/report/") else PAGE_POLICY
    caching = b"no-store" if path.startswith(("/api/", "/report/")) else b"no-cache"
    return [
        *headers,
        (b"content-security-policy", policy.encode()),
        (b"x-content-type-options", b"nosniff"),
        (b"referrer-policy", b"no-referrer"),
        (b"cross-origin-opener-policy", b"same-origin"),
        (b"cross-origin-resource-policy", b"same-origin"),
        (b"permissions-policy", b"camera=(), microphone=(), geolocation=()"),
        (b"cache-control", caching),
    ]


async def _answer(send: Any, status: int, sentence: str) -> None:
    body = json.dumps({"error": sentence}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    # What is left of a body that was refused is not read: the connection ends.
    headers = _with_headers("/api/", [*headers, (b"connection", b"close")])
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
