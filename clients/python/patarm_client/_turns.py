"""How many requests for cohorts a process has open at once.

A trainer may ask for thousands of rewards at the same time, each of which waits for
others. If each held a connection, the last rollouts would find the server full of
callers who wait for them. So every rollout is first announced without waiting, and then
callers take turns to wait, the shorter the more there are.
"""

from __future__ import annotations

import asyncio
import weakref

#: Requests at once: announcing, and waiting.
ANNOUNCING = 32
WAITING = 32
#: Longest wait of one request, and about how often every caller gets its turn.
LONGEST_WAIT_MS = 30_000
#: Shortest wait of one request.
SHORTEST_WAIT_MS = 100


class Turns:
    """The turns of all callers of one event loop."""

    def __init__(self) -> None:
        self.announcing = asyncio.Semaphore(ANNOUNCING)
        self.waiting = asyncio.Semaphore(WAITING)
        self.num_callers = 0

    def wait_ms(self) -> int:
        """How long the next request may wait, so that nobody's turn is far away."""
        share = LONGEST_WAIT_MS * WAITING // max(self.num_callers, 1)
        return max(SHORTEST_WAIT_MS, min(share, LONGEST_WAIT_MS))


_TURNS: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Turns] = (
    weakref.WeakKeyDictionary()
)


def turns() -> Turns:
    """The turns of the running loop, whichever clients ask."""
    return _TURNS.setdefault(asyncio.get_running_loop(), Turns())
