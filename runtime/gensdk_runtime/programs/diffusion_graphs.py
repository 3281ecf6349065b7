"""The tensors that the graphs of a diffusion model must have; see :class:`DiffusionSpec` for what they mean."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from gensdk_runtime.errors import ManifestError
from gensdk_runtime.programs.base import Shape, Wanted, require_signature
from gensdk_runtime.programs.solvers import NUM_COEFFICIENTS
from gensdk_runtime.spec.conditions import PromptSpec
from gensdk_runtime.spec.latent import LatentSpec
from gensdk_runtime.spec.model import DiffusionSpec, ModelSpec
from gensdk_runtime.spec.signature import ROWS, GraphSpec

CARRY = {"next_sample": "sample", "next_previous_x0": "previous_x0"}
"""Outputs of a step that are inputs of the next one."""
GUIDANCE_SCALE = "guidance_scale"
"""The input of a denoiser that is guided inside."""


def is_lockstep(step: GraphSpec) -> bool:
    """True for a step graph of the first contract: one time step and one row of coefficients for all samples."""
    spec = step.input("coefficients")
    return spec is not None and spec.shape == (NUM_COEFFICIENTS,)


def check_graphs(model: ModelSpec, spec: DiffusionSpec, graphs: Mapping[str, GraphSpec]) -> None:
    """Raises :class:`ManifestError` unless `graphs`, by name, have the tensors of :class:`DiffusionSpec`."""
    step, labelled = graphs[spec.graph], model.num_classes is not None
    conditional = labelled or spec.context_graph is not None
    lockstep = is_lockstep(step)
    each: Shape = () if lockstep else ("batch",)
    passes: Shape = ("guidance", "batch") if conditional else ("batch",)
    if spec.latent is not None:
        _check_autoencoder(model, spec, spec.latent, graphs)
    images = Wanted(("batch", *(model.output.shape if spec.latent is None else spec.latent.shape)))
    inputs = dict.fromkeys(("sample", "previous_x0", "noise"), images)
    inputs["coefficients"] = Wanted((*each, NUM_COEFFICIENTS))
    if conditional:
        inputs["guidance_weights"] = Wanted(("guidance", *each))
    if spec.embedding_graph is None:
        inputs["timestep"] = Wanted((1,), "int64") if lockstep else Wanted(each)
        inputs |= {"label": Wanted(passes, "int64")} if labelled else {}
    else:
        size = _check_embedding(graphs[spec.embedding_graph], conditional=labelled, lockstep=lockstep)
        inputs["embedding"] = Wanted((*(passes if conditional else each or (1,)), size))
    if spec.context_graph is not None:
        if spec.guided_inside:
            inputs[GUIDANCE_SCALE] = Wanted(passes)
        contexts = _check_contexts(model, graphs[spec.context_graph], inputs)
        inputs |= {name: Wanted((*passes, *shape)) for name, shape in contexts.items()}
    outputs = dict.fromkeys(CARRY, images)
    if spec.shallow_graph is not None:
        features = {"deep_features": Wanted((*passes, *_features(step, len(passes))))}
        require_signature(graphs[spec.shallow_graph], inputs | features, outputs)
        outputs |= features
    require_signature(step, inputs, outputs)


def _check_autoencoder(
    model: ModelSpec, spec: DiffusionSpec, latent: LatentSpec, graphs: Mapping[str, GraphSpec]
) -> None:
    images, latents = Wanted(("batch", *model.output.shape)), Wanted(("batch", *latent.shape))
    if spec.decoder is not None:
        require_signature(graphs[spec.decoder], {"latent": latents}, {"image": images})
    if spec.encoder is not None:
        require_signature(graphs[spec.encoder], {"image": images}, {"latent": latents})
    if latent.preview is not None and len(latent.preview) != model.output.shape[0]:
        raise ManifestError(
            f"expected a preview of {model.output.shape[0]} rows, one a channel, got {len(latent.preview)}; "
            "export again"
        )


def _check_embedding(graph: GraphSpec, *, conditional: bool, lockstep: bool) -> int:
    """The size of an embedding."""
    rows = ("labels" if conditional else 1) if lockstep else ROWS
    inputs = {"timestep": Wanted((1,), "int64") if lockstep else Wanted((ROWS,))}
    inputs |= {"label": Wanted((rows,), "int64")} if conditional else {}
    spec = graph.output("embedding")
    size = spec.shape[-1] if spec is not None and spec.shape else 1
    require_signature(graph, inputs, {"embedding": Wanted((rows, size))})
    if not isinstance(size, int):
        raise ManifestError(
            f"graph {graph.name!r}: expected embeddings of a fixed size, got {size!r}; export again"
        )
    return size


def _check_contexts(model: ModelSpec, graph: GraphSpec, taken: Collection[str]) -> dict[str, Shape]:
    """The shape of one text's contexts by name, none of which is `taken` for something else."""
    prompt, negative = model.condition("prompt"), model.condition("negative_prompt")
    inside = model.program_of(DiffusionSpec).guided_inside
    if not isinstance(prompt, PromptSpec) or (negative is not None) == inside:
        kinds = (
            "condition prompt alone, as it is guided inside" if inside else "conditions prompt and negative_prompt"
        )
        raise ManifestError(f"graph {graph.name!r} encodes texts; expected {kinds}; export again")
    made: dict[str, Shape] = {}
    for each in graph.outputs:
        fixed = all(isinstance(axis, int) for axis in each.shape[1:])
        if each.role != "context" or each.shape[:1] != ("batch",) or not fixed or each.name in taken:
            raise ManifestError(
                f"graph {graph.name!r}: expected output {each.name!r} as a context [batch, ...] of one size, "
                f"under a name of its own, got a {each.role} {list(each.shape)}; export again"
            )
        made[each.name] = each.shape[1:]
    wanted = {name: Wanted(("batch", *shape)) for name, shape in made.items()}
    require_signature(graph, {"prompt": Wanted(("batch", prompt.length), "int64")}, wanted)
    return made


def _features(step: GraphSpec, passes: int) -> Shape:
    """The shape of one pass's deep features."""
    spec = step.output("deep_features")
    shape = () if spec is None else spec.shape[passes:]
    if not shape or not all(isinstance(axis, int) for axis in shape):
        got = "none" if spec is None else list(spec.shape)
        raise ManifestError(
            f"graph {step.name!r}: expected an output 'deep_features' of a fixed shape, got {got}; export again"
        )
    return shape
