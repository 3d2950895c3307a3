"""A running server with a judge whose words are known: the judge is a small
OpenAI-compatible engine in this process, and the server is the real program."""

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ROOT = pathlib.Path(__file__).resolve().parent.parent
HOSTILE = "<img src=x onerror=\"document.title='broken'\"></textarea><script>document.title='broken'</script>"
START_TIMEOUT_S = 60


def judgement(prompt):
    """What the engine writes: the longer the response, the higher the score; a response
    that says `unparsed` gets no score, and two responses get a verdict."""
    if "<verdict>" in prompt:
        return f"<rubrics>\nUse (100%): {HOSTILE}\n</rubrics>\n<evaluation>\nB.\n</evaluation>\n<verdict>B</verdict>"
    response = prompt.rsplit("response", 1)[-1]
    score = 3 + len(response) % 6
    answer = "<score>seven</score>" if "unparsed" in prompt else f"<score>{score}</score>"
    return (
        f"<rubrics>\nCorrectness (60%): the right result {HOSTILE}\nClarity (40%): easy to follow\n"
        "</rubrics>\n<evaluation>\nIt states the result and the step that leads there.\n"
        f"</evaluation>\n{answer}"
    )


class Engine(BaseHTTPRequestHandler):
    """Answers chat completions; a prompt that says `slow` takes its time."""

    slow = threading.Event()

    def log_message(self, *_):
        pass

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        prompt = body["messages"][-1]["content"]
        if "slow answer" in prompt:
            self.slow.wait(20)
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": judgement(prompt)},
            "finish_reason": "stop",
        }
        usage = {"prompt_tokens": 9, "completion_tokens": 50, "total_tokens": 59}
        data = json.dumps({"id": "x", "object": "chat.completion", "created": 0, "model": "m",
                           "choices": [choice], "usage": usage}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(data)


@contextlib.contextmanager
def engine():
    """The address of the engine."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Engine)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        Engine.slow.set()
        server.shutdown()
        server.server_close()


@contextlib.contextmanager
def serve(*arguments):
    """The address of a server with these arguments; it must stop cleanly at the end."""
    program = os.environ.get("PATARM_BIN", str(ROOT / "target" / "debug" / "patarm"))
    command = [program, "serve", "--port", "0", "--log-level", "warn", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline()
        if not line.startswith("listening on "):
            raise RuntimeError(f"patarm serve said {line!r}")
        yield line.removeprefix("listening on ").strip()
        process.send_signal(signal.SIGTERM)
        if process.wait(timeout=START_TIMEOUT_S) != 0:
            raise RuntimeError(f"patarm serve ended with {process.returncode}")
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
