"""Which combinations are tried: Optuna's samplers over a space."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from dhrd_plugin.errors import DHRDError
from distill.sweep.space import Params, Range, Space

if TYPE_CHECKING:
    from optuna import Trial
    from optuna.samplers import BaseSampler

SAMPLERS = ("grid", "tpe")
TPE_TRIALS = 20


def search(
    space: Space,
    evaluate: Callable[[Params], float],
    *,
    sampler: str,
    trials: int | None,
    seed: int,
) -> None:
    """Ask for the value of one combination after the other; the higher, the better.

    What is asked depends on the arguments and on the values alone. So nothing of Optuna's needs to
    be stored: a search is continued by running it again and giving the known values at once.
    (Optuna's own files keep the trials, but not the state of the sampler's random numbers.)

    Args:
        evaluate: gets no combination of a grid twice, but some of lists under TPE; NaN says that
            the combination has no value.
        sampler: "grid" (each combination of lists, in an order drawn by `seed`) or "tpe"
            (tree-structured Parzen estimator: Bergstra et al. 2011, NeurIPS).
        trials: combinations at most; None for all of a grid, TPE_TRIALS for TPE.

    Raises:
        DHRDError: Optuna is not installed.
    """
    try:
        import optuna
    except ImportError:
        raise DHRDError("A sweep needs Optuna: pip install 'dhrd[sweep]'") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    chosen: BaseSampler
    if sampler == "grid":
        grid = {name: v for name, v in space.items() if not isinstance(v, Range)}
        chosen = optuna.samplers.GridSampler(grid, seed=seed)  # ends the search after the last one
    else:
        chosen = optuna.samplers.TPESampler(seed=seed)
        trials = trials or TPE_TRIALS

    def objective(trial: Trial) -> float:
        value = evaluate({name: _suggest(trial, name, v) for name, v in space.items()})
        if math.isnan(value):  # TPE ranks pruned trials last; failed ones it would try again
            raise optuna.TrialPruned
        return value

    study = optuna.create_study(direction="maximize", sampler=chosen)
    study.optimize(objective, n_trials=trials)


def most_combinations(space: Space, *, sampler: str, trials: int | None) -> int:
    """How many different ones `search` asks for at most."""
    total = math.prod(math.inf if isinstance(v, Range) else len(v) for v in space.values())
    asked_for = trials or (TPE_TRIALS if sampler == "tpe" else total)
    return int(min(asked_for, total))


def _suggest(trial: Trial, name: str, values: tuple[float, ...] | Range) -> float:
    if isinstance(values, Range):
        return trial.suggest_float(name, values.low, values.high, log=values.log)
    return trial.suggest_categorical(name, values)
