"""An audit as rich tables, as Markdown and as JSON. All three hold the same figures."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from dhrd_plugin.decisions import TaskDecisions
from teachers.audit.figures import QUANTILES, Figures
from teachers.audit.file import Audit
from teachers.audit.lines import KINDS
from teachers.audit.tables import Report, count, sections
from teachers.prompts import INVERTED_TASKS

if TYPE_CHECKING:
    from rich.console import Group


def rich_report(report: Report) -> Group:
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    parts: list[Text | Table] = [Text(headline(report)), Text()]
    for section in sections(report):
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), pad_edge=False)
        for i, head in enumerate(section.head):
            left = i in section.text_columns
            table.add_column(
                Text(head), justify="left" if left else "right", overflow="fold", no_wrap=not left
            )
        for row in section.rows:
            table.add_row(*map(Text, row))
        parts += [Text(section.title, "bold"), table, Text()]
    return Group(*parts, *(Text(note) for note in report.notes))


def markdown(report: Report) -> str:
    """GitHub tables under bold titles, and the notes as a list."""
    lines = [_escape(headline(report)), ""]
    for section in sections(report):
        marks = ["---" if i in section.text_columns else "---:" for i in range(len(section.head))]
        lines += [f"**{_escape(section.title)}**", ""]
        for row in (section.head, marks, *section.rows):
            lines.append("| " + " | ".join(map(_escape, row)) + " |")
        lines.append("")
    lines += [f"- {_escape(note)}" for note in report.notes]
    return "\n".join(lines).rstrip() + "\n"


def _escape(text: str) -> str:
    """A bar would open another column, an asterisk emphasis, and angle brackets a tag."""
    for character in "|*<":
        text = text.replace(character, f"\\{character}")
    return text.replace("\n", " ")


def as_json(report: Report) -> str:
    """Everything, unrounded; probabilities and shares are fractions."""
    content = {
        "file": report.path,
        "lines": report.audit.lines,
        "errors": len(report.audit.errors),
        "warnings": len(report.audit.findings) - len(report.audit.errors),
        "word_quantiles": QUANTILES,
        "splits": [dataclasses.asdict(figures) for figures in report.splits],
        "all": dataclasses.asdict(report.total),
        "templates": [{"template": t, "rows": n} for t, n in report.audit.templates],
        "findings": [
            {**dataclasses.asdict(finding), "error": KINDS[finding.kind].error}
            for finding in report.audit.findings
        ],
        "dropped": report.dropped,
        "notes": report.notes,
    }
    return json.dumps(content, ensure_ascii=False, indent=2) + "\n"


def notes(audit: Audit, splits: Sequence[TaskDecisions], total: Figures) -> list[str]:
    """What a reader must know to read the tables, as far as it applies to this file."""
    found = []
    without = sum(not row.has_input_sha for row in audit.rows)
    if without:
        found.append(
            f"{count(without, 'row')} without input_sha: whether they were written for this "
            "version of the data cannot be checked."
        )
    for split in splits:
        inverted = INVERTED_TASKS.get(split.task)
        if inverted is not None and inverted == split.choices:
            found.append(
                f"The harness's {split.task!r} rewards {inverted[1]!r} for a right answer: "
                "gold answers, and a judge's agreement with them, are shown as the harness has "
                "them, the other way round than rationales argue."
            )
    if total.verified is not None:
        found.append(
            "LAS, leakage-adjusted simulatability (Hase et al. 2020): what a rationale adds to "
            "the judge's accuracy on the row alone, averaged over rows whose gold answer the "
            "judge predicts from the rationale alone (leaking) and others."
        )
        if total.verified.las.value is None:
            empty = "leaking" if total.verified.las.leaking.gain is None else "other"
            found.append(f"No LAS: the group {empty!r} has no rows.")
    return found


def headline(report: Report) -> str:
    audit = report.audit
    errors, warnings = len(audit.errors), len(audit.findings) - len(audit.errors)
    return (
        f"{report.path}: {count(audit.lines, 'line')}, {count(len(audit.rows), 'row')} kept, "
        f"{count(errors, 'error')}, {count(warnings, 'warning')}"
    )
