"""The most memory that a side needs: allocated on a GPU, else resident in its own process."""

from __future__ import annotations

import re
from pathlib import Path

import torch

PROCESS = Path("/proc/self")  # Linux; elsewhere the peak cannot be reset


class PeakMemory:
    """From its making on, so that loading and larger batches before do not count.

    (`ru_maxrss` would count them: it cannot be reset, and a child process inherits its parent's.)
    """

    def __init__(self, device: str | torch.device) -> None:
        self._device = torch.device(device)
        self._known = True
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
            return
        try:
            (PROCESS / "clear_refs").write_text("5")  # resets VmHWM, see proc(5)
        except OSError:
            self._known = False

    def read(self) -> int | None:
        """Bytes: of tensors on a GPU, else of the whole process, libraries included; None where
        the system does not tell."""
        if not self._known:
            return None
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device)
        match = re.search(r"^VmHWM:\s+(\d+) kB", (PROCESS / "status").read_text(), re.MULTILINE)
        return int(match[1]) * 1024 if match else None
