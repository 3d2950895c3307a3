"""verl's reward loop against running servers: ``check_verl.py URL [SCALAR_URL SCALAR]``.

SCALAR is the folder of the scalar model: verl names the model by its path, and so does
`patarm serve`.

``RewardLoopWorker`` is the class that verl turns into Ray actors. Here it runs as it is,
without Ray, on batches in verl's own ``DataProto``: with a custom reward function from
this package, and with verl's own client of vLLM's and SGLang's scalar reward models.
"""

from __future__ import annotations

import asyncio
import random
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from _report import Report
from _tiny import WORDS, judgement, judgements, save
from omegaconf import OmegaConf
from tensordict import TensorDict
from transformers import AutoTokenizer
from verl import DataProto
from verl.experimental.reward_loop.reward_loop import RewardLoopWorker

ROLLOUTS = 4
PAIRS = 32


def config(model: Path, function: dict | None, rollout: str | None = None, reward_model: str = ""):
    reward = {
        "num_workers": 8,
        "custom_reward_function": function or {"path": None, "name": None, "reward_kwargs": {}},
        "reward_manager": {"source": "register", "name": "naive", "module": None},
        "reward_model": {
            "enable": rollout is not None,
            "model_path": reward_model,
            "rollout": {"name": rollout},
        },
    }
    actor = {"model": {"path": str(model), "tokenizer_path": str(model)}}
    return OmegaConf.create({"reward": reward, "actor_rollout_ref": actor})


def batch(tokenizer, rows: list[dict]) -> DataProto:
    """Rows ``{"response": token, "extra_info": ..., "raw_prompt": ...}`` as verl batches them."""
    ids = [tokenizer.convert_tokens_to_ids(row["response"]) for row in rows]
    responses = torch.tensor([[i, tokenizer.pad_token_id] for i in ids])
    prompts = torch.tensor([[tokenizer.convert_tokens_to_ids(WORDS[0])]] * len(rows))
    mask = torch.tensor([[1, 1, 0]] * len(rows))
    tensors = {"prompts": prompts, "responses": responses, "attention_mask": mask}

    def column(values):
        array = np.empty(len(values), dtype=object)
        array[:] = values
        return array

    columns = {
        "data_source": column(["conformance"] * len(rows)),
        "reward_model": column([{"style": "model", "ground_truth": ""} for _ in rows]),
        "extra_info": column([dict(row["extra_info"]) for row in rows]),
        "raw_prompt": column([row["raw_prompt"] for row in rows]),
        "__num_turns__": column([2] * len(rows)),
    }
    return DataProto(batch=TensorDict(tensors, batch_size=len(rows)), non_tensor_batch=columns)


def row(response: str, **extra) -> dict:
    return {
        "response": response,
        "extra_info": {"split": "train", "index": 0, **extra},
        "raw_prompt": [{"role": "user", "content": "fine"}],
    }


async def as_workers(settings, data: DataProto, count: int, address: str | None = None) -> list:
    """Every row through one of `count` workers, in a random order, all at once."""
    workers = [RewardLoopWorker(settings, address) for _ in range(count)]
    order = list(range(len(data)))
    random.Random(1).shuffle(order)
    shares = [order[k::count] for k in range(count)]
    work = [w.compute_score_batch(data[share]) for w, share in zip(workers, shares)]
    results: list = [None] * len(data)
    for share, outputs in zip(shares, await asyncio.gather(*work)):
        for i, output in zip(share, outputs):
            results[i] = output
    return results


def cohort_rows() -> tuple[list[dict], list[float]]:
    """Judgements of pairs, and the rewards they must get."""
    rows, expected = [], []
    for p in range(PAIRS):
        preferred = p % 2
        high, low = 3 + p % 8, 1 + p % 5
        for side in (0, 1):
            score = high if side == preferred else low
            info = {"pair_id": f"p{p}", "side": side, "preferred_side": preferred}
            rows += [row(judgement(str(score)), **info) for _ in range(ROLLOUTS)]
            margin = high - low
            expected += [0.0 if margin <= 0 else 1.2 if margin <= 2 else 1.4] * ROLLOUTS
    return rows, expected


def function(name: str, **kwargs) -> dict:
    return {"path": "pkg://patarm_client.verl", "name": name, "reward_kwargs": kwargs}


def check_cohorts(report: Report, url: str, model: Path, tokenizer) -> None:
    rows, expected = cohort_rows()
    settings = config(model, function("compute_score_par", url=url, num_rollouts=ROLLOUTS))
    results = asyncio.run(as_workers(settings, batch(tokenizer, rows), 8))
    rewards = [result["reward_score"] for result in results]
    report.check(f"{len(rows)} judgements over 8 workers get the pair's rewards", rewards == expected, rewards)
    keys = {tuple(sorted(result["reward_extra_info"])) for result in results}
    report.check("all samples have the same keys", len(keys) == 1, keys)
    broken = [
        row(text, pair_id="broken", side=side, preferred_side=0)
        for side, text in ((0, judgements()[-1]), (1, judgements()[-2]))
    ]
    one = config(model, function("compute_score_par", url=url, num_rollouts=1))
    results = asyncio.run(as_workers(one, batch(tokenizer, broken), 2))
    rewards = [result["reward_score"] for result in results]
    report.check("format faults cost -1.5 and -1.0", rewards == [-1.5, -1.0], rewards)


def check_scores(report: Report, url: str, model: Path, tokenizer) -> None:
    rows = [row(text, prompt="What is 2 + 2?") for text in judgements()]
    outcomes = []
    for name in ("compute_score", "compute_score_sync"):
        settings = config(model, function(name, url=url, failure_score=-99.0))
        results = asyncio.run(as_workers(settings, batch(tokenizer, rows), 2))
        outcomes.append([result["reward_score"] for result in results])
        ok = sum(result["reward_extra_info"]["patarm_ok"] for result in results)
        report.check(f"{name} scores every response", ok == len(rows), results)
    report.check("both forms agree", outcomes[0] == outcomes[1], outcomes)


def check_scalar_paths(report: Report, url: str, scalar: str, model: Path, tokenizer) -> None:
    address = url.removeprefix("http://")
    rows = [row(text) for text in judgements()]
    outcomes = []
    for engine in ("vllm", "sglang"):
        settings = config(model, None, engine, scalar)
        try:
            results = asyncio.run(as_workers(settings, batch(tokenizer, rows), 2, address))
        except Exception as error:  # verl raises whatever its HTTP client does
            report.check(f"verl's own {engine} path", False, repr(error))
            continue
        outcomes.append([result["reward_score"] for result in results])
        report.check(f"verl's own {engine} path", all(np.isfinite(outcomes[-1])), outcomes[-1])
    report.check("vllm and sglang paths agree", len(outcomes) == 2 and outcomes[0] == outcomes[1], outcomes)


def main() -> None:
    report = Report("verl reward loop", "verl", "tensordict", "ray")
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder)
        save(model)
        tokenizer = AutoTokenizer.from_pretrained(model)
        tokenizer.chat_template = (
            "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
        )
        tokenizer.save_pretrained(model)
        check_cohorts(report, sys.argv[1], model, tokenizer)
        if len(sys.argv) > 2:
            check_scores(report, sys.argv[2], model, tokenizer)
            check_scalar_paths(report, sys.argv[2], sys.argv[3], model, tokenizer)
    report.finish()


if __name__ == "__main__":
    main()
