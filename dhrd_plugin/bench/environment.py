"""What a bench ran on: hardware, and versions of what computes."""

from __future__ import annotations

import os
import platform
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from dhrd_plugin import __version__
from dhrd_plugin.errors import DHRDError

PACKAGES = ("torch", "transformers", "lm_eval", "accelerate", "peft", "vllm")


def chosen_device(asked: str | None) -> str:
    """`asked`, else what the harness adapter would choose.

    Raises:
        DHRDError: no such device.
    """
    found = asked or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError) as error:  # unknown; not compiled in, not there
        why = str(error).splitlines()[0]
        raise DHRDError(f"--device {found}: cannot be used ({why}). Leave it out.") from None
    return found


def hardware(device: str) -> dict[str, Any]:
    """Names and sizes; memory in bytes."""
    found: dict[str, Any] = {
        "device": device,
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "system": platform.platform(),
    }
    if torch.device(device).type == "cuda":
        gpu = torch.cuda.get_device_properties(device)
        found |= {"gpu": gpu.name, "gpu_memory": gpu.total_memory, "cuda": torch.version.cuda}
    return found


def versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "dhrd": __version__}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _cpu_name() -> str:
    try:
        names = re.findall(
            r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE
        )
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()
