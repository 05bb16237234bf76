"""The processes of one run, as `accelerate launch` or `torchrun` starts them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any, TypeVar

from dhrd_plugin.errors import EXIT_FAILED, DHRDError

Row = TypeVar("Row")

# How long a process waits for the others: as long as it takes; an early end of the wait would cost
# hours of work. Nobody waits for the dead: their connections are closed.
PATIENCE = timedelta(days=365)


@dataclass(frozen=True)
class Processes:
    """This process among those of its run; by default the only one.

    Attributes:
        rank: which one this is, from 0.
        world: how many there are.
    """

    rank: int = 0
    world: int = 1

    @classmethod
    def of_environment(cls) -> Processes:
        """What the launcher says in $RANK and $WORLD_SIZE; without it, the only process.

        Raises:
            DHRDError: values that are no place among so many processes.
        """
        rank, world = os.environ.get("RANK", "0"), os.environ.get("WORLD_SIZE", "1")
        if not (rank.isdecimal() and world.isdecimal() and int(rank) < int(world)):
            raise DHRDError(
                f"RANK={rank} and WORLD_SIZE={world} in the environment name no process of a run. "
                "Start several with `accelerate launch`, or unset both."
            )
        return cls(int(rank), int(world))

    @property
    def is_main(self) -> bool:
        """Whether this is the one that prints, and writes the files that are there once."""
        return self.rank == 0

    def share(self, rows: Sequence[Row]) -> Sequence[Row]:
        """This process's rows; every row is exactly one process's."""
        return rows[self.rank :: self.world]

    def wait(self) -> None:
        """Return when every process has got here.

        Raises:
            DHRDError: another process has ended.
        """
        if self.world == 1:
            return
        import torch.distributed as dist

        group = _group()
        try:
            dist.barrier(group=group)
        except RuntimeError as error:  # "Connection closed by peer"
            raise DHRDError(
                "Another process of this run has ended. Everything written is kept; run the same "
                "command to go on.",
                exit_code=EXIT_FAILED,
            ) from error


@cache
def _group() -> Any:
    """Connections between the processes, made at their first wait.

    They are our own: those that a model library has set up may be short of patience.
    """
    import torch.distributed as dist

    if not dist.is_initialized():
        dist.init_process_group("gloo", timeout=PATIENCE)
    return dist.new_group(backend="gloo", timeout=PATIENCE)
