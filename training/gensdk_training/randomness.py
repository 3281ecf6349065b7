"""Random numbers of training as a function of (seed, step, process, phase): resuming needs no saved state.

The trainer seeds torch's global generators from these counters before each phase, so whatever a loss draws at
step 5,000 does not depend on how the run came there.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from numpy.typing import NDArray

_INITIALIZATION, _PHASE = 1, 2
_CPU = torch.device("cpu")


def seed_initialization(seed: int) -> None:
    """Seeds torch's generator of the CPU, where networks are built."""
    _seed(_CPU, _INITIALIZATION, seed)


def seed_phase(
    device: torch.device, seed: int, *, step: int, rank: int = 0, phase: int = 0, repeat: int = 0
) -> None:
    """Seeds torch's global generators, of the CPU and of `device`, for one pass of one phase."""
    _seed(device, _PHASE, seed, step, rank, phase, repeat)


def witness(device: torch.device, seed: int, *, step: int, indices: NDArray[np.int64]) -> str:
    """A digest of the random numbers and data `indices` that `step` begins with.

    A checkpoint keeps it. Where it comes out differently on resuming, because torch, NumPy or the device
    draws other numbers from the same seed, the run can't continue bit for bit, and says so.
    """
    seed_phase(device, seed, step=step)
    drawn = torch.randn(16, device=device).cpu().numpy()
    return hashlib.blake2b(indices.tobytes() + drawn.tobytes(), digest_size=16).hexdigest()


def _seed(device: torch.device, *counters: int) -> None:
    value = int(np.random.SeedSequence(counters).generate_state(1, np.uint64)[0]) >> 1  # NumPy 1 shifts no uint64
    # torch.manual_seed also asks for every absent device, which takes longer than a small model's step.
    torch.default_generator.manual_seed(value)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(value)
