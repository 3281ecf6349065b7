"""One run of one graph: GAN generators and VAE decoders; before it, that of contexts where there is one."""

from __future__ import annotations

from functools import partial

import numpy as np

from gensdk_runtime import noise
from gensdk_runtime.backends.base import Session
from gensdk_runtime.backends.bound import Array, Bound
from gensdk_runtime.errors import BackendError, ManifestError, not_finite
from gensdk_runtime.programs.base import (
    WITH_LATENTS,
    Program,
    Wanted,
    conditions_wanted,
    fixed_shape,
    image_input,
    register_program,
    require_signature,
    run_images,
    write_conditions,
)
from gensdk_runtime.programs.contexts import Contexts, require_contexts
from gensdk_runtime.programs.run import OneRun, Run
from gensdk_runtime.spec.model import FeedforwardSpec, ModelSpec
from gensdk_runtime.spec.settings import FeedforwardSettings
from gensdk_runtime.spec.signature import GraphSpec


@register_program
class FeedforwardProgram(Program[FeedforwardSettings]):
    """Noise, and a label where the model has classes, go in; images, or points, come out. With an encoder,
    images go back. With a context graph, what is made from is looked at once for samples that share it."""

    Spec = FeedforwardSpec
    Settings = FeedforwardSettings

    @classmethod
    def abilities(cls, model: ModelSpec) -> frozenset[str]:
        """Walks where there is a latent, and the ways back that have a graph."""
        spec = model.program
        names = _noise_inputs(model.graph(spec.graphs[0]))
        found = WITH_LATENTS if names else frozenset()
        found |= {"encode", "reconstruct"} if getattr(spec, "encoder", None) else set()
        return found | ({"classify"} if getattr(spec, "classifier", None) else set())

    def check(self) -> None:
        """The output ``image`` or ``points``, and no inputs but noise, conditions and contexts; and what encoder
        and classifier need."""
        graph = self._session.graph
        wanted = {name: Wanted(("batch", *fixed_shape(graph, name))) for name in _noise_inputs(graph)}
        asked = conditions_wanted(self.conditions, graph, "batch")
        for name in asked.keys() & wanted.keys():
            raise ManifestError(
                f"input {name!r} of graph {graph.name!r} is a condition and noise; export it again"
            )
        wanted |= asked
        if (context := self.context) is not None:
            taken = (*wanted, *(each.tensor for each in self.conditions))
            require_contexts(context.graph, self.conditions, graph, taken)
            wanted |= {each.name: Wanted(each.shape, each.dtype) for each in context.graph.outputs}
        output = self.model.output
        outputs = {output.tensor: Wanted(("batch", *output.shape), output.dtype)}
        if self.makes_uint8:
            channels, height, width = output.shape
            outputs["pixels"] = Wanted(("batch", height, width, channels), "uint8")
            outputs["image_sum"] = Wanted(("batch",))
        require_signature(graph, wanted, outputs)
        self._check_ways_back()

    def _check_ways_back(self) -> None:
        if self.spec.encoder is None and self.spec.classifier is None:
            return
        images = Wanted(("batch", *self.model.output.shape))
        if (encoder := self._of_images(self.spec.encoder)) is not None:
            latent = {"latent": Wanted(("batch", *(self.latent_shape or ())))}
            asked = conditions_wanted(self.conditions, encoder.graph, "batch")
            require_signature(encoder.graph, {image_input(encoder.graph): images, **asked}, latent)
        if (classifier := self._of_images(self.spec.classifier)) is not None:
            logits = classifier.graph.output("logits")
            classes = logits.shape[-1] if logits is not None and logits.shape else 0
            if not isinstance(classes, int):
                raise ManifestError(f"graph {classifier.graph.name!r} does not say how many logits it gives")
            wanted = {image_input(classifier.graph): images}
            require_signature(classifier.graph, wanted, {"logits": Wanted(("batch", classes))})

    @property
    def spec(self) -> FeedforwardSpec:
        """The model's program."""
        return self.model.program_of(FeedforwardSpec)

    @property
    def context(self) -> Session | None:
        """The context graph, where the model has one."""
        name = self.spec.context_graph
        return None if name is None else self.sessions[name]

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

    @property
    def uniform_latent(self) -> bool:
        """True if the first noise input is uniform."""
        names = _noise_inputs(self._session.graph)
        spec = self._session.graph.input(names[0]) if names else None
        return spec is not None and spec.distribution == "uniform"

    @property
    def encoder_conditions(self) -> tuple[str, ...] | None:
        """The kinds of conditions that the encoder wants."""
        encoder = self._of_images(self.spec.encoder)
        if encoder is None:
            return None
        inputs = {spec.name for spec in encoder.graph.inputs}
        return tuple(each.kind for each in self.conditions if each.tensor in inputs)

    @property
    def num_logits(self) -> int:
        """K, the classes that the classifier knows; 0 where there is none."""
        classifier = self._of_images(self.spec.classifier)
        logits = None if classifier is None else classifier.graph.output("logits")
        return 0 if logits is None else int(logits.shape[-1])

    def encode(self, run: Run) -> None:
        """Fills the run with latents [count, ...] of its sources, images float32 [len(run), C, H, W]."""
        self._judge(self.spec.encoder, "latent", run)

    def classify(self, run: Run) -> None:
        """Fills the run with logits [count, K] of its sources, images float32 [len(run), C, H, W]."""
        self._judge(self.spec.classifier, "logits", run)

    def _of_images(self, name: str | None) -> Session | None:
        return self.sessions.get(name) if name is not None else None

    def _judge(self, name: str | None, output: str, run: Run) -> None:
        """One output of a graph that takes images, of a model that has it."""
        session = self._of_images(name)
        if session is None or "image" not in run.conditions:
            raise BackendError(f"model {self.model.name!r} has no graph for this, or no images came")
        run_images(session, output, run)

    def begin(self, run: Run, settings: FeedforwardSettings) -> OneRun:
        """Each noise input draws from a stream of its own, in the order of the graph's inputs."""
        state = OneRun(run, self._session, {"batch": len(run)}, partial(self._read, len(run.data)))
        write_conditions(self.conditions, state.bound, run)
        if self.context is not None:
            contexts = Contexts(self.context, self.conditions, state)
            contexts.hand_over(contexts.asked, state.bound)
        noises = (spec for spec in self._session.graph.inputs if spec.role == "noise")
        for stream, spec in enumerate(noises):
            distribution = spec.distribution or "normal"
            if stream == noise.LATENT_STREAM:
                run.feed_latent(state.bound, spec.name, distribution)
            else:
                state.bound.draw(spec.name, distribution, state.bound.hold_keys(run.keys), stream)
        return state

    def _read(self, count: int, bound: Bound, in_bytes: bool) -> Array:
        """The samples; bytes after a look at the sums of the `count` that are wanted."""
        if not (in_bytes and self.makes_uint8):  # samples of another kind may be bytes themselves
            return bound.output(self.model.output.tensor)
        pixels, sums = bound.outputs("pixels", "image_sum")
        check_sums(self._session, sums[:count])
        return pixels

    @property
    def _session(self) -> Session:
        return self.sessions[self.spec.graph]


def _noise_inputs(graph: GraphSpec) -> list[str]:
    return [spec.name for spec in graph.inputs if spec.role == "noise"]


def check_sums(session: Session, sums: Array) -> None:
    """Bytes can't be NaN, so the graph gives the sum of each image too."""
    if not np.isfinite(sums).all():
        bad = int((~np.isfinite(sums)).sum())
        what = f"{bad} of {len(sums)} samples of graph {session.graph.name!r}"
        raise not_finite(what, session.backend, session.precision)
