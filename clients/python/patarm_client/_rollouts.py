"""Rollouts of a cohort, and what the server makes of them."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any, Mapping, Sequence

#: A rollout in the form of the route ``/v1/par``.
Rollout = dict[str, Any]


def pair_rollout(
    cohort_id: str,
    *,
    side: int,
    preferred_side: int,
    expected: Sequence[int],
    judgement: str | None = None,
    score: float | None = None,
    fault: str | None = None,
    truncated: bool = False,
    rollout_id: str | None = None,
) -> Rollout:
    """A judgement of one side of a preference pair.

    ``cohort_id`` names the pair *and the step*: everything with the same id is compared.
    ``expected`` is how many judgements of side 0 and of side 1 there will be. Give the
    judge's text as ``judgement`` (the server reads the score in it; ``truncated`` when
    the token limit cut it off), a known ``score``, or the ``fault`` for which there is
    none. ``rollout_id`` defaults to a random id; a retry must repeat it.
    """
    place = {"side": side, "preferred_side": preferred_side, "expected": list(expected)}
    content = _content(judgement, score, fault, truncated)
    return _rollout(cohort_id, rollout_id, {"pair": place}, content)


def group_rollout(
    cohort_id: str,
    *,
    expected: int,
    rule: str = "z_score",
    judgement: str | None = None,
    score: float | None = None,
    fault: str | None = None,
    truncated: bool = False,
    rollout_id: str | None = None,
) -> Rollout:
    """A member of a group that is rewarded relative to the others.

    Content is given as for :func:`pair_rollout`. ``rule`` is ``z_score``, ``centred``, ``leave_one_out`` or ``win_rate``.
    """
    place = {"expected": expected, "rule": rule}
    content = _content(judgement, score, fault, truncated)
    return _rollout(cohort_id, rollout_id, {"group": place}, content)


def _rollout(
    cohort_id: str,
    rollout_id: str | None,
    place: Mapping[str, Any],
    content: Mapping[str, Any],
) -> Rollout:
    ids = {"cohort_id": cohort_id, "rollout_id": rollout_id or uuid.uuid4().hex}
    return {**ids, **place, **content}


def _content(
    judgement: str | None, score: float | None, fault: str | None, truncated: bool
) -> dict[str, Any]:
    given = {"judgement": judgement, "score": score, "fault": fault}
    content: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    if len(content) != 1:
        raise ValueError("give exactly one of judgement, score and fault")
    if truncated and judgement is not None:
        content["truncated"] = True
    return content


@dataclass(frozen=True)
class ParResult:
    """What became of one rollout.

    ``reward`` is None where there is none to train on: the rollout was refused (then
    ``code`` and ``message`` say why), or it has no score and belongs to a group.
    """

    rollout_id: str | None
    reward: float | None = None
    #: The preference part and the format part of the reward.
    par: float | None = None
    format: float = 0.0
    #: The rollout's own score, and why it has none.
    score: float | None = None
    fault: str | None = None
    #: Whether to leave the rollout out of the update.
    masked: bool = False
    own_mean: float | None = None
    other_mean: float | None = None
    empty_side: bool = False
    #: Whether all declared rollouts had arrived.
    complete: bool = False
    code: str | None = None
    message: str | None = None

    @property
    def is_refused(self) -> bool:
        """Whether the server gave no answer but a reason."""
        return self.code is not None


def results_by_place(reply: Any, count: int) -> list[ParResult | None]:
    """Results in the order sent; None for what is still pending."""
    results = reply["results"]
    if len(results) != count:
        raise ValueError(f"{len(results)} results for {count} rollouts")
    return [None if one["status"] == "pending" else _result(one) for one in results]


def _result(one: Mapping[str, Any]) -> ParResult:
    if one["status"] == "refused":
        error = one["error"]
        return ParResult(one.get("rollout_id"), code=error["code"], message=error["message"])
    answer = one["answer"]
    return ParResult(
        one.get("rollout_id"),
        reward=answer["reward"],
        par=answer["par"],
        format=answer["format"],
        score=answer["score"],
        fault=answer["fault"],
        masked=answer["masked"],
        own_mean=answer["own_mean"],
        other_mean=answer["other_mean"],
        empty_side=answer["empty_side"],
        complete=answer["complete"],
    )
