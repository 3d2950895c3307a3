"""Reward functions for TRL's trainers.

``GRPOTrainer(reward_funcs=[...])`` takes what these factories return. All are
asynchronous: TRL runs asynchronous reward functions on an event loop, so that a batch
waits for the server once. A completion without a reward gets None, which TRL leaves out;
how many those were is logged as a metric.
"""

from __future__ import annotations

import uuid
from typing import Any, Awaitable, Callable, Mapping, Sequence

from ._client import AsyncClient
from ._errors import PatarmError
from ._rollouts import ParResult, Rollout, group_rollout, pair_rollout

#: What TRL calls.
RewardFunction = Callable[..., Awaitable["list[float | None]"]]

#: Most items of one request.
BATCH = 256


def score_reward(
    url: str,
    *,
    api_key: str | None = None,
    model: str | None = None,
    name: str = "patarm_score",
    on_error: str = "raise",
    timeout_s: float = 180.0,
) -> RewardFunction:
    """The server's score of every completion.

    ``on_error`` says what an unreachable or refusing *server* means: ``raise``, or
    ``none`` for every completion of the batch. A single response that cannot be scored
    is always None.
    """
    _check_policy(on_error)
    client = AsyncClient(url, api_key=api_key, timeout_s=timeout_s)

    async def reward(
        prompts: Sequence[Any], completions: Sequence[Any], **columns: Any
    ) -> list[float | None]:
        items = [
            {"prompt": prompt, "response": completion_text(completion)}
            for prompt, completion in zip(prompts, completions)
        ]
        try:
            scores = await _scores(client, items, model)
        except PatarmError:
            if on_error == "raise":
                raise
            scores = [None] * len(items)
        _log_failures(columns, name, scores)
        return scores

    reward.__name__ = name
    return reward


def group_reward(
    url: str,
    *,
    num_generations: int,
    rule: str = "win_rate",
    api_key: str | None = None,
    model: str | None = None,
    run_id: str | None = None,
    name: str = "patarm_group",
    on_error: str = "raise",
    timeout_s: float = 900.0,
) -> RewardFunction:
    """Scores relative to the other completions of the same prompt.

    TRL may split a prompt's completions over processes; the server joins them again. All
    processes must use the same ``run_id``. A prompt must not occur twice in one
    generation batch.
    """
    _check_policy(on_error)
    client = AsyncClient(url, api_key=api_key, timeout_s=timeout_s)
    run = run_id or "trl"

    async def reward(
        prompts: Sequence[Any], completions: Sequence[Any], **columns: Any
    ) -> list[float | None]:
        step = _step(columns)
        items = [
            {"prompt": prompt, "response": completion_text(completion)}
            for prompt, completion in zip(prompts, completions)
        ]
        try:
            scores = await _scores(client, items, model)
        except PatarmError:
            if on_error == "raise":
                raise
            scores = [None] * len(items)
        rollouts = [
            _group_member(f"{run}/{step}/{_digest(item['prompt'])}", score, num_generations, rule)
            for item, score in zip(items, scores)
        ]
        rewards = await _par(client, rollouts, columns, on_error)
        _log_failures(columns, name, rewards)
        return rewards

    reward.__name__ = name
    return reward


def par_reward(
    url: str,
    *,
    num_generations: int,
    api_key: str | None = None,
    run_id: str | None = None,
    name: str = "patarm_par",
    on_error: str = "raise",
    timeout_s: float = 900.0,
) -> RewardFunction:
    """The preference-aware reward, for training a judge on preference pairs.

    The data set has a row for each side of a pair: ``prompt`` is the judge prompt, and
    the columns ``pair_id``, ``side`` and ``preferred_side`` say which side it is. Both
    rows must fall into the same generation batch (``shuffle_dataset=False``, rows of a
    pair next to each other, an even number of prompts a batch); which process they fall
    to does not matter.
    """
    _check_policy(on_error)
    client = AsyncClient(url, api_key=api_key, timeout_s=timeout_s)
    run = run_id or "trl"

    async def reward(
        prompts: Sequence[Any],
        completions: Sequence[Any],
        *,
        pair_id: Sequence[Any],
        side: Sequence[Any],
        preferred_side: Sequence[Any],
        **columns: Any,
    ) -> list[float | None]:
        step = _step(columns)
        rollouts = [
            pair_rollout(
                f"{run}/{step}/{pair_id[i]}",
                side=int(side[i]),
                preferred_side=int(preferred_side[i]),
                expected=(num_generations, num_generations),
                judgement=completion_text(completions[i]),
            )
            for i in range(len(prompts))
        ]
        rewards = await _par(client, rollouts, columns, on_error)
        _log_failures(columns, name, rewards)
        return rewards

    reward.__name__ = name
    return reward


def completion_text(completion: Any) -> str:
    """The text of a completion: a string, or the contents of its assistant messages."""
    if isinstance(completion, str):
        return completion
    texts = [message.get("content") or "" for message in completion
             if message.get("role") == "assistant"]
    return "\n".join(texts)


def _check_policy(on_error: str) -> None:
    if on_error not in ("raise", "none"):
        raise ValueError(f"on_error = {on_error!r}: use 'raise' or 'none'")


async def _scores(
    client: AsyncClient, items: Sequence[Mapping[str, Any]], model: str | None
) -> list[float | None]:
    scores: list[float | None] = []
    for start in range(0, len(items), BATCH):
        reply = await client.score(items[start : start + BATCH], model=model)
        scores += [result.get("score") for result in reply["results"]]
    return scores


def _group_member(cohort_id: str, score: float | None, expected: int, rule: str) -> Rollout:
    if score is None:
        # Without a score, but counted: the rest of the group must not wait for it.
        return group_rollout(cohort_id, expected=expected, rule=rule, fault="score_absent")
    return group_rollout(cohort_id, expected=expected, rule=rule, score=score)


async def _par(
    client: AsyncClient, rollouts: Sequence[Rollout], columns: Mapping[str, Any], on_error: str
) -> list[float | None]:
    results: list[ParResult | PatarmError] = []
    try:
        results += await client.par(rollouts)
    except PatarmError as error:
        if on_error == "raise":
            raise
        results += [error] * len(rollouts)
    _log_parts(columns, results)
    return [
        None if isinstance(one, PatarmError) or one.masked else one.reward for one in results
    ]


def _step(columns: Mapping[str, Any]) -> str:
    """The optimiser step; without a trainer, something that never repeats."""
    state = columns.get("trainer_state")
    step = getattr(state, "global_step", None)
    return uuid.uuid4().hex if step is None else str(step)


def _digest(prompt: Any) -> str:
    import hashlib
    import json

    text = json.dumps(prompt, sort_keys=True, ensure_ascii=True, default=str)
    return hashlib.sha256(text.encode("ascii")).hexdigest()[:32]


def _log_failures(columns: Mapping[str, Any], name: str, rewards: Sequence[float | None]) -> None:
    log_metric = columns.get("log_metric")
    if log_metric is not None and rewards:
        missing = sum(reward is None for reward in rewards)
        log_metric(f"{name}/missing", missing / len(rewards))


def _log_parts(
    columns: Mapping[str, Any], results: Sequence[ParResult | PatarmError]
) -> None:
    answers = [one for one in results if isinstance(one, ParResult)]
    log_metric = columns.get("log_metric")
    if log_metric is not None and answers:
        faults = sum(one.fault is not None for one in answers)
        refused = sum(one.is_refused for one in answers)
        log_metric("patarm/format_faults", faults / len(answers))
        log_metric("patarm/refused", refused / len(answers))
    log_extra = columns.get("log_extra")
    if log_extra is not None and len(answers) == len(results):
        log_extra("judge_score", [one.score for one in answers])
        log_extra("fault", [one.fault or one.code or "" for one in answers])
