"""One run of one graph: GAN generators and VAE decoders."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from gensdk_runtime import noise
from gensdk_runtime.backends.base import Session
from gensdk_runtime.backends.bound import Array
from gensdk_runtime.errors import BackendError
from gensdk_runtime.manifest import FeedforwardSpec
from gensdk_runtime.programs.base import (
    Program,
    Run,
    Wanted,
    fixed_shape,
    label_wanted,
    require_signature,
    write_label,
)
from gensdk_runtime.signature import GraphSpec


class FeedforwardProgram(Program[None]):
    """Noise, and a label where the model has classes, go in; images, or points, come out."""

    def check(self) -> None:
        """The output ``image`` or ``points``, and no inputs but noise and a label."""
        graph = self._session.graph
        wanted = {name: Wanted(("batch", *fixed_shape(graph, name))) for name in _noise_inputs(graph)}
        wanted |= label_wanted(self.model, graph, "batch")
        outputs = {self._result: Wanted(("batch", *self.model.output.shape))}
        if self.makes_uint8:
            channels, height, width = self.model.require_image().shape
            outputs["pixels"] = Wanted(("batch", height, width, channels), "uint8")
            outputs["image_sum"] = Wanted(("batch",))
        require_signature(graph, wanted, outputs)

    @property
    def latent_shape(self) -> tuple[int, ...] | None:
        """Shape of the graph's first noise input, without the batch."""
        graph = self._session.graph
        names = _noise_inputs(graph)
        return fixed_shape(graph, names[0]) if names else None

    @property
    def makes_uint8(self) -> bool:
        """Where the graph was exported with ``--uint8``."""
        return self._session.graph.output("pixels") is not None

    def resolve(self, options: Mapping[str, Any]) -> None:
        """There is nothing to set."""

    def describe(self, settings: None) -> dict[str, Any]:
        """There is nothing to tell."""
        return {}

    def run(self, run: Run, settings: None) -> None:
        """Each noise input draws from a stream of its own, in the order of the graph's inputs."""
        graph = self._session.graph
        with self._session.bound({"batch": len(run)}) as bound:
            write_label(bound, run)
            for stream, spec in enumerate(spec for spec in graph.inputs if spec.role == "noise"):
                out = bound.input(spec.name)
                if stream == noise.LATENT_STREAM and run.latents is not None:
                    run.latent(out)
                else:
                    draw = noise.uniform if spec.distribution == "uniform" else noise.normal
                    draw(run.keys, stream, out.shape[1:], out=out)
            run.timed(bound)
            if run.images.dtype == np.uint8:
                check_sums(graph, bound.output("image_sum")[: len(run.images)])
                run.finish(bound.output("pixels"))
            else:
                run.finish(bound.output(self._result))
            run.end_step(0, 1, 0, lambda: bound.output(self._result))

    @property
    def _result(self) -> str:
        """The output that holds the samples."""
        return "image" if self.model.points is None else "points"

    @property
    def _session(self) -> Session:
        assert isinstance(self.model.program, FeedforwardSpec)  # noqa: S101 - chosen by the kind
        return self.sessions[self.model.program.graph]


def _noise_inputs(graph: GraphSpec) -> list[str]:
    return [spec.name for spec in graph.inputs if spec.role == "noise"]


def check_sums(graph: GraphSpec, sums: Array) -> None:
    """Bytes can't be NaN, so the graph gives the sum of each image too."""
    if not np.isfinite(sums).all():
        bad = int((~np.isfinite(sums)).sum())
        raise BackendError(
            f"{bad} of {len(sums)} samples of graph {graph.name!r} came out NaN or infinite; run gensdk verify, "
            "and use precision='fp32' meanwhile"
        )
