"""The native routes, blocking and on asyncio."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Any, Mapping, Sequence
from urllib.parse import quote

from ._errors import PatarmError
from ._http import Target, request, request_async
from ._rollouts import ParResult, Rollout, results_by_place
from ._turns import LONGEST_WAIT_MS, turns


def _target(
    url: str, api_key: str | None, timeout_s: float, retries: int
) -> Target:
    return Target(url=url, api_key=api_key, timeout_s=timeout_s, retries=retries)


def _score_body(items: Sequence[Mapping[str, Any]], model: str | None) -> dict[str, Any]:
    body: dict[str, Any] = {
        "items": [{"prompt": item["prompt"], "response": item["response"]} for item in items]
    }
    if model is not None:
        body["model"] = model
    return body


def _judge_body(
    prompt: Any, response: str, task: str | None, votes: int | None, model: str | None
) -> dict[str, Any]:
    optional = {"task": task, "votes": votes, "model": model}
    body = {"prompt": prompt, "response": response}
    return body | {key: value for key, value in optional.items() if value is not None}


def _compare_body(
    prompt: Any,
    responses: Sequence[str],
    task: str | None,
    votes: int | None,
    model: str | None,
) -> dict[str, Any]:
    optional = {"task": task, "votes": votes, "model": model}
    body = {"prompt": prompt, "responses": list(responses)}
    return body | {key: value for key, value in optional.items() if value is not None}


class _Pending:
    """Rollouts of one call of ``par`` that have no result yet."""

    def __init__(self, rollouts: Sequence[Rollout], timeout_s: float) -> None:
        self.rollouts = list(rollouts)
        self.results: list[ParResult | None] = [None] * len(self.rollouts)
        self.deadline = time.monotonic() + timeout_s
        self.asked_at = 0.0
        self.wait_ms = 0
        self.num_early = 0

    def is_finished(self) -> bool:
        """Whether everything has a result."""
        return not self._open()

    def body(self, wait_ms: int) -> dict[str, Any] | None:
        """What to ask next; None when everything has a result."""
        open_rollouts = [self.rollouts[i] for i in self._open()]
        if not open_rollouts:
            return None
        left_ms = int((self.deadline - time.monotonic()) * 1000)
        if left_ms <= 0:
            message = f"{len(open_rollouts)} rollouts wait for the rest of their cohort"
            raise PatarmError(0, "timeout", message)
        self.asked_at = time.monotonic()
        self.wait_ms = min(left_ms, wait_ms)
        return {"rollouts": open_rollouts, "wait_ms": self.wait_ms}

    def take(self, reply: Any) -> float:
        """Files the results of the last request; returns seconds to pause before the next.

        A server that has too many waiting callers answers at once; asking it again at
        once would only keep it busy.
        """
        places = self._open()
        for i, result in zip(places, results_by_place(reply, len(places))):
            self.results[i] = result
        waited_ms = (time.monotonic() - self.asked_at) * 1000
        if not self._open() or waited_ms >= 0.5 * self.wait_ms:
            return 0.0
        self.num_early += 1
        return min(0.05 * 2.0**self.num_early, 2.0) * random.uniform(0.5, 1.0)

    def finished(self) -> list[ParResult]:
        """All results, in the order of the rollouts."""
        return [result for result in self.results if result is not None]

    def _open(self) -> list[int]:
        return [i for i, result in enumerate(self.results) if result is None]


class Client:
    """A blocking client.

    ``timeout_s`` bounds one reply and the waiting of :meth:`par`; ``retries`` counts
    further tries after an overloaded server or a broken connection. Every method raises
    :class:`PatarmError`.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8400",
        *,
        api_key: str | None = None,
        timeout_s: float = 180.0,
        retries: int = 4,
    ) -> None:
        self._target = _target(url, api_key, timeout_s, retries)

    def score(self, items: Sequence[Mapping[str, Any]], *, model: str | None = None) -> Any:
        """Rewards of items ``{"prompt": text or messages, "response": text}``."""
        return self._post("/v1/score", _score_body(items, model))

    def judge(
        self,
        prompt: Any,
        response: str,
        *,
        task: str | None = None,
        votes: int | None = None,
        model: str | None = None,
    ) -> Any:
        """Judgements of one response: rubric, criteria, evaluation, scores."""
        return self._post("/v1/judge", _judge_body(prompt, response, task, votes, model))

    def compare(
        self,
        prompt: Any,
        responses: Sequence[str],
        *,
        task: str | None = None,
        votes: int | None = None,
        model: str | None = None,
    ) -> Any:
        """Which of several responses to one prompt is better."""
        return self._post("/v1/compare", _compare_body(prompt, responses, task, votes, model))

    def par(self, rollouts: Sequence[Rollout]) -> list[ParResult]:
        """Rewards of rollouts, once their cohorts are complete; in order.

        Blocks until then: the rest of every cohort must be sent by others, or be in
        this list.
        """
        pending = _Pending(rollouts, self._target.timeout_s)
        while (body := pending.body(LONGEST_WAIT_MS)) is not None:
            time.sleep(pending.take(self._post("/v1/par", body)))
        return pending.finished()

    def cohort(self, cohort_id: str) -> Any:
        """Where a cohort stands."""
        return request(self._target, "GET", _cohort_path(cohort_id))

    def cancel(self, cohort_id: str) -> Any:
        """Cancels a cohort; all who wait for it are refused."""
        return request(self._target, "DELETE", _cohort_path(cohort_id))

    def _post(self, path: str, body: Any) -> Any:
        return request(self._target, "POST", path, body)


class AsyncClient:
    """The same on asyncio; any number of calls may wait at once."""

    def __init__(
        self,
        url: str = "http://127.0.0.1:8400",
        *,
        api_key: str | None = None,
        timeout_s: float = 180.0,
        retries: int = 4,
    ) -> None:
        self._target = _target(url, api_key, timeout_s, retries)

    async def score(
        self, items: Sequence[Mapping[str, Any]], *, model: str | None = None
    ) -> Any:
        """See :meth:`Client.score`."""
        return await self._post("/v1/score", _score_body(items, model))

    async def judge(
        self,
        prompt: Any,
        response: str,
        *,
        task: str | None = None,
        votes: int | None = None,
        model: str | None = None,
    ) -> Any:
        """See :meth:`Client.judge`."""
        return await self._post("/v1/judge", _judge_body(prompt, response, task, votes, model))

    async def compare(
        self,
        prompt: Any,
        responses: Sequence[str],
        *,
        task: str | None = None,
        votes: int | None = None,
        model: str | None = None,
    ) -> Any:
        """See :meth:`Client.compare`."""
        body = _compare_body(prompt, responses, task, votes, model)
        return await self._post("/v1/compare", body)

    async def par(self, rollouts: Sequence[Rollout]) -> list[ParResult]:
        """See :meth:`Client.par`."""
        pending = _Pending(rollouts, self._target.timeout_s)
        gate = turns()
        gate.num_callers += 1
        try:
            async with gate.announcing:
                await self._ask(pending, 0)
            while not pending.is_finished():
                async with gate.waiting:
                    pause_s = await self._ask(pending, gate.wait_ms())
                await asyncio.sleep(pause_s)
        finally:
            gate.num_callers -= 1
        return pending.finished()

    async def _ask(self, pending: _Pending, wait_ms: int) -> float:
        body = pending.body(wait_ms)
        return 0.0 if body is None else pending.take(await self._post("/v1/par", body))

    async def cohort(self, cohort_id: str) -> Any:
        """See :meth:`Client.cohort`."""
        return await request_async(self._target, "GET", _cohort_path(cohort_id))

    async def cancel(self, cohort_id: str) -> Any:
        """See :meth:`Client.cancel`."""
        return await request_async(self._target, "DELETE", _cohort_path(cohort_id))

    async def gather_par(self, rollouts: Sequence[Rollout]) -> list[ParResult | PatarmError]:
        """Like :meth:`par`, one request a rollout: a failure concerns its rollout alone."""
        calls = [self.par([rollout]) for rollout in rollouts]
        done = await asyncio.gather(*calls, return_exceptions=True)
        results: list[ParResult | PatarmError] = []
        for one in done:
            if isinstance(one, PatarmError):
                results.append(one)
            elif isinstance(one, BaseException):
                raise one
            else:
                results.append(one[0])
        return results

    async def _post(self, path: str, body: Any) -> Any:
        return await request_async(self._target, "POST", path, body)


def _cohort_path(cohort_id: str) -> str:
    return f"/v1/par/{quote(cohort_id, safe='')}"
