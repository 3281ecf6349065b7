"""From a data set to the batches of one process, on its device."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray

from gensdk_training.data.augment import Augment
from gensdk_training.data.dataset import Dataset, ImageBatch, Images, Points, Tokens
from gensdk_training.data.order import DataOrder
from gensdk_training.data.pairs import pair_batch
from gensdk_training.family import Batch
from gensdk_training.networks.grey_levels import from_bytes

Raw = tuple[ImageBatch, Images | Points | Tokens | None]
"""Images, and the sources that go with them."""


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
        augment: Augment | None = None,
    ) -> None:
        self.dataset = dataset
        self.order = DataOrder(len(dataset), seed)
        self._sources = dataset.sources
        self._paired = dataset.info.source is not None and dataset.info.source.paired
        self._source_order = (
            None
            if self._sources is None
            else self.order
            if self._paired
            else DataOrder(len(self._sources), seed ^ 1)
        )
        self._augment = augment
        self._size = batch_size
        self._device = device
        self._rank = rank
        self._own = batch_size // processes
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="gensdk-feed") if dataset.prefetch else None
        self._ahead: tuple[int, Future[Raw]] | None = None

    def batch(self, number: int) -> Batch:
        """Images and sources float32 [B, C, H, W] in [-1, 1], or points [B, D], or sounds [B, samples, channels],
        or tokens int64 [B, L], and labels int64 [B]."""
        raw, sources = self._read(number) if self._pool is None else self._read_ahead(number, self._pool)
        labels = None if raw.labels is None else torch.from_numpy(raw.labels).to(self._device)
        images, others = self._tensor(raw.images), None if sources is None else self._tensor(sources)
        if self._augment is not None:
            images, others = self._augment(number, self._rank, images, others, paired=self._paired)
        own = self.order.indices(number * self._size + self._rank * self._own, self._own)
        places = torch.from_numpy(own).to(self._device)
        lengths, prompts, heard = self._there(raw.lengths), self._there(raw.prompts), self._there(raw.sounds)
        return Batch(images, labels, others, places, lengths, prompts, heard)

    def spread(self, count: int) -> Batch:
        """`count` images spread evenly over the data, in order."""
        count = min(count, len(self.dataset))
        indices = np.linspace(0, len(self.dataset) - 1, count).astype(np.int64)
        sources = None
        if self._sources is not None and self._paired:
            raw, others = pair_batch(self.dataset, self._sources, indices)
            sources = self._tensor(others.images)
        else:
            raw = self.dataset.batch(indices)
            if self._sources is not None:
                sources = self._tensor(self._sources.batch(indices % len(self._sources)).images)
        labels = None if raw.labels is None else torch.from_numpy(raw.labels).to(self._device)
        places = torch.from_numpy(indices).to(self._device)
        prompts, heard = self._there(raw.prompts), self._there(raw.sounds)
        return Batch(self._tensor(raw.images), labels, sources, places, self._there(raw.lengths), prompts, heard)

    def _there(self, numbers: NDArray[np.int64] | NDArray[np.float32] | None) -> torch.Tensor | None:
        return None if numbers is None else torch.from_numpy(numbers).to(self._device)

    def _tensor(self, images: Images | Points | Tokens) -> torch.Tensor:
        tensor = torch.from_numpy(images).to(self._device)
        if tensor.dtype != torch.uint8:  # points, which the data set has scaled, sounds, or tokens
            return tensor
        return from_bytes(tensor.permute(0, 3, 1, 2)).contiguous()

    def close(self) -> None:
        """Ends the reading thread."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def _read(self, number: int) -> Raw:
        first = number * self._size + self._rank * self._own
        sources = None
        chosen = self.order.indices(first, self._own)
        if self._sources is not None and self._paired:
            images, others = pair_batch(self.dataset, self._sources, chosen, turn=(self.order.seed, first))
            return images, others.images
        if self._sources is not None and self._source_order is not None:
            sources = self._sources.batch(self._source_order.indices(first, self._own)).images
        return self.dataset.training_batch(chosen, seed=self.order.seed, first=first), sources

    def _read_ahead(self, number: int, pool: ThreadPoolExecutor) -> Raw:
        ready = self._ahead if self._ahead is not None and self._ahead[0] == number else None
        future = ready[1] if ready else pool.submit(self._read, number)
        raw = future.result()
        self._ahead = (number + 1, pool.submit(self._read, number + 1))
        return raw
