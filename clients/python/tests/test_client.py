"""The plain clients against the stub server."""

from __future__ import annotations

import asyncio
import unittest

from patarm_client import AsyncClient, Client, PatarmError, group_rollout, pair_rollout

from patarm_client._turns import LONGEST_WAIT_MS, SHORTEST_WAIT_MS, Turns

from .stub import StubServer

ITEM = {"prompt": "2 + 2?", "response": "4"}
BUSY = (429, {"Retry-After": "0.01"}, {"error": {"code": "busy", "message": "full"}})


def rollouts(*judgements: str) -> list:
    return [
        pair_rollout("c", side=0, preferred_side=1, expected=(1, 1), judgement=text)
        for text in judgements
    ]


class Both(unittest.TestCase):
    """Every test runs on both clients."""

    def on_both(self, act, **stub_options) -> list:
        outcomes = []
        for is_async in (False, True):
            with self.subTest(is_async=is_async), StubServer(**stub_options) as stub:
                outcomes.append((act(stub, Caller(stub, is_async)), stub))
        return outcomes


class Caller:
    """Calls either client in the same words."""

    def __init__(self, stub: StubServer, is_async: bool) -> None:
        self.stub, self.is_async = stub, is_async

    def __call__(self, method: str, *args, client=None, **kwargs):
        options = {"api_key": "k", **(client or {})}
        if self.is_async:
            call = getattr(AsyncClient(self.stub.url, **options), method)
            return asyncio.run(call(*args, **kwargs))
        return getattr(Client(self.stub.url, **options), method)(*args, **kwargs)


class Requests(Both):
    def test_routes_bodies_and_key(self) -> None:
        def act(stub, call):
            self.assertEqual(call("score", [ITEM])["results"], [{"score": 1.0}])
            call("judge", "p", "r", task="math", votes=3)
            call("compare", "p", ["a", "b"], model="m")
            self.assertEqual(call("cohort", "a/b ü")["path"], "/v1/par/a%2Fb%20%C3%BC")
            call("cancel", "c")
            self.assertEqual(stub.bodies("/v1/score"), [{"items": [ITEM]}])
            judged = {"prompt": "p", "response": "r", "task": "math", "votes": 3}
            self.assertEqual(stub.bodies("/v1/judge"), [judged])
            compared = {"prompt": "p", "responses": ["a", "b"], "model": "m"}
            self.assertEqual(stub.bodies("/v1/compare"), [compared])
            self.assertTrue(all(h["Authorization"] == "Bearer k" for _, h, _ in stub.seen))

        self.on_both(act)

    def test_chunked_replies(self) -> None:
        def act(stub, call):
            self.assertEqual(call("score", [ITEM, ITEM])["results"], [{"score": 1.0}] * 2)

        self.on_both(act, chunked=True)

    def test_an_overloaded_server_is_asked_again(self) -> None:
        def act(stub, call):
            stub.faults = [BUSY, (503, {}, b"")]
            self.assertEqual(call("score", [ITEM])["results"], [{"score": 1.0}])
            self.assertEqual(len(stub.seen), 3)

        self.on_both(act)

    def test_retries_end(self) -> None:
        def act(stub, call):
            stub.faults = [BUSY] * 3
            with self.assertRaises(PatarmError) as raised:
                call("score", [ITEM], client={"retries": 2})
            self.assertEqual((raised.exception.status, raised.exception.code), (429, "busy"))
            self.assertEqual(len(stub.seen), 3)

        self.on_both(act)

    def test_other_refusals_are_final(self) -> None:
        def act(stub, call):
            bad = {"error": {"code": "bad_request", "message": "no items"}}
            stub.faults = [(400, {}, bad), (500, {}, b"<html>")]
            for expected in [(400, "bad_request"), (500, "http")]:
                with self.assertRaises(PatarmError) as raised:
                    call("score", [])
                error = raised.exception
                self.assertEqual((error.status, error.code), expected)
            self.assertEqual(len(stub.seen), 2)

        self.on_both(act)

    def test_nobody_there(self) -> None:
        for is_async in (False, True):
            with StubServer() as stub:
                pass
            with self.assertRaises(PatarmError) as raised:
                Caller(stub, is_async)("score", [ITEM], client={"retries": 0})
            self.assertEqual((raised.exception.status, raised.exception.code), (0, "unreachable"))

    def test_replies_that_are_no_json(self) -> None:
        def act(stub, call):
            stub.faults = [(200, {}, b"<html>")]
            with self.assertRaises(PatarmError) as raised:
                call("score", [ITEM])
            self.assertEqual(raised.exception.code, "bad_reply")

        self.on_both(act)

    def test_lone_surrogates_can_be_sent(self) -> None:
        def act(stub, call):
            call("score", [{"prompt": "p", "response": "half \ud83d"}])
            self.assertEqual(stub.bodies("/v1/score")[0]["items"][0]["response"], "half \ud83d")

        self.on_both(act)

    def test_addresses_are_checked(self) -> None:
        for url in ("localhost:8400", "ftp://host", "http://"):
            with self.assertRaises(ValueError):
                Client(url)


class Cohorts(Both):
    def test_results_stand_in_the_order_sent(self) -> None:
        def act(stub, call):
            results = call("par", rollouts("a", "late", "b"))
            self.assertEqual([one.reward for one in results], [1.2, None, 1.2])
            self.assertEqual([one.code for one in results], [None, "cohort_over", None])
            self.assertEqual([one.is_refused for one in results], [False, True, False])
            sent = stub.bodies("/v1/par")[0]["rollouts"]
            self.assertEqual([o.rollout_id for o in results], [o["rollout_id"] for o in sent])

        self.on_both(act)

    def test_pending_rollouts_are_asked_again_with_the_same_ids(self) -> None:
        def act(stub, call):
            stub.pending_rounds = 2
            results = call("par", rollouts("a", "late"))
            self.assertEqual([one.reward for one in results], [1.2, None])
            first, second, third = (body["rollouts"] for body in stub.bodies("/v1/par"))
            self.assertEqual(second, third)
            self.assertEqual(second, [first[0]])
            waits = [body["wait_ms"] for body in stub.bodies("/v1/par")]
            self.assertEqual(waits[0], 0 if call.is_async else LONGEST_WAIT_MS)
            self.assertEqual(waits[1:], [LONGEST_WAIT_MS] * 2)

        self.on_both(act)

    def test_waiting_ends(self) -> None:
        def act(stub, call):
            stub.pending_rounds = 10**9
            with self.assertRaises(PatarmError) as raised:
                call("par", rollouts("a"), client={"timeout_s": 0.2})
            self.assertEqual(raised.exception.code, "timeout")

        self.on_both(act)

    def test_one_failure_concerns_its_rollout_alone(self) -> None:
        with StubServer() as stub:
            stub.faults = [(400, {}, {"error": {"code": "bad_request", "message": "x"}})]
            client = AsyncClient(stub.url)
            results = asyncio.run(client.gather_par(rollouts("a", "b", "c")))
        self.assertEqual(sum(isinstance(one, PatarmError) for one in results), 1)

    def test_many_calls_may_wait_at_once(self) -> None:
        async def act(stub):
            client = AsyncClient(stub.url, timeout_s=20)
            calls = [client.par(rollouts(str(i))) for i in range(100)]
            return await asyncio.gather(*calls)

        with StubServer() as stub:
            results = asyncio.run(act(stub))
        self.assertEqual([one[0].reward for one in results], [1.2] * 100)

    def test_turns_are_shorter_the_more_callers_there_are(self) -> None:
        gate = Turns()
        waits = []
        for gate.num_callers in (1, 32, 64, 3_200, 10**6):
            waits.append(gate.wait_ms())
        expected = [LONGEST_WAIT_MS, LONGEST_WAIT_MS, LONGEST_WAIT_MS // 2, 300, SHORTEST_WAIT_MS]
        self.assertEqual(waits, expected)

    def test_rollouts_carry_exactly_one_content(self) -> None:
        place = {"side": 0, "preferred_side": 0, "expected": (2, 2)}
        for content in [{}, {"judgement": "x", "score": 1.0}, {"score": 1.0, "fault": "truncated"}]:
            with self.assertRaises(ValueError):
                pair_rollout("c", **place, **content)
        self.assertEqual(
            pair_rollout("c", **place, judgement="x", truncated=True, rollout_id="r"),
            {
                "cohort_id": "c",
                "rollout_id": "r",
                "pair": {"side": 0, "preferred_side": 0, "expected": [2, 2]},
                "judgement": "x",
                "truncated": True,
            },
        )
        group = group_rollout("g", expected=4, rule="win_rate", score=2.0, rollout_id="r")
        self.assertEqual(group["group"], {"expected": 4, "rule": "win_rate"})
        ids = {group_rollout("g", expected=4, score=2.0)["rollout_id"] for _ in range(50)}
        self.assertEqual(len(ids), 50)


if __name__ == "__main__":
    unittest.main()
