"""Random numbers of training as a function of (seed, step, process, phase): resuming needs no saved state.

The trainer seeds torch's global generators from these counters before each phase, so whatever a loss draws at
step 5,000 does not depend on how the run came there.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch

_INITIALIZATION, _PHASE = 1, 2


def seed_initialization(seed: int) -> None:
    """Seeds torch's generators for the building of networks."""
    torch.manual_seed(_derive(_INITIALIZATION, seed))


def seed_phase(seed: int, *, step: int, rank: int, phase: int, repeat: int) -> None:
    """Seeds torch's generators, of the CPU and of all devices, for one pass of one phase."""
    torch.manual_seed(_derive(_PHASE, seed, step, rank, phase, repeat))


def witness(
    seed: int, step: int, device: torch.device, indices: np.ndarray[tuple[int], np.dtype[np.int64]]
) -> str:
    """A digest of the random numbers and data `indices` that `step` begins with.

    A checkpoint keeps it. Where it comes out differently on resuming, because torch, NumPy or the device
    draws other numbers from the same seed, the run can't continue bit for bit, and says so.
    """
    seed_phase(seed, step=step, rank=0, phase=0, repeat=0)
    drawn = torch.randn(16, device=device).cpu().numpy()
    return hashlib.blake2b(indices.tobytes() + drawn.tobytes(), digest_size=16).hexdigest()


def _derive(*counters: int) -> int:
    return int(np.random.SeedSequence(counters).generate_state(1, np.uint64)[0] >> 1)
