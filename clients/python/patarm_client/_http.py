"""One JSON request, blocking or on asyncio, with retries where they can help.

The asyncio side speaks HTTP/1.1 over plain streams, one connection a request, rather
than urllib in threads: a cohort's members all wait at the same time, and a thread pool
smaller than a cohort would wait for ever.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from ._errors import PatarmError, from_reply

#: Replies beyond this are refused.
MAX_REPLY_BYTES = 64 << 20
#: Most header lines of a reply.
MAX_HEADERS = 200
#: Longest pause before another try, in seconds.
MAX_PAUSE_S = 10.0


@dataclass(frozen=True)
class Target:
    """Where and how requests go."""

    url: str = "http://127.0.0.1:8400"
    api_key: str | None = None
    #: Longest time for one reply, in seconds.
    timeout_s: float = 180.0
    #: Further tries after an overloaded server (429, 503) or a broken connection.
    retries: int = 4

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"url = {self.url!r}: use http://HOST:PORT or https://HOST:PORT")

    def headers(self) -> dict[str, str]:
        """Headers of every request."""
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self.api_key is not None:
            headers["Authorization"] = f"Bearer {self.api_key}"
        return headers

    def address(self, path: str) -> str:
        """The full address of a route."""
        return self.url.rstrip("/") + path


@dataclass(frozen=True)
class Reply:
    """A reply as read."""

    status: int
    body: bytes
    retry_after_s: float | None = None


def request(target: Target, method: str, path: str, body: Any = None) -> Any:
    """Sends ``body`` as JSON and returns the reply's JSON; blocks."""
    data = None if body is None else _encode(body)
    for attempt in range(target.retries + 1):
        try:
            reply = _send(target, method, path, data)
        except (OSError, ValueError) as error:
            outcome: Reply | OSError | ValueError = error
        else:
            outcome = reply
        pause_s = _pause_s(outcome, attempt, target.retries)
        if pause_s is None:
            return _finish(outcome)
        time.sleep(pause_s)
    raise AssertionError("the last attempt always finishes")


async def request_async(target: Target, method: str, path: str, body: Any = None) -> Any:
    """Like :func:`request`, on asyncio."""
    data = None if body is None else _encode(body)
    for attempt in range(target.retries + 1):
        outcome: Reply | OSError | ValueError
        try:
            outcome = await asyncio.wait_for(
                _send_async(target, method, path, data), target.timeout_s
            )
        except asyncio.TimeoutError:
            outcome = OSError(f"no reply within {target.timeout_s} s")
        except (OSError, ValueError, asyncio.IncompleteReadError) as error:
            outcome = error if isinstance(error, (OSError, ValueError)) else OSError(str(error))
        pause_s = _pause_s(outcome, attempt, target.retries)
        if pause_s is None:
            return _finish(outcome)
        await asyncio.sleep(pause_s)
    raise AssertionError("the last attempt always finishes")


def _encode(body: Any) -> bytes:
    # Lone surrogates, which decoders of broken token sequences produce, are no UTF-8;
    # JSON escapes carry them safely and the server replaces them.
    return json.dumps(body, allow_nan=False).encode("ascii")


def _pause_s(
    outcome: Reply | OSError | ValueError, attempt: int, retries: int
) -> float | None:
    """Seconds to wait before trying again; None to be content with the outcome."""
    if attempt >= retries or isinstance(outcome, ValueError):
        return None
    pause_s = min(0.25 * 2.0**attempt, MAX_PAUSE_S)
    if isinstance(outcome, OSError):
        return pause_s
    if outcome.status not in (429, 503):
        return None
    return min(outcome.retry_after_s or pause_s, MAX_PAUSE_S)


def _finish(outcome: Reply | OSError | ValueError) -> Any:
    if isinstance(outcome, (OSError, ValueError)):
        raise PatarmError(0, "unreachable", str(outcome)) from outcome
    if not 200 <= outcome.status < 300:
        raise from_reply(outcome.status, outcome.body)
    try:
        return json.loads(outcome.body) if outcome.body else None
    except ValueError as error:
        raise PatarmError(outcome.status, "bad_reply", f"not JSON: {error}") from error


def _send(target: Target, method: str, path: str, data: bytes | None) -> Reply:
    call = urllib.request.Request(
        target.address(path), data=data, headers=target.headers(), method=method
    )
    try:
        with urllib.request.urlopen(call, timeout=target.timeout_s) as reply:
            body = reply.read(MAX_REPLY_BYTES + 1)
            return Reply(reply.status, _bounded(body))
    except urllib.error.HTTPError as error:
        with error:
            return Reply(
                error.code,
                _bounded(error.read(MAX_REPLY_BYTES + 1)),
                _seconds(error.headers.get("Retry-After")),
            )


async def _send_async(target: Target, method: str, path: str, data: bytes | None) -> Reply:
    parts = urlsplit(target.address(path))
    is_tls = parts.scheme == "https"
    port = parts.port or (443 if is_tls else 80)
    context = ssl.create_default_context() if is_tls else None
    reader, writer = await asyncio.open_connection(parts.hostname, port, ssl=context)
    try:
        writer.write(_head(target, method, parts, data) + (data or b""))
        await writer.drain()
        return await _read_reply(reader)
    finally:
        writer.close()


def _head(target: Target, method: str, parts: Any, data: bytes | None) -> bytes:
    path = parts.path + (f"?{parts.query}" if parts.query else "")
    lines = [f"{method} {path or '/'} HTTP/1.1", f"Host: {parts.netloc.rpartition('@')[2]}"]
    lines += [f"{name}: {value}" for name, value in target.headers().items()]
    lines += [f"Content-Length: {len(data or b'')}", "Connection: close", "", ""]
    head = "\r\n".join(lines)
    if head.count("\r\n") != len(lines) - 1:
        raise ValueError("a header holds a line break")
    return head.encode("latin-1")


async def _read_reply(reader: asyncio.StreamReader) -> Reply:
    line = (await reader.readline()).decode("latin-1")
    words = line.split(" ", 2)
    if len(words) < 2 or not words[0].startswith("HTTP/1.") or not words[1].isdigit():
        raise OSError(f"no HTTP reply: {line[:60]!r}")
    headers: dict[str, str] = {}
    for _ in range(MAX_HEADERS):
        line = (await reader.readline()).decode("latin-1").strip()
        if not line:
            break
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    else:
        raise OSError("too many header lines")
    if headers.get("transfer-encoding", "").lower() == "chunked":
        body = await _read_chunks(reader)
    elif "content-length" in headers:
        length = int(headers["content-length"])
        if length > MAX_REPLY_BYTES:
            raise ValueError(f"a reply of {length} bytes is too large")
        body = await reader.readexactly(length)
    else:
        body = _bounded(await reader.read(MAX_REPLY_BYTES + 1))
    return Reply(int(words[1]), body, _seconds(headers.get("retry-after")))


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    body = bytearray()
    while True:
        size = int((await reader.readline()).split(b";")[0], 16)
        if size == 0:
            return bytes(body)
        if len(body) + size > MAX_REPLY_BYTES:
            raise ValueError("the reply is too large")
        body += await reader.readexactly(size)
        await reader.readexactly(2)


def _bounded(body: bytes) -> bytes:
    if len(body) > MAX_REPLY_BYTES:
        raise ValueError("the reply is too large")
    return body


def _seconds(text: str | None) -> float | None:
    try:
        return None if text is None else max(float(text), 0.0)
    except ValueError:
        return None
