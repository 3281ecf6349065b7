"""A live torch module as a session of the runtime: previews, parity checks, comparisons."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from gensdk_runtime.backends.base import Feeds, Session
from gensdk_runtime.backends.bound import Array
from gensdk_runtime.errors import BackendError
from gensdk_runtime.spec.signature import GraphSpec
from gensdk_training.plan import ExportPlan


class TorchSession(Session):
    """Runs `module` on NumPy arrays: inputs as positional tensors in the graph's order, outputs by name.

    The module must be in eval mode and draw no random numbers; then any number of threads may run it at once.
    Inputs and outputs are copies, so no result shares memory with weights or feeds.
    """

    def __init__(self, graph: GraphSpec, module: nn.Module, *, device: torch.device | str = "cpu") -> None:
        super().__init__(graph, backend="torch", precision="fp32")
        if any(part.training for part in module.modules()):
            raise BackendError(f"graph {graph.name!r}: the module is in training mode; call eval() first")
        self._module: nn.Module | None = module
        self._device = torch.device(device)

    def _run(self, feeds: Feeds) -> dict[str, Array]:
        module = self._module
        if module is None:
            raise BackendError(f"graph {self.graph.name!r} was closed; load the model again")
        try:
            with torch.inference_mode():
                inputs = [torch.tensor(feeds[spec.name], device=self._device) for spec in self.graph.inputs]
                result = module(*inputs)
                return self._named(result)
        except RuntimeError as failure:
            reason = str(failure).strip().splitlines()[0][:200] if str(failure).strip() else "no reason given"
            raise BackendError(f"graph {self.graph.name!r} failed in torch: {reason}") from failure

    def _named(self, result: Tensor | tuple[Tensor, ...]) -> dict[str, Array]:
        outputs = (result,) if isinstance(result, Tensor) else tuple(result)
        if len(outputs) != len(self.graph.outputs):
            expected = len(self.graph.outputs)
            raise BackendError(f"graph {self.graph.name!r}: expected {expected} outputs, got {len(outputs)}")
        named: dict[str, Array] = {}
        for spec, output in zip(self.graph.outputs, outputs, strict=True):
            array = np.ascontiguousarray(output.to("cpu", copy=True).numpy())
            if array.dtype != np.dtype(spec.dtype):
                raise BackendError(f"{self.graph.name}.{spec.name}: expected {spec.dtype}, got {array.dtype}")
            named[spec.name] = array
        return named

    def _close(self) -> None:
        self._module = None


def torch_sessions(plan: ExportPlan, *, device: torch.device | str = "cpu") -> Mapping[str, Session]:
    """A session for every graph of `plan`, over its live modules, which must be on `device` already."""
    return {
        graph.name: TorchSession(graph, plan.modules[graph.name], device=device) for graph in plan.model.graphs
    }
