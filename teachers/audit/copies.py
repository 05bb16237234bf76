"""Near-copies of a template: rationales that say what many others say, in the same words.

A rationale is cut into words; a run of QUOTED_RUN or more words that stands in the row's own input
is a quotation and becomes one blank. Of what is left, a word is *recurring* where it lies in a run
of RUN words (blanks included) that many rows of the file have. A rationale is a near-copy when more
than MAX_SHARE of its own words recur. So "The premise says …, so … follows from the passage.", the
blanks quoted from each row, is one; a stock phrase within an argument of one's own is not.

Where the limits come from: on 7,288 rationales of nine tasks, each written for its own row,
runs of five words recur so rarely that the 99th percentile of the share is at most 0.17 (0.29 for
the one-sentence ones of scenes) and the largest 0.5; templates whose blanks are quotations reach
1.0, and with two or three free words in each blank still 0.6. Runs of four words do not separate
them (largest honest share 0.62).
The price: a template that fills its blanks with long text of its own is not found.

Time and memory grow linearly with the file (but for one sort). scikit-learn's vectorizers count
n-grams, but do not say which words of a text they cover, hence numpy.
"""

from __future__ import annotations

import math
import re
from array import array
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

QUOTED_RUN = 3  # words
RUN = 5  # words
MIN_ROWS = 5  # that have a run in common, and at least
MIN_ROWS_SHARE = 1 / 2000  # of the rows: in long files everyday phrases recur by chance
MAX_SHARE = 0.5

BLANK = "…"
_WORD = re.compile(r"\w+(?:['’]\w+)*")


@dataclass(frozen=True)
class Copies:
    """What recurs in a file of rationales.

    Attributes:
        shares: for each rationale, the share of its own words (quotations left out) that recur.
        templates: (what recurs, with … for the rest; how many near-copies), most frequent first.
    """

    shares: NDArray[np.float64]
    templates: list[tuple[str, int]]


def find_copies(rationales: Iterable[tuple[str, str]]) -> Copies:
    """Look for templates among (rationale, its row's own input) pairs."""
    vocabulary = {BLANK: 0}
    words, lengths = array("Q"), array("Q")  # word ids of all rationales in a row, and of each
    for text, source in rationales:
        before = len(words)
        words.extend(
            vocabulary.setdefault(w, len(vocabulary)) for w in _blank_quotations(text, source)
        )
        lengths.append(len(words) - before)
    ids = np.array(words, dtype=np.uint64)
    rows = np.repeat(np.arange(len(lengths)), np.array(lengths, dtype=np.int64))
    min_rows = max(MIN_ROWS, math.ceil(MIN_ROWS_SHARE * len(lengths)))
    recurring = _in_common_runs(ids, rows, min_rows)
    own = ids != vocabulary[BLANK]
    own_words = np.bincount(rows, weights=own, minlength=len(lengths))
    own_recurring = np.bincount(rows, weights=own & recurring, minlength=len(lengths))
    shares = own_recurring / np.maximum(own_words, 1)
    spelled = list(vocabulary)
    ends = np.cumsum(lengths, dtype=np.int64)
    found: Counter[str] = Counter()
    for row in np.flatnonzero(shares > MAX_SHARE):
        part = slice(ends[row] - lengths[row], ends[row])
        found[_template([spelled[i] for i in ids[part]], recurring[part].tolist())] += 1
    return Copies(shares, found.most_common())


def _blank_quotations(text: str, source: str) -> list[str]:
    """The words of `text` in lower case, each run of words that stands in `source` as one blank."""
    words = _WORD.findall(text.lower())
    shown = f" {' '.join(_WORD.findall(source.lower()))} "
    quoted = [False] * len(words)
    for start in range(len(words) - QUOTED_RUN + 1):
        stop = start + QUOTED_RUN
        if f" {' '.join(words[start:stop])} " in shown:
            quoted[start:stop] = [True] * QUOTED_RUN
    return _blanked(words, quoted)


def _blanked(words: list[str], hidden: list[bool]) -> list[str]:
    """`words` with one blank for each run of hidden words, which next to a blank is none."""
    left: list[str] = []
    for word, hide in zip(words, hidden, strict=True):
        shown = BLANK if hide else word
        if shown != BLANK or left[-1:] != [BLANK]:
            left.append(shown)
    return left


def _in_common_runs(ids: NDArray[np.uint64], rows: NDArray[np.int64], min_rows: int) -> NDArray:
    """(W word ids), (W rows that they stand in) -> (W,) whether each lies in a run of RUN words
    that at least `min_rows` rows have."""
    covered = np.zeros(len(ids), dtype=bool)
    n_runs = len(ids) - RUN + 1
    if n_runs < 1:
        return covered
    factor = np.uint64(0x9E3779B97F4A7C15)
    hashes = np.zeros(n_runs, dtype=np.uint64)
    for offset in range(RUN):  # a polynomial modulo 2**64; word ids from 1, so that none is lost
        hashes = hashes * factor + ids[offset : n_runs + offset] + np.uint64(1)
    starts = np.flatnonzero(rows[:n_runs] == rows[RUN - 1 :])  # a run ends in its own row
    _, run = np.unique(hashes[starts], return_inverse=True)
    n_rows = int(rows[-1]) + 1
    pairs = np.unique(run * n_rows + rows[starts])  # a run counts once per row
    rows_with = np.bincount(pairs // n_rows)
    common = starts[rows_with[run] >= min_rows]
    for offset in range(RUN):
        covered[common + offset] = True
    return covered


def _template(words: list[str], recurring: list[bool]) -> str:
    return " ".join(_blanked(words, [not kept for kept in recurring]))
