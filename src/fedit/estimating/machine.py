"""What this machine has: memory that is free, and what this process holds already."""

import os
import resource
import sys
from pathlib import Path

import torch


def resident() -> int:
    """Bytes of memory that this process holds now, or its most so far where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak * (1 if sys.platform == "darwin" else 1024)


def free(device: torch.device) -> int | None:
    """Bytes that may still be taken there; None where the system does not say."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    known = [amount for amount in (_available(), _allowed()) if amount is not None]
    return min(known, default=None)


def _available() -> int | None:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    return None


def _allowed() -> int | None:
    """What a container may still take."""
    folder = Path("/sys/fs/cgroup")
    try:
        return int((folder / "memory.max").read_text()) - int(
            (folder / "memory.current").read_text()
        )
    except (OSError, ValueError):  # there is none, or it says "max"
        return None
