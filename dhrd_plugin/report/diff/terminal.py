"""A comparison of two models for the terminal: counts, then document by document.

Data is put into `Text`, which does not read markup; its control characters are gone already.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping

from rich import box
from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from dhrd_plugin.report.diff.comparison import GoldClass, TaskComparison
from dhrd_plugin.report.diff.documents import Document, Reply
from dhrd_plugin.report.diff.rationales import Rationale
from dhrd_plugin.report.diff.view import View, percent
from dhrd_plugin.report.table import p_text

BAR = 12  # characters of a probability of 1
EIGHTHS = " ▏▎▍▌▋▊▉"
STYLES = {True: "green", False: "red"}  # of right and wrong
VERDICTS = {True: "right", False: "wrong"}


def show(console: Console, parts: Iterable[RenderableType], *, pager: bool) -> None:
    """Print `parts`, through the user's pager if asked to."""
    if not pager:
        for part in parts:
            console.print(part)
        return
    os.environ.setdefault("LESS", "FRX")  # as git does: colours, and no paging of a single screen
    with console.pager(styles=True):
        for part in parts:
            console.print(part)


def render_summary(view: View) -> Iterator[RenderableType]:
    """Who is compared, counts per task, counts by right answer, notes."""
    for side, model in (("A", view.a), ("B", view.b)):
        files = ", ".join(dict.fromkeys(str(path) for _, path in model.scores))
        yield Text(f"{side}  {model.name}", "bold")
        yield Padding(Text(files, "dim", overflow="fold"), (0, 0, 0, 3))
    yield Text()
    yield _counts([section.task for section in view.sections])
    for section in view.sections:
        if classes := section.task.classes:
            yield Text(f"\n{section.task.name}, by right answer")
            yield _classes(classes)
    yield Text()
    yield from (Text(note) for note in view.notes)


def _counts(tasks: Iterable[TaskComparison]) -> Table:
    table = _table("", "n", "A right", "B right", "fixed", "broken", "both wrong", "p")
    for task in tasks:
        tally = task.tally
        right = (f"{100 * number / tally.n:.1f}%" for number in (tally.a_right, tally.b_right))
        changes = map(str, (tally.fixed, tally.broken, tally.both_wrong))
        table.add_row(Text(task.name), str(tally.n), *right, *changes, p_text(task.p_adjusted))
    return table


def _classes(classes: Iterable[GoldClass]) -> Table:
    table = _table("gold", "n", "A right", "B right", "fixed", "broken")
    for side in "AB":
        table.add_column(f"{side} said", overflow="fold")
    for group in classes:
        tally = group.tally
        numbers = (tally.n, tally.a_right, tally.b_right, tally.fixed, tally.broken)
        said = (
            Text(", ".join(f"{text}\N{NO-BREAK SPACE}{count}" for text, count in answers.items()))
            for answers in (group.a_said, group.b_said)
        )
        table.add_row(Text(group.label), *map(str, numbers), *said)
    return table


def _table(first: str, *numbers: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column(Text(first), overflow="fold")
    for head in numbers:
        table.add_column(head, justify="right", overflow="fold")
    return table


def render_documents(view: View) -> Iterator[RenderableType]:
    for section in view.sections:
        for document in section.documents:
            yield Text()
            title = Text(f"{kind_text(document.kind)}: {section.task.column} {document.doc_id}")
            yield Rule(title, align="left", style="dim")
            yield from _document(document, section.rationales.get(document.doc_id))


def kind_text(kind: str) -> str:
    return kind.replace("-", " ")


def _document(document: Document, rationale: Rationale | None) -> Iterator[RenderableType]:
    yield Text(document.question)
    yield Text()
    sides = {"A": document.a, "B": document.b}
    if document.choices:
        yield _choices(document, sides)
    else:
        yield Text.assemble(("right answer: ", "bold"), document.gold_text)
    for side, reply in sides.items():
        if reply.reasoning is not None:
            head = f"{side} wrote (answer: {reply.written})"
            yield from _quoted(Text(head, STYLES[reply.right]), reply.reasoning)
    if rationale is not None:
        source = f" ({rationale.source})" if rationale.source else ""
        yield from _quoted(Text(f"teacher{source}", "bold"), rationale.text)


def _quoted(head: Text, text: str) -> Iterator[RenderableType]:
    yield Text()
    yield head
    yield Padding(Text(text or "(nothing)"), (0, 0, 0, 2))


def _choices(document: Document, sides: Mapping[str, Reply]) -> Table:
    """A row per choice, with each model's probability as a bar, and a mark at what it answered."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column("", overflow="fold")
    table.add_column("", no_wrap=True)
    for side, reply in sides.items():
        head = Text(f"{side} {VERDICTS[reply.right]}", STYLES[reply.right])
        table.add_column(head, no_wrap=True, min_width=len(head))
    for i in document.notable:
        tag = Text("gold", "green") if i in document.gold else Text()
        cells = (_probability(reply, i) for reply in sides.values())
        table.add_row(Text(document.choices[i]), tag, *cells)
    if left_out := len(document.choices) - len(document.notable):
        table.add_row(Text(f"({left_out} less likely)", "dim"))
    return table


def _probability(reply: Reply, choice: int) -> Text:
    said = reply.said == choice
    mark = " ◂" if said else ""
    if reply.probs is None:
        return Text(mark.strip())
    bar = f"{_bar(reply.probs[choice])} {percent(reply.probs[choice]):>4}{mark}"
    return Text(bar, "bold" if said else "")


def _bar(probability: float) -> str:
    whole, eighths = divmod(round(8 * BAR * probability), 8)
    return ("█" * whole + EIGHTHS[eighths].strip()).ljust(BAR)
