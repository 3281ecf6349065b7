"""One training step for every family, through the family contract alone.

Accelerate gives the device, mixed precision and the processes. Everything random follows from the seed and
counters (randomness.py, data/order.py), and the learning rate from the step, so the state of a run is its
tensors, the step and, in fp16, the loss scale: what :meth:`Trainer.tensors` and :meth:`Trainer.scaler_state`
give and :meth:`Trainer.restore` takes back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from gensdk_runtime.errors import InputError, TrainingError
from gensdk_runtime.host.memory_limit import machine_memory
from gensdk_training.data.augment import Augment, Augmentation
from gensdk_training.data.dataset import Dataset
from gensdk_training.data.feed import Feed
from gensdk_training.ema import Ema
from gensdk_training.family import Phase, freeze
from gensdk_training.memory_budget import COPIES, gib, memory_budget
from gensdk_training.optim import (
    learning_rate_factor,
    load_optimizer_tensors,
    make_optimizer,
    optimizer_tensors,
    phase_parameters,
    set_learning_rate,
)
from gensdk_training.randomness import seed_initialization, seed_phase, witness
from gensdk_training.registry import AnyFamily
from gensdk_training.replicas import average_gradients, broadcast_networks, on_first, synchronize_buffers
from gensdk_training.running_statistics import mend_spectral_norms

GRADIENT_EVERY = 10
"""Steps from one measurement of the gradients' size to the next: it walks through all parameters."""

NEEDS_MORE, NO_MEMORY = "Expected more than 1", "can't allocate memory"
"""Parts of torch's messages."""

CHECK_EVERY = 20
"""On a GPU, reading a loss waits for the device: losses are looked at in groups of so many."""


class Trainer:
    """The networks, optimizers and averages of one run. :meth:`advance` makes one step."""

    def __init__(
        self,
        family: AnyFamily,
        dataset: Dataset,
        *,
        seed: int,
        accelerator: Accelerator,
        augment: tuple[Augmentation, ...] = (),
    ) -> None:
        config, processes = family.config, accelerator.num_processes
        if config.batch_size % processes:
            raise InputError(f"batch_size {config.batch_size} can't be cut into {processes} equal parts")
        self.family = family
        self.accelerator = accelerator
        self.seed = seed
        self.step = 0
        self.feed = Feed(
            dataset,
            seed=seed,
            batch_size=config.batch_size,
            device=accelerator.device,
            rank=accelerator.process_index,
            processes=processes,
            augment=Augment(augment, seed=seed) if augment else None,
        )
        self._check_memory()
        seed_initialization(seed)
        with memory_budget(machine_memory() // COPIES, self._too_large):
            built = family.build_networks()
        self.networks = {n: net.to(accelerator.device) for n, net in built.items()}
        broadcast_networks(accelerator, self.networks)
        self.ema = Ema({name: self.networks[name] for name in family.ema_networks}, config.ema_decay)
        self.phases = family.phases()
        self._batches_a_step = sum(phase.repeat for phase in self.phases)
        self._optimizers = {phase.name: make_optimizer(phase, self.networks) for phase in self.phases}
        self._parameters = {phase.name: phase_parameters(phase, self.networks) for phase in self.phases}
        self._unchecked: list[tuple[int, str, Tensor]] = []
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self._gradients: dict[str, list[Tensor]] = {}
        self._trained: tuple[str, ...] | None = None
        self.prepare_networks()

    def _check_memory(self) -> None:
        """Raises :class:`InputError` for a batch that can't be, before anything is made for it."""
        data, size, memory = self.family.data, self.family.config.batch_size, machine_memory()
        needed = 4 * COPIES * size * data.channels * data.height * data.width  # a network keeps some of its layers
        if needed > memory:
            raise InputError(
                f"a step on {size} x {data.channels} x {data.height} x {data.width} takes {gib(needed)}, and this "
                f"machine has {gib(memory)}; lower batch_size, or the size of the images"
            )

    def _too_large(self) -> InputError:
        memory = gib(machine_memory())
        return InputError(
            f"the networks of these settings, their gradients and moments take more than the {memory} of this "
            "machine; use smaller settings"
        )

    def prepare_networks(self) -> None:
        """Puts the networks into training mode; needed again after something else has used them."""
        for network in self.networks.values():
            network.train()
        for network in self.ema.networks.values():
            network.eval()
        self._trained = None

    def advance(self) -> None:
        """One step: every phase that does not rest, in order, then the moving average.

        Raises :class:`TrainingError` for a loss that is not finite, in the same step on every process.
        """
        if self.step == 0:
            self._start()
        self.family.begin_step(self.networks, self.step)
        config = self.family.config
        factor = learning_rate_factor(
            self.step, steps=config.steps, schedule=config.lr_schedule, warmup=config.warmup_steps
        )
        batch = self.step * self._batches_a_step
        for position, phase in enumerate(self.phases):
            set_learning_rate(self._optimizers[phase.name], phase.learning_rate * factor)
            if not self.family.rests(phase.name, self.step):
                for repeat in range(phase.repeat):
                    self._run_phase(phase, position, repeat, batch + repeat)
            batch += phase.repeat
        synchronize_buffers(self.accelerator, self.networks)
        self.ema.update(max(0, self.step - self.family.averages_from))
        self.step += 1
        if len(self._unchecked) >= (1 if self.accelerator.device.type == "cpu" else CHECK_EVERY):
            self.check_losses()

    def _start(self) -> None:
        """Gives a fresh run the weights that its family brings, and the averages the same."""
        on_first(self.accelerator, lambda: self.family.start(self.networks))
        on_first(self.accelerator, lambda: self.family.look(self.networks, self.feed.spread))
        broadcast_networks(self.accelerator, self.networks)
        load_network_tensors(self.ema.networks, network_tensors(self.networks))

    def _run_phase(self, phase: Phase, position: int, repeat: int, batch: int) -> None:
        if self._trained != phase.trains:  # walking through all parameters is not free
            freeze(self.networks, phase.trains)
            self._trained = phase.trains
        rank = self.accelerator.process_index
        with _in_words(phase.name):
            data = self.feed.batch(batch)
        seed_phase(data.images.device, self.seed, step=self.step, rank=rank, phase=position, repeat=repeat)
        with self.accelerator.autocast(), _in_words(phase.name):
            loss = self.family.loss(phase.name, self.networks, data)
        optimizer = self._optimizers[phase.name]
        optimizer.zero_grad(set_to_none=True)
        with _in_words(phase.name):
            self.accelerator.backward(loss.total)
        total = average_gradients(self.accelerator, self._parameters[phase.name], loss.total)
        self._log(phase.name, {"loss": total, **loss.logs})
        self._unchecked.append((self.step, phase.name, total))
        if self.step % GRADIENT_EVERY == 0:
            size = self._gradient_size(self._parameters[phase.name])
            self._gradients.setdefault(phase.name, []).append(size)
        self._update(optimizer, self._parameters[phase.name])
        with torch.no_grad():
            self.family.after_update(phase.name, self.networks)

    def _update(self, optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter]) -> None:
        scaler, clip = self.accelerator.scaler, self.family.config.grad_clip
        if clip > 0:
            if scaler is not None:
                scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(parameters, clip)
        if scaler is None:
            optimizer.step()
        else:
            scaler.step(optimizer)
            scaler.update()

    def _gradient_size(self, parameters: list[nn.Parameter]) -> Tensor:
        """The root mean square of a gradient, before clipping and without fp16's loss scale."""
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        scaler, count = self.accelerator.scaler, sum(gradient.numel() for gradient in gradients)
        scale = 1.0 if scaler is None else scaler.get_scale()
        size: Tensor = nn.utils.get_total_norm(gradients) / (scale * max(count, 1) ** 0.5)
        return size

    def check_losses(self) -> None:
        """Raises :class:`TrainingError` if a loss since the last check was not finite."""
        pending, self._unchecked = self._unchecked, []
        if not pending:
            return
        values = torch.stack([loss for _, _, loss in pending]).cpu()
        if not bool(torch.isfinite(values).all()):
            bad = int((~torch.isfinite(values)).nonzero()[0])
            step, phase, _ = pending[bad]
            raise TrainingError(
                f"the loss of phase {phase!r} became {values[bad].item()} at step {step}; "
                "lower the learning rate or set grad_clip"
            )

    def check_weights(self) -> None:
        """Raises :class:`TrainingError` if a weight is not finite: a gradient can overflow where no loss does."""
        for name, tensor in self.tensors()["model"].items():
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                raise TrainingError(
                    f"weight {name!r} is not finite at step {self.step}; lower the learning rate or set grad_clip"
                )

    def _log(self, phase: str, values: Mapping[str, Tensor]) -> None:
        for key, value in values.items():
            name = f"{phase}/{key}" if len(self.phases) > 1 else key
            scalar = value.detach().float()
            self._sums[name] = self._sums[name] + scalar if name in self._sums else scalar
            self._counts[name] = self._counts.get(name, 0) + 1

    def take_logs(self) -> dict[str, float]:
        """The mean of each logged value since the last call, over all processes; all of them must ask."""
        if not self._sums:
            return {}
        means = torch.stack([total / self._counts[name] for name, total in self._sums.items()])
        if self.accelerator.num_processes > 1:
            means = self.accelerator.reduce(means, reduction="mean")
        names = list(self._sums)
        self._sums, self._counts = {}, {}
        return dict(zip(names, means.tolist(), strict=True))

    def take_gradients(self) -> dict[str, list[float]]:
        """The sizes of each phase's gradient that were measured since the last call: root mean squares."""
        measured, self._gradients = self._gradients, {}
        return {phase: torch.stack(sizes).tolist() for phase, sizes in measured.items()}

    def witness(self) -> str:
        """What the next step draws, as a digest; see :func:`gensdk_training.randomness.witness`."""
        batch = self.step * self._batches_a_step
        indices = self.feed.order.indices(batch * self.family.config.batch_size, self.family.config.batch_size)
        return witness(self.accelerator.device, self.seed, step=self.step, indices=indices)

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """All tensors of the run: "model", "ema" and "optimizer", each by dotted name."""
        optimizer = {
            f"{name}.{key}": value
            for name, each in self._optimizers.items()
            for key, value in optimizer_tensors(each).items()
        }
        return {
            "model": network_tensors(self.networks),
            "ema": network_tensors(self.ema.networks),
            "optimizer": optimizer,
        }

    def scaler_state(self) -> dict[str, int | float]:
        """The loss scale of fp16 and its counters; empty in other precisions."""
        return dict(self.accelerator.scaler.state_dict()) if self.accelerator.scaler is not None else {}

    def restore(
        self, step: int, tensors: Mapping[str, Mapping[str, Tensor]], scaler: Mapping[str, int | float]
    ) -> None:
        """Takes back what :meth:`tensors` and :meth:`scaler_state` gave at `step`."""
        load_network_tensors(self.networks, tensors["model"])
        load_network_tensors(self.ema.networks, tensors["ema"])
        for network in (*self.networks.values(), *self.ema.networks.values()):
            mend_spectral_norms(network)
        for name, optimizer in self._optimizers.items():
            prefix = name + "."
            own = {k.removeprefix(prefix): v for k, v in tensors["optimizer"].items() if k.startswith(prefix)}
            load_optimizer_tensors(optimizer, own)
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(dict(scaler))
        self.step = step

    def close(self) -> None:
        """Ends reading threads."""
        self.feed.close()


@contextmanager
def _in_words(phase: str) -> Iterator[None]:
    """What torch refuses for the size of a batch, as errors that say what to do."""
    try:
        yield
    except ValueError as failure:
        if NEEDS_MORE not in str(failure):
            raise
        raise InputError(
            f"phase {phase!r}: a batch norm has one value a channel, and nothing to compare it with; use a "
            "batch_size of 2 or more in each process"
        ) from None
    except (MemoryError, RuntimeError) as failure:
        if not (isinstance(failure, MemoryError | torch.OutOfMemoryError) or NO_MEMORY in str(failure)):
            raise
        raise TrainingError(
            f"phase {phase!r} has not enough memory for a step; lower batch_size, the size of the images, or the "
            "networks"
        ) from None


def network_tensors(networks: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """The state of all networks as ``NETWORK.KEY``."""
    return {
        f"{name}.{key}": value for name, network in networks.items() for key, value in network.state_dict().items()
    }


def load_network_tensors(networks: Mapping[str, nn.Module], tensors: Mapping[str, Tensor]) -> None:
    """Loads what :func:`network_tensors` gave. Raises :class:`TrainingError` for missing or foreign tensors."""
    for name, network in networks.items():
        prefix = name + "."
        own = {key.removeprefix(prefix): v for key, v in tensors.items() if key.startswith(prefix)}
        try:
            network.load_state_dict(own)
        except RuntimeError as failure:
            problem = " ".join(str(failure).split())[:200]
            raise TrainingError(f"the checkpoint does not fit network {name!r}: {problem}") from None
