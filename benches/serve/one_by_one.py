"""A scalar reward model as OpenRLHF's `serve_rm` serves it: PyTorch, one request at a time
in the handler, one forward a request. It speaks `POST /v1/score` as patarm does, so that
`patarm bench serve` can load it. Prints its address once it listens.

    python benches/serve/one_by_one.py MODEL [--threads N]
"""

import argparse
import http.server
import json
import signal
import sys

import torch
import transformers


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    model = tokenizer = None

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        results, tokens = [], 0
        for item in body["items"]:
            messages = [
                {"role": "user", "content": item["prompt"]},
                {"role": "assistant", "content": item["response"]},
            ]
            text = self.tokenizer.apply_chat_template(messages, tokenize=False)
            ids = self.tokenizer(text, add_special_tokens=False, return_tensors="pt")
            with torch.inference_mode():
                score = self.model(**ids).logits[0, 0].item()
            results.append({"id": item["id"], "score": score})
            tokens += ids["input_ids"].shape[1]
        reply = json.dumps({"model": "peer", "results": results, "prompt_tokens": tokens}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(reply)))
        self.end_headers()
        self.wfile.write(reply)

    def log_message(self, *_):
        pass


def main():
    options = arguments()
    torch.set_num_threads(options.threads)
    load = transformers.AutoModelForSequenceClassification.from_pretrained
    Handler.model = load(options.model, num_labels=1, dtype=torch.float32).eval()
    Handler.tokenizer = transformers.AutoTokenizer.from_pretrained(options.model)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    print(f"listening on http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
