"""The one error of this package."""

from __future__ import annotations

import json


class PatarmError(Exception):
    """The server refused a request, or could not be reached.

    ``status`` is the HTTP status, 0 when there was no reply. ``code`` is the server's
    name of the error (``unreachable`` when there was no reply).
    """

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}" if status == 0 else f"{status} {code}: {message}")
        self.status = status
        self.code = code
        self.message = message


def from_reply(status: int, body: bytes) -> PatarmError:
    """The error that a reply which is no success stands for."""
    try:
        error = json.loads(body)["error"]
        return PatarmError(status, str(error["code"]), str(error["message"]))
    except (ValueError, KeyError, TypeError):
        text = body[:200].decode("utf-8", "replace").strip()
        return PatarmError(status, "http", text or "no further description")
