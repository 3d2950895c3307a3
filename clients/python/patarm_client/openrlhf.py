"""The reward function for OpenRLHF's ``.py`` mode.

OpenRLHF reaches a patarm server without this file: ``--reward.remote_url
http://HOST:8400/get_reward``. This one is for adding a term of your own, or a key. Give
its path instead of the address; it reads the server's address from the environment
variable ``PATARM_URL`` and its key from ``PATARM_API_KEY``. Results are tensors where
torch can be imported and lists elsewhere.
"""

from __future__ import annotations

import os
from typing import Any, Sequence

from patarm_client._http import Target, request


def reward_func(
    queries: Sequence[str], prompts: Sequence[str], labels: Sequence[str], **_ignored: Any
) -> dict[str, Any]:
    """Rewards of complete templated texts (``queries``), as OpenRLHF calls it."""
    target = Target(
        url=os.environ.get("PATARM_URL", "http://127.0.0.1:8400"),
        api_key=os.environ.get("PATARM_API_KEY"),
    )
    body = {"query": list(queries), "prompts": list(prompts), "labels": _texts(labels, queries)}
    reply = request(target, "POST", "/get_reward", body)
    return {
        "rewards": _tensor(reply["rewards"]),
        "scores": _tensor(reply["scores"]),
        "extra_logs": {name: _tensor(values) for name, values in reply["extra_logs"].items()},
    }


def _texts(labels: Sequence[Any] | None, queries: Sequence[str]) -> list[str]:
    if labels is None:
        return [""] * len(queries)
    return ["" if label is None else str(label) for label in labels]


def _tensor(values: Sequence[float]) -> Any:
    try:
        import torch
    except ImportError:
        return list(values)
    return torch.tensor(values, dtype=torch.float32)
