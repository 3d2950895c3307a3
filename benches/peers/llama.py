"""Decoding in llama.cpp, by a published binding (`pip install xllamacpp`), from a GGUF file.

    python benches/peers/llama.py MODEL.gguf [--rows 1] [--prompt 256] [--length 64]

As `patarm bench rollout --model MODEL.gguf --precision quantised`: prompts of `--prompt`
tokens, none like another, `--length` new ones each, no end before that. A round of all
rows comes first and does not count. Prints one line of JSON; tokens/s are those of the
generated tokens, by llama.cpp's own clock. With several rows that clock holds the prompts
of other rows too: only one row is a measurement of decoding.
"""

import argparse
import json
import statistics
import threading
import time

import xllamacpp


def server(options):
    params = xllamacpp.CommonParams()
    params.model.path = options.model
    params.n_parallel = options.rows
    params.n_ctx = options.rows * (options.prompt + options.length + 8)
    params.cpuparams.n_threads = options.threads
    params.cpuparams_batch.n_threads = options.threads
    params.n_gpu_layers = 0
    params.warmup = True
    return xllamacpp.Server(params)


def one_round(running, options, start):
    """Answers of all rows at once, and the seconds they took."""
    answers = [None] * options.rows

    def ask(row):
        prompt = [100 + (7 * token + 131 * (start + row)) % 40000 for token in range(options.prompt)]
        asked = {"prompt": prompt, "n_predict": options.length, "ignore_eos": True,
                 "temperature": 1.0, "cache_prompt": False}
        answers[row] = running.handle_completions(asked)

    rows = [threading.Thread(target=ask, args=(row,)) for row in range(options.rows)]
    began = time.perf_counter()
    for row in rows:
        row.start()
    for row in rows:
        row.join()
    seconds = time.perf_counter() - began
    return [json.loads(one) if isinstance(one, str) else one for one in answers], seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model")
    for name, default in [("rows", 1), ("prompt", 256), ("length", 64), ("threads", 2), ("repeats", 3)]:
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    running = server(options)
    rates, times = [], []
    for repeat in range(options.repeats + 1):
        answers, seconds = one_round(running, options, repeat * options.rows)
        timings = [one["timings"] for one in answers]
        assert all(one["predicted_n"] == options.length for one in timings), timings
        longest = max(one["predicted_ms"] for one in timings) / 1e3
        if repeat:
            rates.append(options.rows * options.length / longest)
            times.append(seconds)
    print(json.dumps({
        "what": "rollout", "engine": "llama.cpp", "rows": options.rows, "threads": options.threads,
        "decode_tokens_per_s": statistics.median(rates), "seconds": statistics.median(times),
        "repeats": options.repeats}))


if __name__ == "__main__":
    main()
