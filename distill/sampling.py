"""Which rows an epoch reads, and in which order, when tasks differ in size."""

from __future__ import annotations

from collections.abc import Sequence

SAMPLINGS = ("proportional", "temperature", "uniform")
POOL = 16  # windows whose rows are sorted together


def epoch_order(
    task_of_row: Sequence[int],
    *,
    seed: int,
    epoch: int,
    sampling: str = "proportional",
    temperature: float = 2.0,
) -> list[int]:
    """Row indices of an epoch, as many as there are rows; a function of the arguments alone.

    Resuming depends on the latter. With `n_t` rows, task t's share of the epoch is proportional to

    - `n_t` under "proportional": each row once;
    - `n_t ** (1 / temperature)` under "temperature": temperature-scaled mixing (T5, arXiv
      1910.10683, section 3.5.2), the exponentiated sampling of multilingual BERT (exponent 0.7)
      and XLM-R (0.3, arXiv 1911.02116). 1 is proportional, infinity uniform;
    - 1 under "uniform".

    What does not divide evenly goes to the largest remainders. A task repeats its rows only when
    all have been read; of one with more rows than its share, each epoch draws anew.

    Args:
        task_of_row: the task of each row, as a number.
        temperature: above 0; read by "temperature" alone.

    >>> tasks = [0] * 6 + [1] * 2
    >>> order = epoch_order(tasks, seed=0, epoch=0, sampling="uniform")
    >>> sorted(tasks[row] for row in order)
    [0, 0, 0, 0, 1, 1, 1, 1]
    """
    import torch  # not at the top: the command line reads SAMPLINGS for its --help

    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)

    def permuted(rows: Sequence[int]) -> list[int]:
        return [rows[i] for i in torch.randperm(len(rows), generator=generator).tolist()]

    if sampling == "proportional":
        return permuted(range(len(task_of_row)))
    exponent = {"temperature": 1 / temperature, "uniform": 0.0}[sampling]
    rows_of_task: dict[int, list[int]] = {}
    for row, task in enumerate(task_of_row):
        rows_of_task.setdefault(task, []).append(row)
    largest = max(map(len, rows_of_task.values()))  # powers of shares of it cannot overflow
    weights = [(len(rows) / largest) ** exponent for rows in rows_of_task.values()]
    counts = apportion(len(task_of_row), weights)
    chosen: list[int] = []
    for rows, count in zip(rows_of_task.values(), counts, strict=True):
        drawn: list[int] = []
        while len(drawn) < count:
            drawn += permuted(rows)
        chosen += drawn[:count]
    return permuted(chosen)


def group_by_length(
    order: Sequence[int], lengths: Sequence[int], *, window: int, seed: int, epoch: int
) -> list[int]:
    """`order` with rows of like length in one window, and so less padding.

    As transformers' `group_by_length`: the rows of every `POOL` windows are sorted by length and
    cut into windows anew, and all full windows are shuffled. A function of the arguments alone.

    Args:
        order: row indices of an epoch.
        lengths: tokens of each row.
        window: rows of an optimizer step.

    >>> lengths = [9, 1, 8, 2, 7, 3]
    >>> order = group_by_length(range(6), lengths, window=2, seed=0, epoch=0)
    >>> sorted([lengths[a], lengths[b]] for a, b in zip(order[::2], order[1::2]))
    [[2, 1], [7, 3], [9, 8]]
    """
    import torch

    grouped: list[int] = []
    for start in range(0, len(order), POOL * window):
        grouped += sorted(order[start : start + POOL * window], key=lambda row: -lengths[row])
    full = len(grouped) // window
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    shuffled = torch.randperm(full, generator=generator).tolist()
    windows = [grouped[i * window : (i + 1) * window] for i in shuffled]
    return [row for rows in windows for row in rows] + grouped[full * window :]


def apportion(total: int, weights: Sequence[float]) -> list[int]:
    """`total` split into whole parts in proportion to `weights`, by the largest remainder.

    Of equal remainders the earlier wins.

    >>> apportion(10, [1, 1, 1])
    [4, 3, 3]
    >>> apportion(10, [3, 2, 2])  # 4.29, 2.86, 2.86
    [4, 3, 3]
    """
    quotas = [total * weight / sum(weights) for weight in weights]
    parts = [int(quota) for quota in quotas]
    by_remainder = sorted(range(len(quotas)), key=lambda i: parts[i] - quotas[i])
    for i in by_remainder[: total - sum(parts)]:
        parts[i] += 1
    return parts
