"""Gradient steps on an input: DeepDream, and the search for the latent of an image.

The gradient is a graph, the optimizer is NumPy, so nothing here needs PyTorch. Each sample has its own path: its
own moments and curvature, its own end, and noise that depends on its key and the step alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from gensdk_runtime import noise
from gensdk_runtime.backends.base import Session
from gensdk_runtime.backends.bound import Bound
from gensdk_runtime.conditions.image import source_size, write_source
from gensdk_runtime.errors import InputError, ManifestError, did_you_mean, not_finite
from gensdk_runtime.noise import Float32
from gensdk_runtime.programs.ascent_path import Ascended, Path
from gensdk_runtime.programs.base import (
    WITH_LATENTS,
    Int64,
    Program,
    Shape,
    Wanted,
    fixed_shape,
    register_program,
    require_signature,
)
from gensdk_runtime.programs.run import Run, State
from gensdk_runtime.spec.model import AscentSpec, ModelSpec
from gensdk_runtime.spec.settings import AscentSettings
from gensdk_runtime.spec.signature import HEIGHT, WIDTH, GraphSpec


@register_program
class AscentProgram(Program[AscentSettings]):
    """See :class:`AscentSpec` for the graphs. Serves a model's sampling, or else its inversion."""

    Spec = AscentSpec
    Settings = AscentSettings

    @property
    def spec(self) -> AscentSpec:
        """The model's program, or how it inverts."""
        inversion = self.model.inversion
        if inversion is None or isinstance(self.model.program, AscentSpec):
            return self.model.program_of(AscentSpec)
        return inversion

    @classmethod
    def abilities(cls, model: ModelSpec) -> frozenset[str]:
        """Dreams on images, or else walks between first variables."""
        return WITH_LATENTS if model.source is None else frozenset(("dream", "translate"))

    def check(self) -> None:
        """The tensors that :class:`AscentSpec` lists."""
        graphs = {name: self.sessions[name].graph for name in self.spec.graphs}
        targets = {"target": Wanted(("batch", *self.model.output.shape))}
        if self.spec.features is not None:
            features = graphs[self.spec.features]
            require_signature(features, {"image": targets["target"]}, {"features": Wanted(None)})
            targets["target_features"] = Wanted(("batch", *_sizes_of(features, "features")))
        variable = None
        for name in self.spec.objectives.values():
            graph = graphs[name]
            given = graph.input("variable")
            variable = given.shape if given is not None and variable is None else variable
            taken = {key: want for key, want in targets.items() if graph.input(key) is not None}
            weights = graph.input("channels")
            taken |= {} if weights is None else {"channels": Wanted((*fixed_shape(graph, "channels"),))}
            outputs = {"objective": Wanted(("batch",)), "gradient": Wanted(variable)}
            require_signature(graph, {"variable": Wanted(variable), **taken}, outputs)
        self._check_ends(graphs, tuple(variable or ()))

    def _check_ends(self, graphs: Mapping[str, GraphSpec], variable: tuple[int | str, ...]) -> None:
        """What the variable starts from, and what becomes of it."""
        image: Shape = ("batch", *self.model.output.shape)
        if self.spec.encoder is not None:
            require_signature(graphs[self.spec.encoder], {"image": Wanted(image)}, {"latent": Wanted(variable)})
        if self.spec.decoder is not None:
            decoder = graphs[self.spec.decoder]
            require_signature(decoder, {decoder.inputs[0].name: Wanted(variable)}, {"image": Wanted(image)})
        elif variable not in (image, ("batch", self.model.output.shape[0], HEIGHT, WIDTH)):
            raise ManifestError(
                f"expected a decoder, or a variable that is an image {list(image)}, got {list(variable)}; "
                "export the bundle again"
            )

    @property
    def latent_shape(self) -> tuple[int, ...] | None:
        """The variable's own shape; None where it starts as the caller's image."""
        return (
            None
            if self.model.source is not None
            else fixed_shape(self.objective(self.layers[0]).graph, "variable")
        )

    @property
    def layers(self) -> tuple[str, ...]:
        """What can be asked for, the default first."""
        return tuple(self.spec.objectives)

    def channels(self, layer: str) -> int | None:
        """How many channels `layer` lets one choose from; None where it has no such choice."""
        spec = self.objective(layer).graph.input("channels")
        return None if spec is None else int(spec.shape[0])

    @property
    def defaults(self) -> AscentSettings:
        """The bundle's, for sampling or for inversion."""
        return self.spec.defaults

    def fit(self, settings: AscentSettings, options: Mapping[str, Any]) -> AscentSettings:
        """With the layer that holds. Refuses a layer, a channel, a start and an encoder that the model does not
        have, and jitter of what is no image."""
        layer = self.layers[0] if settings.layer is None else settings.layer
        if layer not in self.layers:
            raise InputError(f"no layer {layer[:80]!r}{did_you_mean(layer[:80], self.layers)}")
        if settings.channel is not None:
            self._check_channel(layer, settings.channel)
        if options.get("start") is not None and self.latent_shape is None:
            raise InputError("this model starts from the image that it is given; leave start out")
        if settings.start == "encoder" and self.spec.encoder is None:
            raise InputError("start 'encoder' needs an encoder, and this model has none; use 'noise' or 'zeros'")
        if settings.jitter and self.spec.decoder is not None:
            raise InputError("jitter moves images; this model optimizes a latent: leave jitter out")
        return settings.model_copy(update={"layer": layer})

    def _check_channel(self, layer: str, channel: int) -> None:
        count = self.channels(layer)
        if count is None:
            raise InputError(f"layer {layer!r} has no channels to choose from; leave channel out")
        if channel >= count:
            raise InputError(f"expected channel of {layer!r} from 0 to {count - 1}, got {channel}")

    def begin(self, run: Run, settings: AscentSettings) -> _Climb:
        """A step is one evaluation of the gradient, and a move along it."""
        return _Climb(self, run, settings)

    def ascend(self, run: Run, settings: AscentSettings) -> Ascended:
        """Makes the steps. Raises :class:`BackendError` where an objective or a gradient is not finite."""
        with self.begin(run, settings) as state:
            while state.step():
                pass
            return state.path.end()

    def image(self, run: Run, variable: Float32) -> Float32:
        """The image of a variable, float32 [B, C, H, W]; one that was padded is cut."""
        if self.spec.decoder is None:
            if "image" not in run.conditions:
                return variable
            height, width = source_size(run.conditions["image"])
            return variable[:, :, :height, :width]
        session = self.sessions[self.spec.decoder]
        with session.bound({"batch": len(run)}) as bound:
            np.copyto(bound.input(session.graph.inputs[0].name), variable)
            run.timed(bound)
            return bound.output("image").copy()

    def objective(self, layer: str) -> Session:
        """The gradient graph of `layer`."""
        return self.sessions[self.spec.objectives[layer]]

    def sizes(self, run: Run, graph: GraphSpec) -> dict[str, int]:
        """The named axes: an image of the caller's is padded to a size that the graph takes."""
        sizes = {"batch": len(run)}
        named = {axis for spec in graph.inputs for axis in spec.shape}
        if named >= {HEIGHT, WIDTH}:
            given = run.conditions.get("image")
            height, width = self.model.output.shape[1:] if given is None else source_size(given)
            source = self.model.source
            sizes[HEIGHT] = height if source is None else source.padded(height)
            sizes[WIDTH] = width if source is None else source.padded(width)
        return sizes

    def write_fixed(self, run: Run, bound: Bound, settings: AscentSettings) -> None:
        """The inputs that no step changes."""
        graph = bound.session.graph
        if graph.input("target") is not None:
            np.copyto(bound.input("target"), _target(run))
        if self.spec.features is not None and graph.input("target_features") is not None:
            with self.sessions[self.spec.features].bound({"batch": len(run)}) as features:
                np.copyto(features.input("image"), _target(run))
                run.timed(features)
                np.copyto(bound.input("target_features"), features.output("features"))
        if graph.input("channels") is not None:
            weights = bound.input("channels")
            weights[...] = 1.0 if settings.channel is None else 0.0
            if settings.channel is not None:
                weights[settings.channel] = 1.0

    def first_variable(self, run: Run, bound: Bound, settings: AscentSettings) -> Float32:
        """The first variable."""
        x = np.zeros(bound.input("variable").shape, np.float32)
        given, source = run.conditions.get("image"), self.model.source
        if source is not None and given is not None and self.spec.decoder is None:
            write_source(given, x, source)
            return x
        start = settings.start
        if start is None and run.latents is None and given is not None and self.spec.encoder is not None:
            start = "encoder"
        if start == "encoder" and self.spec.encoder is not None:
            with self.sessions[self.spec.encoder].bound({"batch": len(run)}) as encoder:
                np.copyto(encoder.input("image"), _target(run))
                run.timed(encoder)
                np.copyto(x, encoder.output("latent"))
        elif run.latents is not None or (start or self.spec.start) == "noise":
            run.latent(x)
        return x


class _Climb(State):
    """A batch on its path, over the gradient graph of one objective."""

    def __init__(self, program: AscentProgram, run: Run, settings: AscentSettings) -> None:
        super().__init__(run)
        self._program, self._settings = program, settings
        session = program.objective(settings.layer or program.layers[0])
        self._bound = self.borrow(session, program.sizes(run, session.graph))
        program.write_fixed(run, self._bound, settings)
        first = program.first_variable(run, self._bound, settings)
        self.path = Path(first, self._settings, program.spec, program.model)
        self._looks_back = program.spec.keep == "best"
        self._step = 0

    def step(self) -> bool:
        """The "best" variable takes an evaluation more than there are moves."""
        step, total, path = self._step, self._settings.num_inference_steps, self.path
        if step == total and not self._looks_back:
            return False
        objective, gradient = self._evaluate(_shifts(self.run, step, self._settings.jitter))
        path.note(objective)
        if step == total or not path.active.any():
            return False
        path.move(gradient, step)
        self._step += 1
        ended = self.run.end_step(step, total, step, self._image, objective=path.objective)
        return not ended and (self._step < total or self._looks_back)

    def finish(self) -> None:
        """The image of where the steps led."""
        self.run.finish(self._program.image(self.run, self.path.end().variable))

    def _image(self) -> Float32:
        return self._program.image(self.run, self.path.x)

    def _evaluate(self, shifts: Int64) -> tuple[Float32, Float32]:
        """Objective [B] and gradient here, each sample moved by its shift, and its gradient moved back."""
        bound = self._bound
        np.copyto(bound.input("variable"), _rolled(self.path.x, shifts))
        self.run.timed(bound)
        objective, gradient = bound.output("objective"), _rolled(bound.output("gradient"), -shifts)
        finite = np.isfinite(objective) & np.isfinite(gradient).reshape(len(gradient), -1).all(axis=1)
        if not finite.all():
            bad = int((~finite).sum())
            what = f"the gradient of {bad} of {len(finite)} samples"
            raise not_finite(what, bound.session.backend, bound.session.precision)
        return objective.copy(), gradient


def _sizes_of(graph: GraphSpec, output: str) -> tuple[int | str, ...]:
    spec = graph.output(output)
    return () if spec is None else spec.shape[1:]


def _target(run: Run) -> Float32:
    """The image to find again, float32 [B, C, H, W]."""
    if "image" not in run.conditions:
        raise InputError("this objective needs an image to find again; use invert(images)")
    return run.conditions["image"]


def _shifts(run: Run, step: int, jitter: int) -> Int64:
    """By how many rows and columns each sample is moved in this step, [B, 2]."""
    if not jitter:
        return np.zeros((len(run), 2), np.int64)
    drawn = noise.uniform(run.keys, step + 1, (2,))
    return np.floor(drawn * (2 * jitter + 1)).astype(np.int64) - jitter


def _rolled(x: Float32, shifts: Int64) -> Float32:
    """Each image [C, H, W] of `x` moved by its shift; what leaves on one side comes in on the other."""
    if not shifts.any():
        return x
    return np.stack([np.roll(each, tuple(shift), axis=(1, 2)) for each, shift in zip(x, shifts, strict=True)])
