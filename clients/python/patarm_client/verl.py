"""Reward functions for verl.

Each is meant for ``reward.custom_reward_function.{path, name}``; everything after the
first four arguments comes from ``reward.custom_reward_function.reward_kwargs``, at least
``url``. verl calls with one sample at a time and demands the same keys of every result,
so every result here has the same numeric keys, also on failure.

* :func:`compute_score`: the server's score of one response, asynchronous.
* :func:`compute_score_sync`: the same, blocking.
* :func:`compute_score_par`: the preference-aware reward of one judgement, for training a
  judge on preference pairs: the caller waits until all judgements of both sides of the
  pair have arrived, from whatever worker. There is no blocking form: verl runs blocking
  functions in a small thread pool, which would fill up with judgements that wait for each
  other.
"""

from __future__ import annotations

from typing import Any, Mapping

from ._client import AsyncClient, Client
from ._errors import PatarmError
from ._rollouts import ParResult, pair_rollout

#: Keys of the rows' ``extra_info`` that the functions read.
PROMPT_KEY = "prompt"
PAIR_KEYS = ("pair_id", "side", "preferred_side")


async def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: Any,
    extra_info: Mapping[str, Any] | None = None,
    *,
    url: str,
    api_key: str | None = None,
    model: str | None = None,
    prompt_key: str = PROMPT_KEY,
    failure_score: float | None = None,
    timeout_s: float = 180.0,
    **_ignored: Any,
) -> dict[str, float]:
    """The server's score of ``solution_str`` as an answer to ``extra_info[prompt_key]``.

    A response that cannot be scored raises, or gets ``failure_score`` where that is
    given. Keys: ``score``, ``patarm_ok`` (1 or 0).
    """
    del data_source, ground_truth
    client = AsyncClient(url, api_key=api_key, timeout_s=timeout_s)
    item = _item(solution_str, extra_info, prompt_key)
    try:
        return _score(await client.score([item], model=model))
    except PatarmError as error:
        return _failed_score(error, failure_score)


def compute_score_sync(
    data_source: str,
    solution_str: str,
    ground_truth: Any,
    extra_info: Mapping[str, Any] | None = None,
    *,
    url: str,
    api_key: str | None = None,
    model: str | None = None,
    prompt_key: str = PROMPT_KEY,
    failure_score: float | None = None,
    timeout_s: float = 180.0,
    **_ignored: Any,
) -> dict[str, float]:
    """Like :func:`compute_score`, blocking."""
    del data_source, ground_truth
    client = Client(url, api_key=api_key, timeout_s=timeout_s)
    item = _item(solution_str, extra_info, prompt_key)
    try:
        return _score(client.score([item], model=model))
    except PatarmError as error:
        return _failed_score(error, failure_score)


async def compute_score_par(
    data_source: str,
    solution_str: str,
    ground_truth: Any,
    extra_info: Mapping[str, Any] | None = None,
    *,
    url: str,
    num_rollouts: int,
    api_key: str | None = None,
    run_id: str = "verl",
    failure_score: float | None = None,
    timeout_s: float = 900.0,
    **_ignored: Any,
) -> dict[str, float]:
    """The preference-aware reward of the judgement ``solution_str``.

    ``extra_info`` holds ``pair_id``, ``side`` and ``preferred_side``; ``num_rollouts`` is
    verl's ``actor_rollout_ref.rollout.n``, the number of judgements of each side. verl
    does not tell the step, so a pair may come again only after the server has forgotten
    its last cohort (``retain``, a minute by default). A judgement without a reward
    raises, or gets ``failure_score`` where that is given. Keys: ``score`` (the reward),
    ``par``, ``format``, ``judge_score``, ``judge_score_ok``, ``margin``, ``masked``,
    ``patarm_ok``.
    """
    del data_source, ground_truth
    info = extra_info or {}
    missing = [key for key in PAIR_KEYS if key not in info]
    if missing:
        raise KeyError(f"extra_info lacks {', '.join(missing)}")
    rollout = pair_rollout(
        f"{run_id}/{info.get('split', 'train')}/{info['pair_id']}",
        side=int(info["side"]),
        preferred_side=int(info["preferred_side"]),
        expected=(num_rollouts, num_rollouts),
        judgement=solution_str,
    )
    client = AsyncClient(url, api_key=api_key, timeout_s=timeout_s)
    try:
        result = (await client.par([rollout]))[0]
        if result.code is not None:
            raise PatarmError(200, result.code, result.message or "")
    except PatarmError as error:
        if failure_score is None:
            raise
        return _par_keys(ParResult(None, reward=failure_score), is_ok=False)
    return _par_keys(result, is_ok=True)


def _item(
    solution_str: str, extra_info: Mapping[str, Any] | None, prompt_key: str
) -> dict[str, Any]:
    try:
        prompt = (extra_info or {})[prompt_key]
    except KeyError:
        raise KeyError(f"extra_info lacks {prompt_key!r}, the prompt to score against") from None
    if not isinstance(prompt, str):
        # A column of messages comes back from Parquet as an array of mappings.
        prompt = [{"role": str(m["role"]), "content": str(m["content"])} for m in prompt]
    return {"prompt": prompt, "response": solution_str}


def _score(reply: Any) -> dict[str, float]:
    result = reply["results"][0]
    if result.get("score") is None:
        error = result.get("error") or {}
        raise PatarmError(200, str(error.get("code")), str(error.get("message")))
    return {"score": float(result["score"]), "patarm_ok": 1.0}


def _failed_score(error: PatarmError, failure_score: float | None) -> dict[str, float]:
    if failure_score is None:
        raise error
    return {"score": failure_score, "patarm_ok": 0.0}


def _par_keys(result: ParResult, *, is_ok: bool) -> dict[str, float]:
    means = (result.own_mean, result.other_mean)
    margin = 0.0 if None in means else abs(means[0] - means[1])  # type: ignore[operator]
    return {
        "score": float(result.reward or 0.0),
        "par": float(result.par or 0.0),
        "format": float(result.format),
        "judge_score": float(result.score or 0.0),
        "judge_score_ok": float(result.score is not None),
        "margin": margin,
        "masked": float(result.masked),
        "patarm_ok": float(is_ok),
    }
