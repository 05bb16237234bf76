"""A summary as Markdown, LaTeX, CSV and JSON, with the numbers of the terminal's table."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import re
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from typing import Any

from dhrd_plugin.report.benches import Bench, throughput_of
from dhrd_plugin.report.estimates import Difference, Estimate
from dhrd_plugin.report.summary import Summary
from dhrd_plugin.report.table import Line, grid, notes

CSV_FIELDS = (
    *("row", "task", "metric", "n", "runs", "value", "low", "high", "method", "baseline"),
    *("difference", "difference_low", "difference_high", "relative"),
    *("test", "p", "p_adjusted", "significant"),
)
LATEX = {
    **{char: f"\\{char}" for char in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "–": "--",
    **{"−": "$-$", "±": r"$\pm$", "×": r"$\times$", "·": r"$\cdot$", "→": r"$\to$"},
    **{"α": r"$\alpha$", "β": r"$\beta$", "γ": r"$\gamma$", "Δ": r"$\Delta$"},
}


def markdown(summary: Summary) -> str:
    """A GitHub table and the notes as a list."""
    heads, body = grid(summary)
    rows = [["", *("<br>".join(head) for head in heads)], ["---"] * (len(heads) + 1)]
    for name, cells in body:
        rows.append([_markdown(name), *("<br>".join(map(_markdown_line, cell)) for cell in cells)])
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    lines += ["", *(f"- {_markdown(note)}" for note in notes(summary))]
    return "\n".join(lines) + "\n"


def _markdown_line(line: Line) -> str:
    text = _markdown(line.text)
    return f"**{text}**" if line.strong else text


def _markdown(text: str) -> str:
    """A bar would open another column, the others emphasis, code, a link or a tag."""
    return re.sub(r"[\\|*`<\[]", r"\\\g<0>", text)


def latex(summary: Summary) -> str:
    """A `tabular` with the rules of booktabs, a line of it per line of a cell; the notes are
    comments above, escaped, to be taken into a caption."""
    heads, body = grid(summary)
    lines = [r"% Needs \usepackage{booktabs}.", *(f"% {_latex(note)}" for note in notes(summary))]
    lines += [rf"\begin{{tabular}}{{l{'l' * len(heads)}}}", r"\toprule"]
    lines += [
        " & ".join(["", *map(_latex, texts)]) + r" \\"
        for texts in zip_longest(*heads, fillvalue="")
    ]
    lines.append(r"\midrule")
    for name, cells in body:
        for i, parts in enumerate(zip_longest(*cells, fillvalue=Line(""))):
            lines.append(
                " & ".join([_latex_name(name) * (not i), *map(_latex_line, parts)]) + r" \\"
            )
    lines += [r"\bottomrule", r"\end{tabular}"]
    return "\n".join(lines) + "\n"


def _latex_name(name: str) -> str:
    """At the beginning of a row, where a bracket or a star would be an argument of what ends the
    row above."""
    return ("{}" if name.startswith(("[", "*")) else "") + _latex(name)


def _latex_line(line: Line) -> str:
    text = _latex(re.sub(r"(?<!\w)-(?=\d)", "−", line.text))
    return rf"\textbf{{{text}}}" if line.strong else text


def _latex(text: str) -> str:
    return "".join(LATEX.get(char, char) for char in text)


def tidy_csv(summary: Summary) -> str:
    """A line per row, task and metric (the SuperGLUE average among them): points, unrounded."""
    file = io.StringIO()
    writer = csv.DictWriter(file, CSV_FIELDS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(_records(summary))
    return file.getvalue()


def _records(summary: Summary) -> Iterator[dict[str, Any]]:
    for row in summary.rows:
        for task, cell in row.cells.items():
            for metric, score in cell.scores.items():
                about = {"row": row.name, "task": task, "metric": metric, "n": cell.n}
                yield about | _numbers(score, cell.differences.get(metric), summary.baseline)
        if row.average is not None:
            about = {"row": row.name, "task": "SuperGLUE", "metric": "average"}
            yield about | _numbers(row.average, row.average_difference, summary.baseline)


def _numbers(
    score: Estimate, difference: Difference | None, baseline: str | None
) -> dict[str, Any]:
    numbers = dataclasses.asdict(score)
    if difference is None:
        return numbers
    return numbers | {
        "baseline": baseline,
        "difference": difference.value,
        "difference_low": difference.low,
        "difference_high": difference.high,
        "relative": difference.relative,
        "test": difference.test,
        "p": difference.p_value,
        "p_adjusted": difference.p_adjusted,
        "significant": difference.significant,
    }


def as_json(summary: Summary, benches: Sequence[Bench] = ()) -> str:
    """The whole summary in points, unrounded, with the notes, and each row's throughput."""
    rows = [{**_fields(row), "throughput": throughput_of(row, benches)} for row in summary.rows]
    content = {**_fields(summary), "rows": rows, "notes": notes(summary)}
    return json.dumps(content, default=_fields, ensure_ascii=False, indent=2) + "\n"


def _fields(part: Any) -> dict[str, Any]:
    """Of a dataclass, for which json has no form of its own."""
    found = {field.name: getattr(part, field.name) for field in dataclasses.fields(part)}
    return found | {"significant": part.significant} if isinstance(part, Difference) else found
