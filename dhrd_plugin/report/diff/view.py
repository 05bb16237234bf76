"""What of a comparison is shown, on the terminal and as a page alike."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dhrd_plugin.report.diff.comparison import Model, TaskComparison, compare
from dhrd_plugin.report.diff.documents import KINDS, Document
from dhrd_plugin.report.diff.rationales import Key, Rationale, load_rationales


@dataclass(frozen=True)
class Section:
    """One task.

    Attributes:
        documents: those to show, in this order.
        left_out: number of disagreements that are not shown.
        rationales: by `doc_id`, those that fit their document.
        stale: number of rationales that do not.
    """

    task: TaskComparison
    documents: tuple[Document, ...]
    left_out: int
    rationales: dict[int, Rationale]
    stale: int


@dataclass(frozen=True)
class View:
    """Two models; `notes` say what one must know to read it, as far as it applies."""

    a: Model
    b: Model
    sections: tuple[Section, ...]
    notes: tuple[str, ...]


def make_view(
    a: Model,
    b: Model,
    *,
    tasks: Sequence[str] = (),
    kinds: Sequence[str] = tuple(KINDS),
    limit: int | None = None,
    rationales: Sequence[Path] = (),
) -> View:
    """Compare two models, and choose what to show.

    Args:
        tasks: all common ones if empty.
        kinds: of documents, in the order in which to show them.
        limit: documents of each kind and task at most.
        rationales: files of a teacher's rationales.

    Raises:
        DHRDError: see `compare` and `load_rationales`.
    """
    compared = compare(a, b, tasks)
    known = load_rationales(rationales, {task.column for task in compared})
    sections = tuple(_section(task, kinds, limit, known) for task in compared)
    notes = [*_notes_on_numbers(compared), *_notes_on_documents(sections)]
    if rationales:
        notes += _notes_on_rationales(sections, known)
    return View(a, b, sections, tuple(notes))


def _section(
    task: TaskComparison, kinds: Sequence[str], limit: int | None, known: Mapping[Key, Rationale]
) -> Section:
    differing = task.disagreements
    shown = [d for kind in kinds for d in [d for d in differing if d.kind == kind][:limit]]
    found = [(d, known.get((task.column, task.split, d.doc_id))) for d in shown]
    there = [(document, rationale) for document, rationale in found if rationale is not None]
    fitting = {d.doc_id: rationale for d, rationale in there if rationale.fits(d)}
    return Section(
        task=task,
        documents=tuple(shown),
        left_out=len(differing) - len(shown),
        rationales=fitting,
        stale=len(there) - len(fitting),
    )


def _notes_on_numbers(compared: Sequence[TaskComparison]) -> Iterator[str]:
    yield (
        "fixed: A wrong, B right. broken: A right, B wrong. p: exact McNemar test of fixed against "
        "broken, two-sided"
        + (", after Holm's correction over the tasks." if len(compared) > 1 else ".")
    )
    if shared := [task.name for task in compared if task.clustered]:
        yield (
            f"p of {', '.join(shared)}: a t-test over questions instead, since several documents "
            "belong to one and are not independent."
        )
    for side in "AB":
        if any(side in task.softmaxed for task in compared):
            yield f"{side}: a language model's log-likelihoods, made probabilities by softmax."


def _notes_on_documents(sections: Sequence[Section]) -> Iterator[str]:
    yield (
        "The surer a wrong model was, the earlier its document comes. Where both are wrong, only "
        "different answers are shown."
    )
    if left_out := sum(section.left_out for section in sections):
        yield f"Documents on which the models disagree but which are not shown: {left_out}."


def _notes_on_rationales(
    sections: Sequence[Section], known: Mapping[Key, Rationale]
) -> Iterator[str]:
    shown = sum(len(section.documents) for section in sections)
    found = [r for section in sections for r in section.rationales.values()]
    if stale := sum(section.stale for section in sections):
        yield (
            f"{stale} rationales are not shown: they were written for another version of the "
            "question, or argue for another answer."
        )
    if not found and not stale:
        wanted = ", ".join(f"{s.task.column}/{s.task.split}" for s in sections)
        have = ", ".join(sorted({f"{task}/{split}" for task, split, _ in known})) or "none of these"
        yield (
            f"No rationale for a document shown here: they are of {wanted}, and the files have "
            f"{have}. `dhrd-teach --split validation` writes them for the validation split."
        )
    elif len(found) < shown:
        yield f"A rationale is known for {len(found)} of {shown} documents."
    if any(rationale.input_sha is None for rationale in found):
        yield "Some rationales say only which row they are of, not which version of its text."


def percent(probability: float) -> str:
    return "<1%" if 0 < probability < 0.005 else f"{100 * probability:.0f}%"
