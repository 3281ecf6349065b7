"""One run of one graph: GAN generators and VAE decoders."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gensdk_runtime import noise
from gensdk_runtime.backends.base import Session
from gensdk_runtime.errors import ManifestError
from gensdk_runtime.manifest import FeedforwardSpec
from gensdk_runtime.noise import Float32
from gensdk_runtime.programs.base import Program, Run, fixed_shape, label_feeds, require_tensors


class FeedforwardProgram(Program[None]):
    """Noise, and a label where the model has classes, go in; images come out."""

    def check(self) -> None:
        """The output ``image``, and no inputs but noise and a label."""
        graph = self._session.graph
        require_tensors(graph, (), ("image",))
        for spec in graph.inputs:
            if spec.role != "noise" and spec.name != "label":
                raise ManifestError(
                    f"graph {graph.name!r} has an input {spec.name!r} of role {spec.role!r}; this gensdk"
                    " feeds noise and labels only; upgrade gensdk"
                )

    @property
    def latent_shape(self) -> tuple[int, ...] | None:
        """Shape of the graph's first noise input, without the batch."""
        graph = self._session.graph
        spec = next((spec for spec in graph.inputs if spec.role == "noise"), None)
        return None if spec is None else fixed_shape(graph, spec.name)

    def resolve(self, options: Mapping[str, Any]) -> None:
        """There is nothing to set."""

    def describe(self, settings: None) -> dict[str, Any]:
        """There is nothing to tell."""
        return {}

    def run(self, run: Run, settings: None) -> Float32:
        """Each noise input draws from a stream of its own, in the order of the graph's inputs."""
        graph = self._session.graph
        feeds = label_feeds(graph, run)
        for stream, spec in enumerate(spec for spec in graph.inputs if spec.role == "noise"):
            shape = fixed_shape(graph, spec.name)
            if stream == noise.LATENT_STREAM and run.latents is not None:
                feeds[spec.name] = run.latents
            else:
                draw = noise.uniform if spec.distribution == "uniform" else noise.normal
                feeds[spec.name] = draw(run.keys, stream, shape)
        images: Float32 = run.call(self._session, feeds)["image"]
        run.end_step(0, 1, 0, images)
        return images

    @property
    def _session(self) -> Session:
        assert isinstance(self.model.program, FeedforwardSpec)  # noqa: S101 - chosen by the kind
        return self.sessions[self.model.program.graph]
