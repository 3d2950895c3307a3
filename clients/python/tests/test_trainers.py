"""The reward functions as their trainers call them, against the stub server."""

from __future__ import annotations

import asyncio
import inspect
import os
import unittest
from types import SimpleNamespace

from patarm_client import PatarmError, openrlhf, trl, verl

from .stub import StubServer

DOWN = (400, {}, {"error": {"code": "bad_request", "message": "x"}})
PAIR = {"pair_id": "p1", "side": 1, "preferred_side": 0}


class Verl(unittest.TestCase):
    def test_both_forms_give_the_same_numeric_keys_always(self) -> None:
        for function in (verl.compute_score, verl.compute_score_sync):
            with StubServer() as stub:
                options = {"url": stub.url, "failure_score": -1.0, "reward_router_address": None}
                good = self.call(function, "set", "four", "4", {"prompt": "2 + 2?"}, **options)
                bad = self.call(function, "set", "unscorable", "", {"prompt": "?"}, **options)
                stub.faults = [DOWN]
                down = self.call(function, "set", "four", "4", {"prompt": "?"}, **options)
            self.assertEqual(good, {"score": 4.0, "patarm_ok": 1.0})
            self.assertEqual(bad, {"score": -1.0, "patarm_ok": 0.0})
            self.assertEqual(down, bad)

    def test_failures_raise_unless_they_have_a_score(self) -> None:
        for function in (verl.compute_score, verl.compute_score_sync):
            with StubServer() as stub, self.assertRaises(PatarmError):
                self.call(function, "set", "unscorable", "", {"prompt": "?"}, url=stub.url)

    def test_message_prompts_survive_their_columns(self) -> None:
        with StubServer() as stub:
            info = {"question": ({"role": "user", "content": "hi"},)}
            options = {"url": stub.url, "prompt_key": "question"}
            self.call(verl.compute_score, "set", "x", "", info, **options)
            prompt = stub.bodies("/v1/score")[0]["items"][0]["prompt"]
        self.assertEqual(prompt, [{"role": "user", "content": "hi"}])

    def test_missing_columns_are_named(self) -> None:
        with self.assertRaisesRegex(KeyError, "prompt"):
            self.call(verl.compute_score, "set", "x", "", {}, url="http://h")
        with self.assertRaisesRegex(KeyError, "preferred_side"):
            info = {"pair_id": "p", "side": 0}
            options = {"url": "http://h", "num_rollouts": 2}
            self.call(verl.compute_score_par, "set", "x", "", info, **options)

    def test_cohorts(self) -> None:
        with StubServer() as stub:
            options = {"url": stub.url, "num_rollouts": 4, "failure_score": -1.5}
            info = {**PAIR, "split": "train", "num_turns": 2}
            good = self.call(verl.compute_score_par, "set", "text", "", info, **options)
            late = self.call(verl.compute_score_par, "set", "late", "", info, **options)
            sent = stub.bodies("/v1/par")[0]["rollouts"][0]
        self.assertEqual(sent["cohort_id"], "verl/train/p1")
        self.assertEqual(sent["pair"], {"side": 1, "preferred_side": 0, "expected": [4, 4]})
        self.assertEqual(sent["judgement"], "text")
        self.assertEqual((good["score"], good["margin"], good["patarm_ok"]), (1.2, 2.0, 1.0))
        self.assertEqual((late["score"], late["patarm_ok"]), (-1.5, 0.0))
        self.assertEqual(list(good), list(late))
        self.assertTrue(all(isinstance(value, float) for value in good.values()))

    def test_there_is_no_blocking_cohort_function(self) -> None:
        self.assertTrue(inspect.iscoroutinefunction(verl.compute_score_par))
        self.assertFalse(hasattr(verl, "compute_score_par_sync"))

    @staticmethod
    def call(function, *args, **kwargs):
        result = function(*args, **kwargs)
        return asyncio.run(result) if inspect.iscoroutine(result) else result


class Trl(unittest.TestCase):
    def setUp(self) -> None:
        self.metrics: dict[str, float] = {}
        self.extra: dict[str, list] = {}
        self.columns = {
            "trainer_state": SimpleNamespace(global_step=3),
            "log_metric": self.metrics.__setitem__,
            "log_extra": self.extra.__setitem__,
        }

    def call(self, function, prompts, completions, **columns):
        self.assertTrue(inspect.iscoroutinefunction(function))
        return asyncio.run(
            function(
                prompts=prompts,
                completions=completions,
                completion_ids=[[1]] * len(prompts),
                **self.columns,
                **columns,
            )
        )

    def test_scores_with_none_where_there_is_none(self) -> None:
        with StubServer() as stub:
            reward = trl.score_reward(stub.url, name="helpful")
            scores = self.call(reward, ["a", "b"], ["four", "unscorable"])
        self.assertEqual(scores, [4.0, None])
        self.assertEqual(self.metrics, {"helpful/missing": 0.5})
        self.assertEqual(reward.__name__, "helpful")

    def test_conversations(self) -> None:
        with StubServer() as stub:
            prompt = [{"role": "user", "content": "hi"}]
            completion = [{"role": "assistant", "content": "hello"}]
            scores = self.call(trl.score_reward(stub.url), [prompt], [completion])
            item = stub.bodies("/v1/score")[0]["items"][0]
        self.assertEqual(scores, [5.0])
        self.assertEqual(item, {"prompt": prompt, "response": "hello"})

    def test_large_batches_are_split(self) -> None:
        with StubServer() as stub:
            count = trl.BATCH + 3
            scores = self.call(trl.score_reward(stub.url), ["p"] * count, ["xy"] * count)
            sizes = [len(body["items"]) for body in stub.bodies("/v1/score")]
        self.assertEqual(scores, [2.0] * count)
        self.assertEqual(sizes, [trl.BATCH, 3])

    def test_a_failing_server_raises_or_leaves_the_batch_out(self) -> None:
        with StubServer() as stub:
            stub.faults = [DOWN, DOWN]
            with self.assertRaises(PatarmError):
                self.call(trl.score_reward(stub.url), ["p"], ["x"])
            reward = trl.score_reward(stub.url, on_error="none")
            self.assertEqual(self.call(reward, ["p", "q"], ["x", "y"]), [None, None])
        with self.assertRaises(ValueError):
            trl.score_reward("http://h", on_error="ignore")

    def test_groups_are_joined_by_step_and_prompt(self) -> None:
        with StubServer() as stub:
            reward = trl.group_reward(stub.url, num_generations=2, run_id="run")
            self.call(reward, ["p", "p", "q"], ["x", "unscorable", "y"])
            sent = stub.bodies("/v1/par")[0]["rollouts"]
        ids = [one["cohort_id"] for one in sent]
        self.assertEqual(ids[0], ids[1])
        self.assertNotEqual(ids[0], ids[2])
        self.assertTrue(all(one.startswith("run/3/") for one in ids))
        self.assertEqual([one.get("score") for one in sent], [1.0, None, 1.0])
        self.assertEqual(sent[1]["fault"], "score_absent")

    def test_pairs(self) -> None:
        with StubServer() as stub:
            reward = trl.par_reward(stub.url, num_generations=2)
            columns = {"pair_id": ["a", "a"], "side": [0, 1], "preferred_side": [1, 1]}
            rewards = self.call(reward, ["p", "q"], ["x", "late"], **columns)
            sent = stub.bodies("/v1/par")[0]["rollouts"]
        self.assertEqual(rewards, [1.2, None])
        self.assertEqual([one["cohort_id"] for one in sent], ["trl/3/a"] * 2)
        self.assertEqual([one["pair"]["side"] for one in sent], [0, 1])
        self.assertEqual(self.metrics["patarm/refused"], 0.5)
        self.assertEqual(self.extra["fault"], ["", "cohort_over"])

    def test_steps_never_repeat_without_a_trainer(self) -> None:
        self.columns = {}
        with StubServer() as stub:
            reward = trl.par_reward(stub.url, num_generations=1)
            columns = {"pair_id": ["a"], "side": [0], "preferred_side": [1]}
            for _ in range(2):
                self.call(reward, ["p"], ["x"], **columns)
            ids = {body["rollouts"][0]["cohort_id"] for body in stub.bodies("/v1/par")}
        self.assertEqual(len(ids), 2)


class OpenRlhf(unittest.TestCase):
    def test_lists_or_tensors_of_equal_length(self) -> None:
        with StubServer() as stub:
            os.environ["PATARM_URL"] = stub.url
            try:
                reply = openrlhf.reward_func(["abc", "d"], ["a", "d"], ["1", None])
                empty = openrlhf.reward_func([], [], [])
            finally:
                del os.environ["PATARM_URL"]
            sent = stub.bodies("/get_reward")[0]
        self.assertEqual(sent, {"query": ["abc", "d"], "prompts": ["a", "d"], "labels": ["1", ""]})
        self.assertEqual(self.plain(reply["rewards"]), [3.0, 1.0])
        self.assertEqual(self.plain(reply["extra_logs"]["votes"]), [1.0, 1.0])
        self.assertEqual(self.plain(empty["rewards"]), [])

    @staticmethod
    def plain(values) -> list:
        return values.tolist() if hasattr(values, "tolist") else values


if __name__ == "__main__":
    unittest.main()
