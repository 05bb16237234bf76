"""Benches as tables: queries per second, latency, tokens, memory and cost of every side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any, NamedTuple

from dhrd_plugin.report.benches import KINDS, Bench, Kind, Side, Speed
from dhrd_plugin.report.table import NO_VALUE

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

LABELS: dict[Kind, str] = {
    "pooled": "pooled head",
    "plain": "plain classifier",
    "loglikelihood": "log-likelihood",
    "cot": "CoT",
}
HEADS = (
    "",
    "queries/s",
    "batch\nsize",
    "p50, p95\nms",
    "tokens\n+ written",
    "memory\nGiB",
    "USD\n/1,000",
    "times\nCoT",
)


class ThroughputTable(NamedTuple):
    """A bench as text: heads and cells of one or two lines, and what a reader must know."""

    title: str
    heads: list[str]
    rows: list[list[str]]
    notes: list[str]


class Ratio(NamedTuple):
    """How many times as many queries per second `kind` answers as `other`.

    The speed is in these times: of the medians, and the least and most that the repeats allow.
    """

    kind: Kind
    other: Kind
    times: Speed


def throughput_tables(benches: Sequence[Bench]) -> list[ThroughputTable]:
    """One for each bench; columns in which there is nothing are left out."""
    return [_table(bench) for bench in benches]


def ratios(bench: Bench) -> list[Ratio]:
    """Of every measured side to every one below it."""
    measured = [(kind, bench.speed(kind)) for kind in KINDS]
    return [
        Ratio(kind, other, over(ours, theirs))
        for (kind, ours), (other, theirs) in combinations(measured, 2)
        if ours and theirs
    ]


def over(ours: Speed, theirs: Speed) -> Speed:
    return Speed(ours.median / theirs.median, ours.low / theirs.high, ours.high / theirs.low)


def rich_throughput(benches: Sequence[Bench]) -> Group:
    """The tables for a terminal."""
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    parts: list[Any] = []
    for bench in throughput_tables(benches):
        table = Table(
            title=Text(bench.title),
            title_justify="left",
            box=box.SIMPLE_HEAD,
            show_edge=False,
            padding=(0, 1, 0, 0),
            pad_edge=False,
        )
        table.add_column(Text(bench.heads[0]))
        for head in bench.heads[1:]:
            table.add_column(Text(head), justify="right", no_wrap=True)
        for row in bench.rows:
            table.add_row(*map(Text, row))
        parts += [table, Text(), *map(Text, bench.notes), Text()]
    return Group(*parts)


def rich_ratios(bench: Bench) -> Table:
    """How the sides compare, for a terminal."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("queries/s of")
    table.add_column("over those of")
    table.add_column("ratio", justify="right")
    table.add_column("least–most", justify="right")
    for kind, other, times in ratios(bench):
        table.add_row(LABELS[kind], LABELS[other], f"{rate(times.median)}×", _span(times))
    return table


def throughput_markdown(benches: Sequence[Bench]) -> str:
    """GitHub tables, each with its title above and its notes as a list below."""
    lines: list[str] = []
    for bench in throughput_tables(benches):
        aligned = ["---", *["--:"] * (len(bench.heads) - 1)]
        lines += [f"**{bench.title}**", ""]
        for cells in (bench.heads, aligned, *bench.rows):
            lines.append("| " + " | ".join(cell.replace("\n", "<br>") for cell in cells) + " |")
        lines += ["", *(f"- {note}" for note in bench.notes), ""]
    return "\n".join(lines)


def rate(value: float) -> str:
    """Three significant digits, never in powers of ten.

    >>> rate(1234.5), rate(96.24), rate(4.137), rate(0.01234)
    ('1,230', '96.2', '4.14', '0.0123')
    """
    rounded = float(f"{value:.3g}")
    if rounded >= 100:
        return f"{rounded:,.0f}"
    return f"{rounded:.10f}".rstrip("0").rstrip(".")


def _table(bench: Bench) -> ThroughputTable:
    rows = [_row(side, bench.speed("cot")) for side in bench.sides]
    shown = [i for i in range(len(HEADS)) if i < 2 or any(row[i] != NO_VALUE for row in rows)]
    return ThroughputTable(
        title=f"{_model(bench)} on {bench.task}, {_machine(bench)}",
        heads=[HEADS[i] for i in shown],
        rows=[[row[i] for i in shown] for row in rows],
        notes=list(_notes(bench)),
    )


def _row(side: Side, cot: Speed | None) -> list[str]:
    speed = side.speed
    written = "" if side.generated_tokens is None else f"\n+ {_count(side.generated_tokens)}"
    return [
        LABELS[side.kind] if side.engine == "hf" else f"{LABELS[side.kind]} ({side.engine})",
        f"{rate(speed.median)}\n({_span(speed)})" if speed else NO_VALUE,
        _count(side.batch_size or side.concurrency),
        _latency(side),
        _count(side.input_tokens) + written,
        NO_VALUE if side.peak_memory is None else f"{side.peak_memory / 2**30:.2f}",
        NO_VALUE if side.cost_per_1000 is None else rate(side.cost_per_1000),
        rate(over(speed, cot).median) if speed and cot else NO_VALUE,
    ]


def _span(speed: Speed) -> str:
    return f"{rate(speed.low)}–{rate(speed.high)}"


def _count(value: float | None) -> str:
    return NO_VALUE if value is None else f"{value:,.0f}"


def _latency(side: Side) -> str:
    """In milliseconds."""
    if side.latency_p50 is None or side.latency_p95 is None:
        return NO_VALUE
    return f"{rate(1000 * side.latency_p50)}\n{rate(1000 * side.latency_p95)}"


def _model(bench: Bench) -> str:
    """The student's name, from a side that is one."""
    own = (s for s in bench.sides if s.kind in ("pooled", "cot") and s.engine == "hf")
    named = next(own, None) or next(iter(bench.sides), None)
    return named.name if named else "nothing"


def _machine(bench: Bench) -> str:
    hardware = bench.hardware
    return hardware.get("gpu") or f"{hardware['cpu']}, threads: {hardware['threads']}"


def _notes(bench: Bench) -> Iterator[str]:
    settings = bench.settings
    sizes = ", ".join(map(str, settings["batch_sizes"]))
    yield (
        f"Queries per second: {bench.documents} documents, from the prompt's text to the answer, "
        f"tokenising included; median of {settings['repeats']} runs (least–most) after a warm-up, "
        f"each side at its fastest batch size of {sizes}. All sides sort what they batch by "
        "length; pooled head and plain classifier hold batches to "
        f"{settings['batch_tokens']:,} tokens. The sides ran one after the other: a machine that "
        "was busier in between shows in their ratios."
    )
    for side in bench.sides:
        yield from _side_notes(bench, side)
    yield (
        "Latency (p50, p95): one document at a time. Tokens per document: read, without padding, "
        "in every sequence that is run; written, all that were decoded."
    )
    if any(side.peak_memory for side in bench.sides):
        what = "allocated on the GPU" if "gpu" in bench.hardware else "resident in its own process"
        yield f"Memory: most that was {what} during the timed runs."
    if settings.get("price_per_hour") is not None:
        yield f"Cost: at {settings['price_per_hour']:g} USD per hour of the machine."
    versions = ", ".join(f"{name} {number}" for name, number in bench.versions.items())
    yield f"{_hardware(bench)}; {_precisions(bench)}; {versions}."


def _side_notes(bench: Bench, side: Side) -> Iterator[str]:
    label, settings = LABELS[side.kind], bench.settings
    if side.kind == "cot" and side.speed:
        where = {
            "hf": "transformers",
            "vllm": f"vLLM, which was given all {side.concurrency} at once and batches by itself",
            "openai": f"a server, with {side.concurrency} requests in flight; it batches by itself",
        }[side.engine]
        yield (
            f"{label}: the first {side.documents} of these documents, {side.repeats} runs; prompt: "
            f"{settings['cot_prompt']}, at most {settings['cot_max_new_tokens']} new tokens; "
            f"decoded by {where}."
        )
    if side.batch_size == max(settings["batch_sizes"]) < side.documents:
        yield f"{label}: the largest batch size was the fastest; a larger one may be faster still."
    if side.problem:
        after = f" after {side.repeats} timed runs" if side.speed else ""
        yield f"{label}: {side.problem}{after}"


def _precisions(bench: Bench) -> str:
    """Of the weights, side by side where they differ."""
    known = {LABELS[side.kind]: side.precision for side in bench.sides if side.precision}
    if len(set(known.values())) > 1:
        return ", ".join(f"{label} in {precision}" for label, precision in known.items())
    return next(iter(known.values()), "precision unknown")


def _hardware(bench: Bench) -> str:
    hardware = bench.hardware
    gpu = f"{hardware['gpu']}, " if "gpu" in hardware else ""
    return f"{gpu}{hardware['cpu']}, cores: {hardware['cores']}, threads: {hardware['threads']}"
