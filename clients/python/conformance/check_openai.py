"""The ``openai`` client against a running server with a generative model: ``check_openai.py URL``."""

from __future__ import annotations

import math
import sys

import openai
from _report import Report

MESSAGES = [{"role": "user", "content": "Answer with one word: what colour is grass?"}]


def complete(client: openai.OpenAI, model: str, **options):
    options = {"max_tokens": 8, "temperature": 0, **options}
    return client.chat.completions.create(model=model, messages=MESSAGES, **options)


def main() -> None:
    report = Report("openai", "openai")
    client = openai.OpenAI(base_url=f"{sys.argv[1]}/v1", api_key="none", max_retries=0)
    models = [model.id for model in client.models.list()]
    report.check("models.list names the models", len(models) >= 1, models)
    model = models[0]

    plain = complete(client, model)
    choice = plain.choices[0]
    report.check("a completion has text", isinstance(choice.message.content, str), choice)
    report.check("and a finish reason", choice.finish_reason in ("stop", "length"), choice.finish_reason)
    report.check("and a usage that adds up", usage_adds_up(plain.usage), plain.usage)
    again = complete(client, model)
    report.check("greedy completions repeat", again.choices[0].message == choice.message, again)

    seeded = [complete(client, model, temperature=1.0, seed=7, n=2) for _ in range(2)]
    texts = [[c.message.content for c in one.choices] for one in seeded]
    report.check("n gives n choices", len(texts[0]) == 2, texts)
    report.check("a seed repeats", texts[0] == texts[1], texts)

    check_logprobs(report, complete(client, model, logprobs=True).choices[0])
    check_top_logprobs(report, client, model)
    check_stream(report, client, model, choice.message.content)
    check_errors(report, client, model)
    report.finish()


def usage_adds_up(usage) -> bool:
    return usage is not None and usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


def check_logprobs(report: Report, choice) -> None:
    tokens = choice.logprobs.content if choice.logprobs else None
    report.check("logprobs come with every token", bool(tokens), choice)
    if not tokens:
        return
    report.check("they are log-probabilities", all(t.logprob <= 1e-6 for t in tokens), tokens[0])
    joined = b"".join(bytes(t.bytes) for t in tokens if t.bytes is not None).decode("utf-8", "replace")
    content = choice.message.content or ""
    report.check("their bytes spell the text", content.strip() in joined, (joined, content))


def check_top_logprobs(report: Report, client: openai.OpenAI, model: str) -> None:
    try:
        choice = complete(client, model, logprobs=True, top_logprobs=3).choices[0]
    except openai.BadRequestError as error:
        report.check("top_logprobs is refused, not ignored", "top_logprobs" in error.message, error)
        report.note("the server gives no top_logprobs")
        return
    tops = [token.top_logprobs for token in choice.logprobs.content]
    report.check("top_logprobs has what was asked", all(len(top) == 3 for top in tops), tops[0])
    first = choice.logprobs.content[0]
    best = max(token.logprob for token in first.top_logprobs)
    report.check("greedy takes the likeliest", math.isclose(best, first.logprob, abs_tol=1e-4), first)


def check_stream(report: Report, client: openai.OpenAI, model: str, whole: str) -> None:
    try:
        chunks = list(complete(client, model, stream=True))
    except openai.APIStatusError as error:
        report.note(f"streaming is refused: {error.status_code} {error.message}")
        return
    deltas = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    report.check("streamed pieces make the same text", "".join(deltas) == whole, deltas)


def check_errors(report: Report, client: openai.OpenAI, model: str) -> None:
    try:
        complete(client, "no-such-model")
        report.check("an unknown model is refused", False)
    except openai.NotFoundError as error:
        report.check("an unknown model is 404 with a message", bool(error.message), error)
    try:
        complete(client, model, temperature=-1)
        report.check("a bad temperature is refused", False)
    except openai.APIStatusError as error:
        report.check("a bad temperature is a 4xx", 400 <= error.status_code < 500, error.status_code)


if __name__ == "__main__":
    main()
