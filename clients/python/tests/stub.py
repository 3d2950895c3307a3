"""A stand-in for the server: the shapes of its routes, and faults on demand."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class StubServer:
    """Use as a context manager; ``faults`` are answered first, one a request."""

    def __init__(self, *, chunked: bool = False) -> None:
        self.seen: list[tuple[str, dict[str, str], Any]] = []
        self.faults: list[tuple[int, dict[str, str], Any]] = []
        self.chunked = chunked
        self.pending_rounds = 0
        self.lock = threading.Lock()
        handler = _handler(self)
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def __enter__(self) -> StubServer:
        serve = self.server.serve_forever
        threading.Thread(target=serve, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    def bodies(self, path: str) -> list[Any]:
        """What was posted to a route."""
        return [body for seen, _, body in self.seen if seen == path]

    def answer(self, path: str, body: Any) -> Any:
        """The reply of a route."""
        if path == "/v1/score":
            return {"model": "stub", "results": [_score(item) for item in body["items"]]}
        if path == "/v1/judge":
            return {"score": 7.0, "judgements": [], "asked": body}
        if path == "/v1/compare":
            return {"best": 0, "asked": body}
        if path == "/v1/par":
            with self.lock:
                is_pending = self.pending_rounds > 0
                self.pending_rounds -= is_pending
            return {"results": [_par(one, is_pending) for one in body["rollouts"]]}
        if path == "/get_reward":
            rewards = [float(len(query)) for query in body["query"]]
            logs = {"votes": [1.0] * len(rewards)}
            return {"rewards": rewards, "scores": [0.5] * len(rewards), "extra_logs": logs}
        return {"path": path}


def _score(item: Any) -> Any:
    if item["response"] == "unscorable":
        return {"score": None, "error": {"code": "unscored", "message": "no usable score"}}
    return {"score": float(len(item["response"]))}


def _par(one: Any, is_pending: bool) -> Any:
    ids = {"cohort_id": one["cohort_id"], "rollout_id": one["rollout_id"]}
    if one.get("judgement") == "late":
        error = {"code": "cohort_over", "message": "the cohort was completed without it"}
        return {**ids, "status": "refused", "error": error}
    if is_pending:
        return {**ids, "status": "pending", "state": {"phase": "open"}}
    score = one.get("score", 8.0 if "judgement" in one else None)
    answer = {
        "reward": None if "group" in one and score is None else 1.2,
        "par": 1.2,
        "format": 0.0,
        "score": score,
        "fault": one.get("fault"),
        "masked": score is None,
        "own_mean": 7.0,
        "other_mean": 5.0,
        "empty_side": False,
        "received": [1, 1],
        "complete": True,
    }
    return {**ids, "status": "rewarded", "answer": answer}


def _handler(stub: StubServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            self._act()

        def do_POST(self) -> None:
            self._act()

        def do_DELETE(self) -> None:
            self._act()

        def _act(self) -> None:
            data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            body = json.loads(data) if data else None
            with stub.lock:
                stub.seen.append((self.path, dict(self.headers), body))
                fault = stub.faults.pop(0) if stub.faults else None
            if fault is not None:
                self._reply(*fault)
            else:
                self._reply(200, {}, stub.answer(self.path, body))

        def _reply(self, status: int, headers: dict[str, str], body: Any) -> None:
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if stub.chunked:
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                for start in range(0, len(data), 7):
                    chunk = data[start : start + 7]
                    self.wfile.write(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n")
                self.wfile.write(b"0\r\n\r\n")
            else:
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

    return Handler
