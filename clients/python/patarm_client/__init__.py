"""Clients of the patarm reward server.

``Client`` and ``AsyncClient`` speak the native routes. ``patarm_client.verl``,
``patarm_client.trl`` and ``patarm_client.openrlhf`` are reward functions in the form
those trainers expect. Nothing here depends on anything outside the standard library.
"""

from ._client import AsyncClient, Client
from ._errors import PatarmError
from ._rollouts import ParResult, Rollout, group_rollout, pair_rollout

__all__ = [
    "AsyncClient",
    "Client",
    "ParResult",
    "PatarmError",
    "Rollout",
    "group_rollout",
    "pair_rollout",
]
