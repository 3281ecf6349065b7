"""Bundles of an older manifest schema, kept as they were written, and what the code of then drew from them.

``tests/fixtures/schema1/samples.npz`` was recorded by :func:`record` with the last code that wrote schema 1
(gensdk 0.1.0), on ONNX Runtime 1.31 with one thread. The public face alone is used, so that any later code can
draw the same cases.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gensdk import Generator, Samples

FOLDER = Path(__file__).parents[1] / "fixtures" / "schema1"
RECORDED = FOLDER / "samples.npz"
NAMES = ("digits-dcgan", "digits-ddpm", "digits-pixelcnn", "digits-vae")

Arrays = dict[str, NDArray[Any]]
Case = Callable[[Generator], Arrays]


def bundle(name: str) -> Path:
    """The file of one old bundle."""
    return FOLDER / f"{name}.gsdk"


def sampled(n: int, seed: Any, **options: Any) -> Case:
    return lambda generator: of(generator.sample(n, seed=seed, progress=False, **options))


def of(samples: Samples) -> Arrays:
    """The samples, with the seeds and labels that they were drawn from."""
    seeds = np.array([list(key) for key in samples.seeds], np.uint64)
    return {
        "array": samples.array,
        "seeds": seeds,
        **({} if samples.labels is None else {"labels": samples.labels}),
    }


def pixels(n: int) -> NDArray[np.uint8]:
    """Stripes that no model drew, uint8 [n, 8, 8, 1]."""
    rows = np.arange(n * 64).reshape(n, 8, 8, 1)
    return (rows * 37 % 256).astype(np.uint8)


EVERY: Mapping[str, Case] = {
    "default": sampled(6, 3),
    "seeds": sampled(3, [5, (9, 2), 2**64 - 1]),
    "labels": sampled(4, 1, label=["7", "0", "3", "9"]),
    "bytes": lambda generator: {"images": generator.sample(4, seed=2, output_type="uint8", progress=False).images},
}

LATENT: Mapping[str, Case] = {
    "latents": lambda generator: {"latents": generator.latents(3, 4)},
    "given": lambda generator: of(
        generator.sample(3, seed=1, label=2, latents=generator.latents(3, 4), progress=False)
    ),
    "interpolate": lambda generator: of(generator.interpolate(1, (2, 5), 4, label=8, progress=False)),
}

CASES: Mapping[str, Mapping[str, Case]] = {
    "digits-dcgan": {**EVERY, **LATENT},
    "digits-vae": {**EVERY, **LATENT},
    "digits-ddpm": {
        **EVERY,
        **LATENT,
        "guided": sampled(
            4, 5, label=[1, 2, 3, 4], guidance_scale=2.5, solver="dpmsolver++", num_inference_steps=10
        ),
        "ddpm": sampled(3, 5, solver="ddpm", num_inference_steps=12, timestep_spacing="leading"),
        "eta": sampled(3, 5, eta=0.5, num_inference_steps=20, use_clipped_model_output=False),
        "cached": sampled(3, 5, label=6, cache_interval=3, guidance_scale=1.5),
    },
    "digits-pixelcnn": {
        **EVERY,
        "log_likelihood": lambda generator: {"bits": generator.log_likelihood(pixels(5), label=[0, 1, 2, 3, 4])},
    },
}
"""What is drawn of each bundle, by name."""


def draw(name: str) -> Arrays:
    """Every case of one bundle: ``name/case/part`` to an array."""
    found: Arrays = {}
    with Generator.load(bundle(name), backend="onnxruntime", threads=1) as generator:
        for case, drawn in CASES[name].items():
            found.update({f"{name}/{case}/{part}": array for part, array in drawn(generator).items()})
    return found


def record(out: Path = RECORDED) -> None:
    """Writes what the present code draws; it was run once, before the schema changed."""
    arrays = [item for name in NAMES for item in draw(name).items()]
    np.savez_compressed(out, **dict(arrays))
