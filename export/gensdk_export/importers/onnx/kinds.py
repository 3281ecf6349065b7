"""Recognizes graphs that make no image of an image or of noise, and says in one line what to do instead."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
import onnx

from gensdk_export.importers.import_report import Guess
from gensdk_export.importers.onnx.reading import OnnxFile, Port
from gensdk_runtime.errors import InputError

TIME_NAMES = frozenset(("t", "ts", "time", "times", "timestep", "timesteps", "time_step", "time_steps", "logsnr"))
MAX_STEPS = 400
"""Nodes that are looked at behind an input."""
DENOISER = (
    "{path}: it looks like the denoiser of a diffusion model: {x} and the time step {t} become {y}; one run of it "
    "makes no image. Import the diffusers folder that it came from; where it is none, say what {name!r} is: "
    "--constant {name}=FILE.npy for one level, --label {name} for classes"
)


def refuse_denoiser(file: OnnxFile, said: frozenset[str]) -> tuple[Guess, ...]:
    """Raises :class:`InputError` where one input is a time step, and another has the shape of an output.

    Of inputs that something was `said` of, it is only told.
    """
    told = []
    for port in file.inputs:
        if not _is_time(file.model, port):
            continue
        for noisy, result in product(file.inputs, file.outputs):
            if not _alike(noisy, result):
                continue
            if port.name not in said:
                texts = {"x": noisy.text(), "t": port.text(), "y": result.text()}
                raise InputError(DENOISER.format(path=file.path, name=port.name, **texts))
            reason = "one run of a denoiser of a diffusion model makes no image"
            told.append(Guess("doubtful kind", f"{port.name!r} may be a time step", reason))
            break
    return tuple(told)


def _alike(port: Port, result: Port) -> bool:
    """True if both have four axes, sizes that may be the same, and the same channels, or twice as many in the
    result, where a denoiser tells its variance too."""
    if len(port.shape or ()) != 4 or len(result.shape or ()) != 4 or np.dtype(port.dtype).kind != "f":
        return False
    before, after = (port.shape or ())[1:], (result.shape or ())[1:]
    known = [(a, b) for a, b in zip(before, after, strict=True) if isinstance(a, int) and isinstance(b, int)]
    doubled = before[0] == after[0] or (isinstance(before[0], int) and after[0] == 2 * before[0])
    return all(a == b for a, b in known) or (doubled and all(a == b for a, b in known[1:]))


def _is_time(model: onnx.ModelProto, port: Port) -> bool:
    """A number for each image, that is called a time or goes into a sine."""
    shape = port.shape or ()
    if np.dtype(port.dtype).kind not in "fiu" or len(shape) > 2 or (len(shape) == 2 and shape[1] != 1):
        return False
    return port.name.lower().strip("_") in TIME_NAMES or {"Sin", "Cos"} <= _behind(model, port.name)


def _behind(model: onnx.ModelProto, name: str) -> set[str]:
    """The operators behind the tensor `name`, as far as they go into a sine at all."""
    reached, found = {name}, set[str]()
    for node in list(model.graph.node)[:MAX_STEPS]:
        if reached.intersection(node.input) and node.op_type not in ("Gather", "Conv"):
            found.add(node.op_type)
            if node.op_type not in ("Sin", "Cos"):
                reached.update(node.output)
    return found


def what_it_is(inputs: Sequence[Port], outputs: Sequence[Port]) -> str:
    """What a graph without an output of images probably is, and what to do with it."""
    if any(np.dtype(port.dtype).kind in "iu" and len(port.shape or ()) == 2 for port in inputs):
        return "it looks like a text encoder, which makes no images"
    sizes = [port.shape[1:] for port in outputs if port.shape is not None]
    if all(len(rest) == 0 or rest == (1,) for rest in sizes):
        return "it looks like a discriminator or a score, a number for each image; give the generator"
    if any(len(rest) == 3 and (1, 1) not in (rest[1:], rest[:2]) for rest in sizes):
        return "it looks like an encoder (of a VAE, say) or a feature extractor; give the part that makes images"
    return (
        "a classifier can --dream; where it makes a style of an image, it is a --style-encoder for the model that "
        "takes the style"
    )


def smaller_result(size: tuple[int, int], out: Sequence[int]) -> str:
    """Why a result that is smaller than the image makes no bundle."""
    return (
        f"expected a result of one or more times the size, got {out[0]} x {out[1]} of {size[0]} x {size[1]}; an "
        "encoder (of a VAE, say) or a discriminator of patches makes maps that are smaller, and no image"
    )
