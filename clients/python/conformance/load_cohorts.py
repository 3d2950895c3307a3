"""A thousand cohorts at once, one rollout in a hundred missing: ``load_cohorts.py BINARY``.

Starts a server with a short time-out, sends 8 rollouts for each of 1,000 pairs, every one
a call of its own and all at the same time in a random order, and holds every answer
against the rule. Standard library only.
"""

from __future__ import annotations

import asyncio
import random
import resource
import sys
import time
from collections import Counter

from run import served

from patarm_client import AsyncClient, PatarmError, pair_rollout

COHORTS = 1_000
SIDE = 4
TIMEOUT_S = 60


def score(cohort: int, side: int, i: int) -> int:
    return 1 + (cohort * 7 + side * 5 + i * 3) % 10


def expected(cohort: int, side: int, i: int) -> float:
    """The graded reward (0, 1.2, 1.4), in whole numbers; side 0 is preferred."""
    others = sum(score(cohort, 1 - side, k) for k in range(SIDE))
    difference = (SIDE * score(cohort, side, i) - others) * (1 if side == 0 else -1)
    return 0.0 if difference <= 0 else 1.2 if difference <= 2 * SIDE else 1.4


async def one(client: AsyncClient, place: tuple[int, int, int]) -> str:
    cohort, side, i = place
    rollout = pair_rollout(
        f"load/{cohort}", side=side, preferred_side=0, expected=(SIDE, SIDE),
        score=score(*place), rollout_id=f"{side}-{i}",
    )
    try:
        result = (await client.par([rollout]))[0]
    except PatarmError as error:
        return f"no answer: {error.code}"
    if result.code is not None:
        return result.code
    return "right" if result.reward == expected(*place) else "WRONG"


async def all_at_once(url: str, places: list[tuple[int, int, int]]) -> list[str]:
    client = AsyncClient(url, timeout_s=6 * TIMEOUT_S, retries=20)
    return await asyncio.gather(*(one(client, place) for place in places))


def main() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65_536), hard))
    places = [(c, s, i) for c in range(COHORTS) for s in (0, 1) for i in range(SIDE)]
    random.Random(4).shuffle(places)
    missing = places[:: 100]
    sent = [place for k, place in enumerate(places) if k % 100 != 0]
    incomplete = {cohort for cohort, *_ in missing}
    arguments = ("--par-only", "--cohort-timeout-s", str(TIMEOUT_S), "--cohort-retain-s", "600")
    with served(sys.argv[1], *arguments) as url:
        started = time.monotonic()
        outcomes = asyncio.run(all_at_once(url, sent))
        seconds = time.monotonic() - started
    counts = Counter(outcomes)
    should_fail = sum(cohort in incomplete for cohort, *_ in sent)
    print(f"{len(sent)} rollouts of {COHORTS} cohorts, {len(incomplete)} incomplete, {seconds:.1f} s")
    print(dict(counts), f"(expected: right {len(sent) - should_fail}, cohort_timed_out {should_fail})")
    is_right = counts["right"] == len(sent) - should_fail
    sys.exit(0 if is_right and counts["cohort_timed_out"] == should_fail else 1)


if __name__ == "__main__":
    main()
