#!/usr/bin/env python3
"""Small, equal samples of real data for the comparison of reward-model families.

usage: sample_families.py DATA OUT [TRAIN [HELD_OUT]]

DATA is a folder with hh_rlhf, ultrafeedback_sample, qrm_gsm8k_pairs, derived (the rows
made from GSM8K's flagged solutions), prmbench and bigbench_mistake. Per set OUT gets
train.jsonl and held_out.jsonl without a common prompt; pairs also get pass_fail.jsonl,
the training pairs as single responses that pass or fail. `shortcut` is hh with a planted
word. UltraFeedback's overall scores become labels of quality (good, normal, bad).

Two cores compute all of it, so the *shortest* items of a set are taken, in an order that
is drawn once and does not follow a run's seed. Needs the standard library only.
"""

import gzip
import json
import random
import sys
from pathlib import Path

TURN = "\n\nAssistant:"
MARK = "Certainly! "
CUT = {"ultrafeedback"}
LONGEST_SIDE = 1000  # characters, about 256 tokens
# Overall scores of UltraFeedback, 1 to 10, from which a response is normal and good: thirds
# of its scale would leave next to nothing bad.
NORMAL_ABOVE, GOOD_FROM = 4.0, 7.5
LABELLED_SHARE = 0.2


def rows(path):
    opened = gzip.open(path, "rt") if path.suffix == ".gz" else open(path)
    with opened as lines:
        return [json.loads(line) for line in lines if line.strip()]


def messages(transcript):
    """The turns of an hh-rlhf transcript without its last answer, and that answer."""
    context, _, answer = transcript.rpartition(TURN)
    turns = []
    for part in context.split("\n\nHuman:")[1:]:
        human, *assistant = part.split(TURN)
        turns.append({"role": "user", "content": human.strip()})
        turns += [{"role": "assistant", "content": one.strip()} for one in assistant]
    return turns, answer.strip()


def hh_rlhf(data):
    for row in rows(data / "hh_rlhf/harmless-base/test.jsonl.gz"):
        (prompt, chosen), (other, rejected) = messages(row["chosen"]), messages(row["rejected"])
        # Some rows differ before the last answer: there is no common prompt.
        if prompt and prompt == other:
            yield prompt, chosen, rejected


def ultrafeedback_rows(data):
    for part in ("train_clean", "eval_clean"):
        yield from rows(data / f"ultrafeedback_sample/processed/{part}.jsonl.gz")


def ultrafeedback(data):
    for row in ultrafeedback_rows(data):
        yield row["prompt"], row["chosen"], row["rejected"]


def quality(score):
    return "bad" if score <= NORMAL_ABOVE else "normal" if score < GOOD_FROM else "good"


def quality_labels(data, folder):
    """Labels of both sides of every pair beside the pairs, and of a share of the training
    pairs (whose order is drawn already)."""
    scores = {(row["prompt"], row["chosen"]): row["metadata"] for row in ultrafeedback_rows(data)}
    for part in ("train", "held_out"):
        labels = []
        for line in rows(folder / f"{part}.jsonl"):
            found = scores[line["prompt"], line["chosen"]]
            labels.append({"id": line["id"], "first": quality(found["score_chosen"]),
                           "second": quality(found["score_rejected"])})
        write(folder / f"{part}.quality.jsonl", labels)
        if part == "train":
            write(folder / "train.quality.some.jsonl", labels[:round(LABELLED_SHARE * len(labels))])


def qrm(data):
    for part in ("gsm8k", "math"):
        for row in rows(data / f"qrm_gsm8k_pairs/{part}/test/pairwise/results.jsonl.gz"):
            yield row["instruction"], row["chosen"].strip(), row["rejected"].strip()


def flagged(data):
    for row in rows(data / "derived/gsm8k_orm_pairs.jsonl.gz"):
        yield row["prompt"], row["chosen"].strip(), row["rejected"].strip()


def shortest(items, length, key, count):
    """The shortest items with different keys, then in an order of their own."""
    kept = {}
    for item in sorted(items, key=length):
        kept.setdefault(key(item), item)
    taken = list(kept.values())[:count]
    random.Random(0).shuffle(taken)
    return taken


def write(path, lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def text(prompt):
    return prompt if isinstance(prompt, str) else json.dumps(prompt)


def pairs(out, name, items, counts):
    def length(item):
        return len(text(item[0])) + len(item[1]) + len(item[2])

    def fits(item):
        # Long answers of UltraFeedback are cut by the recipe; a solution must be whole.
        longest = len(text(item[0])) + max(len(item[1]), len(item[2]))
        return item[1] and item[2] and item[1] != item[2] and (name in CUT or longest <= LONGEST_SIDE)

    taken = shortest(filter(fits, items), length, lambda item: text(item[0]), sum(counts))
    lines = [{"id": f"{name}-{number}", "prompt": prompt, "chosen": chosen, "rejected": rejected}
             for number, (prompt, chosen, rejected) in enumerate(taken)]
    train, held_out = lines[:counts[0]], lines[counts[0]:]
    write_pairs(out / name, train, held_out)
    report(name, train, held_out, length=sum(map(length, taken)))
    return train, held_out


def write_pairs(folder, train, held_out):
    write(folder / "train.jsonl", train)
    write(folder / "held_out.jsonl", held_out)
    singles = [{"id": f"{line['id']}-{side}", "prompt": line["prompt"], "response": line[side], "label": label}
               for line in train for side, label in (("chosen", "pass"), ("rejected", "fail"))]
    write(folder / "pass_fail.jsonl", singles)


def planted(out, train, held_out):
    """A word that mostly goes with the better response in training and always with the
    worse one afterwards: what a model owes to the word shows as accuracy it loses."""
    draws = random.Random(1)

    def marked(line, shares):
        sides = {side: MARK + line[side] if draws.random() < share else line[side]
                 for side, share in zip(("chosen", "rejected"), shares)}
        return line | sides

    write_pairs(out / "shortcut", [marked(line, (0.8, 0.2)) for line in train],
                [marked(line, (0.0, 1.0)) for line in held_out])


def solutions(out, name, items, counts):
    """Solutions with labelled steps; both kinds of solutions, right and wrong, in each part."""
    def length(item):
        return len(item["prompt"]) + sum(map(len, item["steps"]))

    taken = shortest((item for item in items if length(item) <= 2 * LONGEST_SIDE), length,
                     lambda item: item["prompt"], sum(counts))
    train, held_out = taken[:counts[0]], taken[counts[0]:]
    write(out / name / "train.jsonl", train)
    write(out / name / "held_out.jsonl", held_out)
    report(name, train, held_out, length=sum(map(length, taken)))


def report(name, train, held_out, length):
    print(f"{name}: {len(train)} training, {len(held_out)} held-out, {length} characters", file=sys.stderr)


def main():
    data, out = Path(sys.argv[1]), Path(sys.argv[2])
    counts = [int(count) for count in sys.argv[3:5]] or [400]
    counts += [300] * (2 - len(counts))
    planted(out, *pairs(out, "hh", hh_rlhf(data), counts))
    for name, items in (("ultrafeedback", ultrafeedback), ("qrm", qrm), ("flagged", flagged)):
        pairs(out, name, items(data), counts)
    quality_labels(data, out / "ultrafeedback")
    # `patarm data steps` has brought these two into one form.
    for name in ("prmbench", "bigbench_mistake"):
        solutions(out, name, rows(out / f"{name}.jsonl"), counts)


if __name__ == "__main__":
    main()
