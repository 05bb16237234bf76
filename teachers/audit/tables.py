"""The tables of an audit as plain text cells. No layout."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median_low

from teachers.audit.figures import QUANTILES, Figures, Label
from teachers.audit.file import Audit
from teachers.audit.lines import KINDS, Finding
from teachers.audit.simulatability import LAS, Verification
from teachers.budget import Usage
from teachers.checks import REASONS

NO_VALUE = "–"
MAX_LABELS = 6  # of a split, before the rest are taken together (candidates can be many)
MAX_TEMPLATES = 5
MAX_LINES = 6  # line numbers named for a kind of finding
BIN = 10  # words, of the histogram
MAX_BINS = 20
BAR = 30  # characters of the longest bar


@dataclass(frozen=True)
class Report:
    """All that is known about a file.

    Attributes:
        splits: figures of each split; `total` of all together.
        dropped: how many lines a filtered copy leaves out, by reason; None without a copy.
        notes: what a reader must know.
    """

    path: str
    audit: Audit
    splits: list[Figures]
    total: Figures
    dropped: dict[str, int] | None
    notes: list[str]

    @property
    def shown(self) -> list[Figures]:
        """A row of figures per split and, where there are several, one for all."""
        return [*self.splits, self.total] if len(self.splits) > 1 else self.splits


@dataclass(frozen=True)
class Section:
    """A table; `text_columns` are aligned to the left, all others (numbers) to the right."""

    title: str
    head: list[str]
    rows: list[list[str]]
    text_columns: tuple[int, ...] = (0,)


def sections(report: Report) -> Iterator[Section]:
    """The tables that have something to show."""
    yield Section(
        "Rows",
        ["", "kept", "of", "coverage", "rejected", "attempts", "origin"],
        [_rows(figures) for figures in report.shown],
        text_columns=(0, 6),
    )
    yield Section(
        "Text: median (5%–95%); rows with answer words, an earlier text, a template",
        ["", "words", "sentences", "leaking", "same text", "near-copies"],
        [_text(figures) for figures in report.shown],
    )
    judged = report.total.verified is not None
    yield Section(
        "Gold answers: kept rows against the split, and how many of them leak",
        ["", "answer", "kept", "share", "in split", "leaking", *["found alone"] * judged],
        [row for figures in report.splits for row in _labels(figures, judged)],
        text_columns=(0, 1),
    )
    guessed = [_guessed(figures) for figures in report.splits if figures.guessed is not None]
    if guessed:
        yield Section(
            "Gold answers guessed from the rationale's wording alone (naive Bayes)",
            ["", "guessed", "most frequent answer"],
            guessed,
        )
    verified = [(f.name, f.verified) for f in report.shown if f.verified is not None]
    if verified:
        yield Section(
            "Judge: mean P(gold), and how often it predicts gold, from what it is shown",
            ["", "rows", "row + rationale", "rationale alone", "row alone"],
            [[name, *_verified(figures)] for name, figures in verified],
        )
        yield Section(
            "LAS (95%): what rationales add to the row, where they leak and where not",
            ["", "LAS", "leaking", "rows", "others", "rows"],
            [[name, *_las(figures.las)] for name, figures in verified],
        )
    if report.total.rows:
        yield Section(
            "Words", ["words", "rows", ""], list(_histogram(report.total)), text_columns=(0, 2)
        )
    yield from _spent(report.total)
    if report.total.rejected:
        yield Section(
            "Rejected attempts and failed requests",
            ["", "times"],
            [[REASONS.get(name, name), f"{n:,}"] for name, n in report.total.rejected.items()],
        )
    if report.audit.templates:
        yield Section(
            "Most frequent templates",
            ["rows", "template"],
            [[f"{n:,}", template] for template, n in report.audit.templates[:MAX_TEMPLATES]],
            text_columns=(1,),
        )
    if report.audit.findings:
        yield Section(
            "Findings",
            ["", "", "lines", "which"],
            list(_findings(report.audit)),
            text_columns=(0, 1, 3),
        )
        yield Section(
            "The first of each",
            ["line", ""],
            [[f"{found.line:,}", found.detail] for found in _first_of_each(report.audit)],
            text_columns=(1,),
        )
    if report.dropped is not None:
        kept = report.audit.lines - sum(report.dropped.values())
        yield Section(
            "Filtered copy",
            ["", "lines"],
            [["kept", f"{kept:,}"], *([name, f"{n:,}"] for name, n in report.dropped.items())],
        )


def _rows(figures: Figures) -> list[str]:
    attempts = sum(number * rows for number, rows in figures.attempts.items())
    return [
        figures.name,
        f"{figures.rows:,}",
        f"{figures.in_split:,}",
        _share(figures.rows, figures.in_split),
        f"{sum(n for reason, n in figures.rejected.items() if reason != 'failed'):,}",
        f"{attempts / figures.rows:.2f}" if figures.rows else NO_VALUE,
        ", ".join(f"{name} {rows:,}" for name, rows in figures.origins.items()),
    ]


def _text(figures: Figures) -> list[str]:
    words = NO_VALUE
    if figures.words:
        at = dict(zip(QUANTILES, figures.words, strict=True))
        words = f"{at[0.5]:.0f} ({at[0.05]:.0f}–{at[0.95]:.0f})"
    return [
        figures.name,
        words,
        _range(figures.sentences),
        *(
            f"{number:,} ({_share(number, figures.rows)})"
            for number in (figures.leaking, figures.duplicates, figures.copies)
        ),
    ]


def _range(counts: dict[int, int]) -> str:
    """Median, least and most of what was counted."""
    if not counts:
        return NO_VALUE
    middle = median_low(value for value, rows in counts.items() for _ in range(rows))
    return f"{middle} ({min(counts)}–{max(counts)})"


def _guessed(figures: Figures) -> list[str]:
    most_frequent = max(label.rows for label in figures.labels)
    return [figures.name, f"{figures.guessed:.1%}", _share(most_frequent, figures.rows)]


def _labels(figures: Figures, judged: bool) -> list[list[str]]:
    labels = figures.labels
    if len(labels) > MAX_LABELS:
        rest = labels[MAX_LABELS - 1 :]
        others = Label(
            name=f"{len(rest)} others",
            rows=sum(label.rows for label in rest),
            in_split=sum(label.in_split for label in rest),
            leaking=sum(label.leaking for label in rest),
            verified=None,
        )
        labels = [*labels[: MAX_LABELS - 1], others]
    return [
        [
            figures.name if i == 0 else "",
            label.name,
            f"{label.rows:,}",
            _share(label.rows, figures.rows),
            _share(label.in_split, figures.in_split),
            _share(label.leaking, label.rows),
            *[_found_alone(label)] * judged,
        ]
        for i, label in enumerate(labels)
    ]


def _found_alone(label: Label) -> str:
    return NO_VALUE if label.verified is None else f"{label.verified.leaking:.1%}"


def _verified(verified: Verification) -> list[str]:
    return [
        f"{verified.rows:,}",
        f"{verified.sufficiency:.3f} ({verified.sufficient:.1%})",
        f"{verified.leakage:.3f} ({verified.leaking:.1%})",
        f"{verified.baseline:.3f} ({verified.baseline_right:.1%})",
    ]


def _las(las: LAS) -> list[str]:
    value = NO_VALUE if las.value is None else f"{las.value:+.3f}"
    if las.low is not None and las.high is not None:
        value += f" ({las.low:+.3f} to {las.high:+.3f})"
    groups = [
        text
        for group in (las.leaking, las.other)
        for text in (NO_VALUE if group.gain is None else f"{group.gain:+.3f}", f"{group.rows:,}")
    ]
    return [value, *groups]


def _histogram(figures: Figures) -> Iterator[list[str]]:
    counts: Counter[int] = Counter()  # by the first number of words in a bin
    for words, rows in figures.word_counts.items():
        counts[words // BIN * BIN] += rows
    first, last = min(counts), max(counts)
    rest = first + MAX_BINS * BIN  # whatever is longer goes into one bin
    bins = {f"{n}–{n + BIN - 1}": counts[n] for n in range(first, min(last + 1, rest), BIN)}
    if last >= rest:
        bins[f"from {rest}"] = sum(rows for start, rows in counts.items() if start >= rest)
    most = max(bins.values())
    for name, rows in bins.items():
        yield [name, f"{rows:,}", "█" * round(BAR * rows / most)]


def _spent(figures: Figures) -> Iterator[Section]:
    spent = {
        "kept rationales": figures.usage,
        "rejected attempts": figures.rejected_usage,
        "verification": figures.judge_usage,
    }
    spent = {name: usage for name, usage in spent.items() if usage.tokens}
    if spent:
        total = sum(spent.values(), Usage())
        yield Section(
            "Tokens and cost",
            ["", "prompt", "completion", "cost (USD)"],
            [_usage(name, usage) for name, usage in (*spent.items(), ("all", total))],
        )


def _usage(name: str, usage: Usage) -> list[str]:
    cost = NO_VALUE if usage.cost is None else f"{'≤ ' * usage.estimated}{usage.cost:,.4f}"
    return [name, f"{usage.prompt_tokens:,}", f"{usage.completion_tokens:,}", cost]


def _findings(audit: Audit) -> Iterator[list[str]]:
    for name, kind in KINDS.items():
        lines = sorted(audit.lines_with(name))
        if lines:
            which = ", ".join(map(str, lines[:MAX_LINES])) + ", …" * (len(lines) > MAX_LINES)
            severity = "error" if kind.error else "warning"
            yield [severity, kind.title, f"{len(lines):,}", which]


def _first_of_each(audit: Audit) -> list[Finding]:
    first: dict[str, Finding] = {}
    for finding in audit.findings:
        first.setdefault(finding.kind, finding)
    return [first[name] for name in KINDS if name in first]


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else NO_VALUE


def count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
