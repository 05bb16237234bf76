"""A comparison of two models as one self-contained HTML file."""

from __future__ import annotations

from dhrd_plugin.report.diff.documents import KINDS
from dhrd_plugin.report.diff.view import View, percent
from dhrd_plugin.report.pages import render
from dhrd_plugin.report.table import p_text


def html_diff(view: View) -> str:
    """The page; its filters offer what there is to choose from."""
    shown = [document.kind for section in view.sections for document in section.documents]
    golds = [group.label for section in view.sections for group in section.task.classes]
    return render(
        "diff.html.j2",
        view=view,
        kinds=[kind for kind in KINDS if kind in shown],
        golds=list(dict.fromkeys(golds)),
        percent=percent,
        p_text=p_text,
    )
