"""A pipeline of texts to images in a process of its own: JSON lines in and out, as in :mod:`peers.process`.

The first line says which `peer`, and where the diffusers folder and what was made of it lie; a process of another
environment serves it too, so nothing is imported before it is needed.

    open {latents, prompts, steps, guidance}   loads it; `latents` is an .npy file [n, C, h, w]
    run {calls, discard}                       times whole calls
    save {to}                                  the last images, uint8 [n, H, W, 3], as .npy
    memory                                     this process's peak of resident memory, in bytes
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from peers.serving import Command, peak_memory, serve, timed

Call = Callable[[], Any]
"""Gives images, uint8 [n, H, W, 3], or floats in [0, 1]."""


def gensdk(first: dict[str, Any], latents: Any, asked: dict[str, Any]) -> Call:
    """Our runtime, without PyTorch."""
    from gensdk import Generator

    generator = Generator.load(first["bundle"], backend=first["backend"])
    settings = {"num_inference_steps": asked["steps"], "guidance_scale": asked["guidance"]}
    return lambda: (
        generator.sample(
            len(latents), seed=0, latents=latents, prompt=asked["prompts"], progress=False, **settings
        ).images
    )


def diffusers(first: dict[str, Any], latents: Any, asked: dict[str, Any]) -> Call:
    """diffusers' own pipeline, eager, or with its networks compiled."""
    import torch
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(first["folder"])
    pipeline.set_progress_bar_config(disable=True)
    if first.get("compiled"):
        pipeline.unet = torch.compile(pipeline.unet)
        pipeline.vae.decode = torch.compile(pipeline.vae.decode)
    return _pipeline(pipeline, torch.from_numpy(latents), asked)


def optimum(first: dict[str, Any], latents: Any, asked: dict[str, Any]) -> Call:
    """optimum-onnx: diffusers' loop over ONNX Runtime."""
    import torch
    from optimum.onnxruntime import ORTStableDiffusionPipeline

    pipeline = ORTStableDiffusionPipeline.from_pretrained(first["optimum"])
    pipeline.set_progress_bar_config(disable=True)
    return _pipeline(pipeline, torch.from_numpy(latents), asked)


def _pipeline(pipeline: Any, latents: Any, asked: dict[str, Any]) -> Call:
    return lambda: (
        pipeline(
            asked["prompts"],
            latents=latents,
            num_inference_steps=asked["steps"],
            guidance_scale=asked["guidance"],
            output_type="np",
        ).images
    )


def openvino_genai(first: dict[str, Any], latents: Any, asked: dict[str, Any]) -> Call:
    """OpenVINO GenAI's Text2ImagePipeline, one prompt a call as it takes them, its noise ours."""
    import openvino
    import openvino_genai

    class Given(openvino_genai.Generator):  # type: ignore[misc]
        """Gives the latents of one image in the place of noise."""

        def __init__(self, values: Any) -> None:
            super().__init__()
            self.values = values

        def randn_tensor(self, shape: Any) -> Any:
            return openvino.Tensor(np.ascontiguousarray(self.values.reshape(tuple(shape))))

        def next(self) -> float:
            raise RuntimeError("no other noise is drawn with eta 0")

    pipeline = openvino_genai.Text2ImagePipeline(first["openvino"], "CPU", INFERENCE_PRECISION_HINT="f32")

    def call() -> Any:
        made = [
            pipeline.generate(
                prompt,
                num_inference_steps=asked["steps"],
                guidance_scale=asked["guidance"],
                height=first["side"],
                width=first["side"],
                generator=Given(latents[number : number + 1]),
            ).data[0]
            for number, prompt in enumerate(asked["prompts"])
        ]
        return np.stack(made)

    return call


PEERS = {
    "gensdk": gensdk,
    "diffusers": diffusers,
    "diffusers-compile": diffusers,
    "optimum-onnx": optimum,
    "openvino-genai": openvino_genai,
}


class Server:
    """Answers the commands for one peer."""

    def __init__(self, first: dict[str, Any]) -> None:
        self._first, self._images = first, np.zeros(0)
        self._call: Call | None = None

    def open(self, *, latents: str, **asked: Any) -> Mapping[str, Any]:
        """Loads it, and makes images once."""
        self._call = PEERS[self._first["peer"]](self._first, np.load(latents, allow_pickle=False), asked)
        self._images = self._call()
        return {}

    def run(self, *, calls: int, discard: int) -> Mapping[str, Any]:
        """Times whole calls, in ns."""
        assert self._call is not None
        found, self._images = timed(self._call, calls=calls, discard=discard)
        return {"ns": found}

    def save(self, *, to: str) -> Mapping[str, Any]:
        """Writes the last images."""
        images = np.asarray(self._images)
        if images.dtype != np.uint8:
            images = np.rint(255 * images.clip(0, 1)).astype(np.uint8)
        np.save(to, images, allow_pickle=False)
        return {}

    def memory(self) -> Mapping[str, Any]:
        """The peak so far."""
        return {"bytes": peak_memory()}


def start(first: dict[str, Any]) -> Mapping[str, Command]:
    """The commands of the peer that the first line names."""
    server = Server(first)
    return {name: getattr(server, name) for name in ("open", "run", "save", "memory")}


if __name__ == "__main__":
    serve(start)
