"""OpenRLHF's reward requests, sent as its rollout workers send them: ``check_openrlhf.py URL``.

OpenRLHF itself needs a GPU to import. What it does on the wire is described in its
``openrlhf/utils/agent.py`` (version 0.11.0) and written anew here: one request a rollout,
all at once, a list of one in every field, five tries; and the shards that two addresses
get, of which the second is empty.
"""

from __future__ import annotations

import asyncio
import json
import math
import sys
import urllib.request
from concurrent.futures import ThreadPoolExecutor

from _report import Report

ROLLOUTS = 64
TRIES = 5


def post(url: str, body: dict) -> dict:
    data = json.dumps(body).encode()
    call = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(call, timeout=180) as reply:
        return json.load(reply)


async def reward(url: str, pool: ThreadPoolExecutor, body: dict) -> dict | None:
    loop = asyncio.get_running_loop()
    for _ in range(TRIES):
        try:
            return await loop.run_in_executor(pool, post, url, body)
        except OSError as error:
            print(f"     try failed: {error}")
            await asyncio.sleep(1)
    return None


def rollout(i: int) -> dict:
    prompt = f"<|im_start|>user\nWhat is {i} + 1?<|im_end|>\n<|im_start|>assistant\n"
    answer = f"{i + 1}" * (1 + i % 3)
    return {"query": [f"{prompt}{answer}<|im_end|>"], "prompts": [prompt], "labels": [f"{i + 1}"]}


async def all_at_once(url: str) -> list[dict | None]:
    with ThreadPoolExecutor(ROLLOUTS) as pool:
        return await asyncio.gather(*(reward(url, pool, rollout(i)) for i in range(ROLLOUTS)))


def is_well_formed(reply: dict | None, count: int) -> bool:
    if reply is None:
        return False
    lists = [reply["rewards"], reply["scores"], *reply["extra_logs"].values()]
    return all(
        isinstance(one, list) and len(one) == count and all(is_number(x) for x in one)
        for one in lists
    )


def is_number(x) -> bool:
    return isinstance(x, (int, float)) and math.isfinite(x)


def main() -> None:
    url = f"{sys.argv[1]}/get_reward"
    report = Report("OpenRLHF requests, re-played")
    replies = asyncio.run(all_at_once(url))
    report.check(f"{ROLLOUTS} rollouts at once are answered", None not in replies, replies.count(None))
    report.check("with lists of one number", all(is_well_formed(r, 1) for r in replies), replies[:2])
    keys = {tuple(r["extra_logs"]) for r in replies if r is not None}
    report.check("and the same extra_logs keys", len(keys) == 1, keys)
    scores = [r["scores"][0] for r in replies if r is not None]
    report.check("scores lie in [0, 1]", all(0 <= s <= 1 for s in scores), scores[:5])

    alone = post(url, rollout(5))
    report.check("a reward does not depend on the crowd", alone["rewards"] == replies[5]["rewards"], alone)
    empty = post(url, {"query": [], "prompts": [], "labels": []})
    report.check("an empty shard is answered with empty lists", is_well_formed(empty, 0), empty)
    shard = {key: [rollout(i)[key][0] for i in range(8)] for key in rollout(0)}
    whole = post(url, shard)
    each = [r["rewards"][0] for r in replies[:8]]
    report.check("a shard of eight gives the same eight rewards", whole["rewards"] == each, whole)
    try_loader(report, sys.argv[1])
    report.finish()


def try_loader(report: Report, url: str) -> None:
    """The ``.py`` mode: the file is loaded from its path, as OpenRLHF does."""
    import importlib.util
    import os

    import torch
    import patarm_client.openrlhf as module

    os.environ["PATARM_URL"] = url
    spec = importlib.util.spec_from_file_location("reward_func", module.__file__)
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    body = rollout(5)
    reply = loaded.reward_func(body["query"], body["prompts"], body["labels"])
    report.check("reward_func returns tensors", isinstance(reply["rewards"], torch.Tensor), reply)


if __name__ == "__main__":
    main()
