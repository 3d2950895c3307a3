"""What a script found: lines for the person, and a row for the table."""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from typing import Any


class Report:
    """Checks of one client. ``finish`` prints a JSON row and exits 1 if any failed."""

    def __init__(self, client: str, *packages: str) -> None:
        self.client = client
        self.versions = {package: version(package) for package in packages}
        self.checks: list[tuple[str, bool]] = []

    def check(self, what: str, holds: bool, seen: Any = None) -> None:
        """Records whether something holds; ``seen`` is shown where it does not."""
        self.checks.append((what, bool(holds)))
        mark = "ok  " if holds else "FAIL"
        print(f"{mark} {self.client}: {what}" + ("" if holds else f" (seen: {seen!r})"))

    def note(self, text: str) -> None:
        """Something to know that is no check."""
        print(f"     {self.client}: {text}")

    def finish(self) -> None:
        """The row, and the exit code."""
        failed = [what for what, holds in self.checks if not holds]
        row = {
            "client": self.client,
            "versions": self.versions,
            "checks": len(self.checks),
            "failed": failed,
        }
        print("ROW " + json.dumps(row))
        sys.exit(1 if failed else 0)
