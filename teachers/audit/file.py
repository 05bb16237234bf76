"""What is wrong in a file of rationales, and what a filtered copy leaves out. Pure functions.

*Errors* are lines that cannot be used, contradict the gold answer, or give it away; *warnings* are
what a reader should look at (lengths, repeated wording). See `lines.KINDS`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from dhrd_plugin.decisions import Decision
from dhrd_plugin.errors import DHRDError
from teachers.audit.copies import MAX_SHARE, find_copies
from teachers.audit.lines import KINDS, Finding, FindSplit, Row, check_line


@dataclass(frozen=True)
class Audit:
    """What was found in a file.

    Attributes:
        lines: how many lines there are, blank ones left out.
        rows: the kept rows in the file's order: usable lines, of several for one row the last (as
            `load_rationales` reads them).
        findings: by line.
        templates: what near-copies have in common, and how many of them; most frequent first.
    """

    lines: int
    rows: list[Row]
    findings: list[Finding]
    templates: list[tuple[str, int]]

    def lines_with(self, kind: str) -> set[int]:
        """The lines that have a finding of this kind."""
        return {finding.line for finding in self.findings if finding.kind == kind}

    @property
    def errors(self) -> list[Finding]:
        return [finding for finding in self.findings if KINDS[finding.kind].error]


def audit_file(lines: Iterable[bytes], find_split: FindSplit, *, default_split: str) -> Audit:
    """Check the lines of a file, full records or bare ones.

    Args:
        find_split: called for every line; it should remember what it has loaded.
        default_split: the split of lines that name none.
    """
    findings: list[Finding] = []
    rows: dict[str, Row] = {}  # by decision id, in the order of the lines that count
    n_lines = 0
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        n_lines += 1
        row, found = check_line(number, line, find_split, default_split=default_split)
        findings += found
        if row is None:
            continue
        earlier = rows.pop(row.decision.id, None)
        if earlier is not None:
            detail = f"{row.decision.id} has another rationale on line {number}"
            findings.append(Finding(earlier.line, "repeated", detail))
        rows[row.decision.id] = row
    kept = list(rows.values())
    copies = find_copies((row.rationale, shown_text(row.decision)) for row in kept)
    findings += _duplicates(kept)
    findings += (
        Finding(row.line, "copy", f"{share:.0%} of its own words recur in other rows")
        for row, share in zip(kept, copies.shares, strict=True)
        if share > MAX_SHARE
    )
    findings.sort(key=lambda finding: finding.line)
    return Audit(n_lines, kept, findings, copies.templates)


def _duplicates(rows: Iterable[Row]) -> Iterable[Finding]:
    first: dict[str, Row] = {}
    for row in rows:
        earlier = first.setdefault(" ".join(row.rationale.split()), row)
        if earlier is not row:
            detail = f"the text of line {earlier.line} ({earlier.decision.id})"
            yield Finding(row.line, "duplicate", detail)


def shown_text(decision: Decision) -> str:
    """The question and its choices: what a rationale may quote."""
    return "\n".join((decision.context, *decision.choices))


def dropped_lines(
    audit: Audit,
    *,
    min_sufficiency: float | None = None,
    drop_leaking: bool = False,
    drop_copies: bool = False,
) -> dict[int, str]:
    """Lines that a filtered copy leaves out, each with its first reason in words.

    Unusable lines always; by choice, rows whose gold answer a judge finds less probable than
    `min_sufficiency` from row and rationale; rows with answer words, or whose gold answer a judge
    predicts from the rationale alone; near-copies, and texts that an earlier row has.

    Raises:
        DHRDError: `min_sufficiency` in a file in which no row was verified.
    """
    if min_sufficiency is not None and not any("both" in row.judged for row in audit.rows):
        raise DHRDError(
            "--min-sufficiency: no row of the file has been verified. Run the `dhrd-teach` command "
            "that wrote it again with --verify (and --judge for another model), then audit anew."
        )
    kinds = {name for name, kind in KINDS.items() if kind.unusable}
    kinds |= {"leak"} if drop_leaking else set()
    kinds |= {"duplicate", "copy"} if drop_copies else set()
    dropped: dict[int, str] = {}
    for finding in audit.findings:
        if finding.kind in kinds:
            dropped.setdefault(finding.line, KINDS[finding.kind].title)
    for row in audit.rows:
        alone, both = row.judged.get("rationale"), row.judged.get("both")
        if drop_leaking and alone is not None and alone.right:
            dropped.setdefault(row.line, "the judge finds the answer from the rationale alone")
        if min_sufficiency is not None and both is None:
            dropped.setdefault(row.line, "not verified")
        elif min_sufficiency is not None and both is not None and both.gold_prob < min_sufficiency:
            dropped.setdefault(row.line, f"sufficiency below {min_sufficiency:g}")
    return dropped
