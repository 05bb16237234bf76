"""A sweep's results in words: the table, what the best one's score is worth, the heat map."""

from __future__ import annotations

from rich.table import Table

from distill.sweep.space import Space, searched, text_of
from distill.sweep.trials import Sweep, Trial


def results_table(sweep: Sweep, space: Space) -> Table:
    """A row per trial, best first."""
    seeds = sweep.settings["seeds"]
    table = Table(title="Dev results (checkpoints and settings were chosen on them: optimistic)")
    table.add_column("trial")
    names = searched(space)
    score = "score" if seeds == 1 else "mean score"
    for name in [name.replace("_", "-") for name in names] + [score]:
        table.add_column(name, justify="right")
    if seeds > 1:
        table.add_column("of each seed")
    for name in ("-log p", "tokens", "seconds"):
        table.add_column(name, justify="right")
    for trial in sweep.ranked:
        settings = [f"{trial.params[name]:.3g}" for name in names]
        best = trial is sweep.best
        table.add_row(
            str(trial.number), *settings, *_results(trial, seeds), style="bold" if best else ""
        )
    return table


def _results(trial: Trial, seeds: int) -> list[str]:
    if trial.score is None:
        return ["failed"]
    of_each = [" ".join(f"{score:.3f}" for score in trial.scores)] if seeds > 1 else []
    result = [f"{trial.score:.3f}", *of_each, f"{trial.nll:.3f}"]
    return [*result, f"{trial.tokens:,}", f"{trial.wall_seconds:.0f}"]


def outcome(sweep: Sweep, trial: Trial) -> str:
    """A line on a trial that has just ended."""
    if trial.score is None:
        return f"Trial {trial.number} failed."
    text = f"Trial {trial.number}: dev score {trial.score:.3f}"
    best = sweep.best
    if best is None or best is trial:
        return f"{text}, the best so far"
    return f"{text}; trial {best.number} has {best.score:.3f}"


def failures(sweep: Sweep) -> list[str]:
    return [
        f"Trial {trial.number} ({text_of(trial.params)}) failed: {trial.failure}"
        for trial in sweep.trials
        if trial.failure is not None
    ]


def worth(sweep: Sweep, best: Trial) -> str:
    """What the best trial's score can show."""
    rows, smallest = sweep.independent_rows, sweep.smallest_difference
    text = (
        f"Trial {best.number} ({text_of(best.params)}) has the best dev score of "
        f"{len(sweep.trials)}, and was chosen for it: the score is optimistic. "
    )
    if smallest is None:
        return text + f"{rows} dev rows cannot show any difference between two students."
    others = [t for t in sweep.trials if t.score is not None and t is not best]
    closer = sum(best.value - other.value < smallest for other in others)
    return text + (
        f"{rows} dev rows show differences from {100 * smallest:.1f} points on (80% power): "
        f"{closer} of the other {len(others)} lie closer to it."
    )
