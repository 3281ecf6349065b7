"""From a data set to the batches of one process, on its device."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor

import torch

from gensdk_training.data.dataset import Dataset, ImageBatch
from gensdk_training.data.order import DataOrder
from gensdk_training.family import Batch


class Feed:
    """Batch number b of process `rank` out of `processes`.

    One global batch of `batch_size` images is cut into equal parts, so the processes see disjoint data, and
    a config means the same training on any number of them. Data on disk is read one batch ahead.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        seed: int,
        batch_size: int,
        device: torch.device,
        rank: int = 0,
        processes: int = 1,
    ) -> None:
        self.dataset = dataset
        self.order = DataOrder(len(dataset), seed)
        self._size = batch_size
        self._device = device
        self._rank = rank
        self._own = batch_size // processes
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="gensdk-feed") if dataset.prefetch else None
        self._ahead: tuple[int, Future[ImageBatch]] | None = None

    def batch(self, number: int) -> Batch:
        """Images float32 [B, C, H, W] in [-1, 1] and labels int64 [B], on the device."""
        raw = self._read_ahead(number) if self._pool else self._read(number)
        images = torch.from_numpy(raw.images).to(self._device).permute(0, 3, 1, 2)
        labels = None if raw.labels is None else torch.from_numpy(raw.labels).to(self._device)
        return Batch(images.to(torch.float32).contiguous().div_(127.5).sub_(1.0), labels)

    def close(self) -> None:
        """Ends the reading thread."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def _read(self, number: int) -> ImageBatch:
        first = number * self._size + self._rank * self._own
        return self.dataset.batch(self.order.indices(first, self._own))

    def _read_ahead(self, number: int) -> ImageBatch:
        assert self._pool is not None  # noqa: S101 - tells the type checker
        ready = self._ahead if self._ahead is not None and self._ahead[0] == number else None
        future = ready[1] if ready else self._pool.submit(self._read, number)
        raw = future.result()
        self._ahead = (number + 1, self._pool.submit(self._read, number + 1))
        return raw
