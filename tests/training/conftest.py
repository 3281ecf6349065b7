"""Tiny networks on one thread: more threads only wait for each other, most of all on a busy machine."""

from __future__ import annotations

import os

import torch

os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the processes that tests start
torch.set_num_threads(1)
