#!/usr/bin/env python3
"""Makes crates/patarm-eval/src/nltk/english.txt, the built-in parameters of the sentence splitter.

The parameters that NLTK distributes ("punkt_tab") carry no clear licence, so ours are trained here,
with NLTK's own counting (Kiss and Strunk, 2006), on text under MIT and Apache-2.0:

    python testdata/make_punkt_english.py OUT FILE...     (needs nltk==3.9.1)

FILE: JSON or JSON lines, plain or gzipped; every string of 80 characters or more is text.

Only the orthographic contexts are learned: the text is chat, full of headings and lists, so that learned
abbreviations and collocations would be noise. The abbreviations and sentence starters stand below. A
flag is kept only when at least one in twenty occurrences of the word shows it; words seen fewer than
five times are left out.
"""

import collections
import gzip
import json
import sys

from nltk.tokenize import punkt

ABBREVIATIONS = """
a.d a.m adm apr apt assn assoc asst aug ave b.a b.c b.s blvd bldg brig bros c.e ca capt cf ch cmdr
co col comdr comp conn corp cpl ct d.c dec dept dist dr ed eds e.u eq esp esq est et ext feb fig
figs fl ft fr fri gal gen gov hon hr hrs inc incl insp intl jan jr lb lbs lt ltd m.a m.d m.s maj
messrs mfg mgr mins misc mr mrs ms msgr mt mts n.b n.y nat natl nos nov oct oz p.m p.p.s p.s pg ph.d
phd pl pp pres prof pt pvt rd rep reps rev r.s.v.p sec sen sens sep sept sgt sr st ste supt tel temp
thu thurs treas tue tues u.k u.n u.s u.s.a univ v vol vols vs wed wk yd yr yrs
""".split()
# Left out: what is also an ordinary word (in, no), and what ends sentences in chat and lists more often than
# not (etc, e.g, i.e, approx), which a splitter trained on news does not know either.
ABBREVIATIONS.sort()

# Closed-class words and adverbs that open a sentence even after an abbreviation.
STARTERS = sorted("""
according additionally after all also alternatively although another as at because before both but by
consequently conversely despite each even every finally first for furthermore hence he her here his how
however i if in indeed instead it its lastly later many meanwhile most moreover my nevertheless next no
nonetheless nor now once one others our overall perhaps second she similarly since so some such that the
their then there therefore these they third this those though thus to today under we what when where
while who why with yes yet you your
""".split())

FLAGS = (2, 4, 8, 16, 32, 64)


def strings(value):
    if isinstance(value, str):
        if len(value) >= 80:
            yield value
    elif isinstance(value, list):
        for item in value:
            yield from strings(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from strings(item)


def texts(path):
    opener = gzip.open if path.endswith(".gz") else open
    with opener(path, "rt", encoding="utf-8") as file:
        body = file.read()
    try:
        yield from strings(json.loads(body))
    except json.JSONDecodeError:
        for line in body.split("\n"):
            if line.strip():
                yield from strings(json.loads(line))


class Counter(punkt.PunktTrainer):
    """Counts each orthographic context instead of only setting its flag; learns nothing else."""

    def __init__(self):
        super().__init__()
        self._params.abbrev_types = set(ABBREVIATIONS)
        self.counts = collections.defaultdict(collections.Counter)
        self._params.add_ortho_context = lambda word, flag: self.counts[word].update([flag])

    def count(self, text):
        tokens = list(self._annotate_first_pass(self._tokenize_words(text)))
        self._get_orthography_data(tokens)


def main():
    out, paths = sys.argv[1], sys.argv[2:]
    seen = set()
    counter = Counter()
    for path in paths:
        for text in texts(path):
            if text in seen or not text.isascii():
                continue
            seen.add(text)
            counter.count(text)
    with open(out, "w", encoding="utf-8") as file:
        file.write("# Made by testdata/make_punkt_english.py; do not edit.\n")
        file.write(f"# {len(seen)} texts, {sum(map(len, seen))} characters.\n")
        for name, words in (("abbreviations", ABBREVIATIONS), ("starters", STARTERS)):
            file.write(f"[{name}]\n" + "".join(f"{word}\n" for word in words))
        file.write("[contexts]\n")
        for word, counts in sorted(counter.counts.items()):
            total = sum(counts.values())
            if total < 5 or "\t" in word:
                continue
            flags = sum(f for f in FLAGS if counts[f] * 20 >= total)
            file.write(f"{word}\t{flags}\n")


if __name__ == "__main__":
    main()
