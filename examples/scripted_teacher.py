#!/usr/bin/env python3
"""A teacher that follows a script, behind the OpenAI chat protocol.

It knows the better response of every prompt from a file of preferences, and prefers
it for a chosen share of the prompts; for the others it is wrong on purpose. Its judgements are well formed but say nothing about what they
judge, so that the score is all a student can learn from it. Use it to try a cold
start from a teacher without a large model:

    patarm data convert bundled:quickstart-train --to trl --out labels.jsonl
    python3 examples/scripted_teacher.py --labels labels.jsonl --right 0.8 --port 8077
    patarm train recipes/quickstart.toml \\
        --set 'cold_start.source={ kind = "teacher", model = "openai:http://127.0.0.1:8077/v1#scripted", judgements = 2 }'

Every answer is a function of the seed, the question and the request's own seed:
the same requests get the same answers, in any order. Needs the standard library only.
"""

import argparse
import hashlib
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

CRITERIA = ["Use", "Help", "Detail", "Focus", "Topic", "Facts", "Style", "Reason", "Structure"]
WEIGHTS = [(50, 50), (60, 40), (40, 60), (70, 30)]
NOTES = ["Each point was weighed.", "Read from start to end.", "Both criteria were applied.",
         "Checked point by point.", "Judged on the whole.", "Taken as it stands."]
LARGEST_REQUEST = 1 << 20


def draw(limit, *coordinates):
    """A whole number below `limit` that depends on the coordinates alone."""
    digest = hashlib.sha256(json.dumps(coordinates).encode()).digest()
    return int.from_bytes(digest[:8], "big") % limit


class Labels:
    """The better response of every prompt; any other response to it is the worse one."""

    def __init__(self, path):
        self.chosen = {}
        with open(path, encoding="utf-8") as file:
            for line in filter(str.strip, file):
                row = json.loads(line)
                self.chosen.setdefault(row["prompt"], set()).add(row["chosen"])
        # Longest first: a short prompt may be part of a long one.
        self.prompts = sorted(self.chosen, key=len, reverse=True)

    def find(self, text):
        """The prompt that `text` asks about, and whether the better response is shown."""
        for prompt in self.prompts:
            at = text.find(prompt)
            if at >= 0:
                rest = text[at + len(prompt):]
                return prompt, any(chosen in rest for chosen in self.chosen[prompt])
        return None


class Teacher:
    """Turns a judge prompt into a judgement."""

    def __init__(self, options):
        self.options, self.labels = options, Labels(options.labels)
        self.rubric, self.note, self.score = options.tags.split(",")

    def is_right(self, prompt):
        return draw(1_000_000, self.options.seed, "right", prompt) < self.options.right * 1e6

    def judge(self, text, seed):
        found = self.labels.find(text)
        if found is None:
            return None
        prompt, is_chosen = found
        at = (self.options.seed, text, seed)
        is_high = is_chosen == self.is_right(prompt)
        half = (self.options.high - self.options.low + 1) // 2
        step = draw(half, *at, "score")
        score = self.options.high - step if is_high else self.options.low + step
        first = draw(len(CRITERIA), *at, "first")
        second = (first + 1 + draw(len(CRITERIA) - 1, *at, "second")) % len(CRITERIA)
        weights = WEIGHTS[draw(len(WEIGHTS), *at, "weights")]
        rubric = "\n".join(f"{CRITERIA[name]} ({weight})"
                           for name, weight in zip((first, second), weights))
        note = NOTES[draw(len(NOTES), *at, "note")]
        return (f"<{self.rubric}>{rubric}</{self.rubric}>\n<{self.note}>{note}</{self.note}>\n"
                f"<{self.score}>{score}</{self.score}>")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    teacher = None

    def do_POST(self):
        length = int(self.headers.get("content-length", 0))
        if not 0 < length <= LARGEST_REQUEST:
            return self.answer(413, {"error": {"message": "the request is empty or too long"}})
        try:
            request = json.loads(self.rfile.read(length))
            text = "\n".join(message["content"] for message in request["messages"])
        except (ValueError, KeyError, TypeError):
            return self.answer(400, {"error": {"message": "not a chat request"}})
        judgement = self.teacher.judge(text, request.get("seed", 0))
        if judgement is None:
            return self.answer(404, {"error": {"message": "no pair of the labels is asked about"}})
        message = {"role": "assistant", "content": judgement}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        self.answer(200, {"object": "chat.completion", "model": "scripted", "choices": [choice]})

    def answer(self, status, value):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--labels", required=True, help="JSON lines with prompt, chosen, rejected")
    parser.add_argument("--right", type=float, default=0.8, help="share of prompts judged rightly")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--port", type=int, default=8077)
    parser.add_argument("--tags", default="rule,note,score", help="rubric, evaluation and score")
    parser.add_argument("--low", type=int, default=1)
    parser.add_argument("--high", type=int, default=9)
    options = parser.parse_args()
    Handler.teacher = Teacher(options)
    server = ThreadingHTTPServer(("127.0.0.1", options.port), Handler)
    print(f"teaching at http://127.0.0.1:{server.server_address[1]}/v1", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
