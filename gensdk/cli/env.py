"""``gensdk env``."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata
from typing import TYPE_CHECKING, Any

import click

from gensdk.cli.output import print_json, print_table, say

if TYPE_CHECKING:
    from gensdk_runtime.backends.chain import Chain

EXAMPLES = """
\b
Examples:
  gensdk env
  gensdk env --explain
  gensdk env --json > machine.json
"""

PACKAGES = (
    "numpy",
    "pillow",
    "onnxruntime",
    "onnxruntime-gpu",
    "openvino",
    "torch",
    "onnx",
    "onnxscript",
    "accelerate",
    "safetensors",
    "tensorrt",
    "tensorrt-rtx-cu13-bindings",
    "cuda-bindings",
    "matplotlib",
    "av",
    "opencv-python",
    "opencv-python-headless",
    "opencv-contrib-python",
    "opencv-contrib-python-headless",
)
OPENCV = tuple(name for name in PACKAGES if name.startswith("opencv"))
"""All of them are the module cv2; whichever is there is used, and two of them overwrite each other."""

EXTRAS = {
    "cpu": ("onnxruntime",),
    "gpu": ("onnxruntime-gpu", "cuda-bindings"),
    "openvino": ("openvino",),
    "training": (
        "torch", "onnx", "onnxscript", "safetensors", "accelerate", "tensorboard", "scikit-learn",
    ),
    "rtx": ("tensorrt-rtx-cu13-libs", "tensorrt-rtx-cu13-bindings", "cuda-bindings"),
    "tensorrt": ("tensorrt", "cuda-bindings"),
    "import": ("onnx",),
    "diffusers": ("diffusers", "safetensors", "tokenizers", "transformers"),
    "plot": ("matplotlib",),
    "video": ("av",),
    "audio": ("soundfile",),
    "text": ("tokenizers",),
}  # fmt: skip
RUNTIMES = {"cpu": "onnxruntime", "gpu": "onnxruntime-gpu"}
"""The extras whose packages are one module, so that they overwrite each other."""
BESIDE = ("training", "import")
"""The extras that need one of them beside them."""


@click.command(epilog=EXAMPLES)
@click.option("--explain", is_flag=True, help="For each provider: what it needs, and the command that mends it.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def env(explain: bool, as_json: bool) -> None:
    """Show this machine, the packages, and which backends and providers run here, or why not and what mends it."""
    from gensdk_runtime.backends import availabilities, chains
    from gensdk_runtime.bench.machine import this_machine
    from gensdk_runtime.version import __version__

    machine = this_machine()
    packages = {name: version(name) for name in PACKAGES}
    extras = {name: extra_state(name) for name in EXTRAS} | {"opencv": opencv_state()}
    backends = availabilities()
    if as_json:
        found: dict[str, Any] = {
            "gensdk": __version__,
            "machine": machine.model_dump(mode="json"),
            "packages": packages,
            "extras": extras,
            "backends": {name: vars(each) for name, each in backends.items()},
        }
        if explain:
            found["chains"] = {
                name: {"links": [vars(link) for link in chain.links], "remedy": chain.remedy}
                for name, chain in chains().items()
            }
        print_json(found)
        return
    gpus = ", ".join(machine.gpus) or "none found"
    say(f"gensdk {__version__}, Python {machine.python}, {machine.os}")
    say(f"{machine.cpu}, {machine.cores} cores, {machine.memory_gib} GiB; NVIDIA GPUs: {gpus}")
    if explain:
        print_chains(chains())
        return
    rows = []
    for name, each in backends.items():
        state = "ready" if each.available else f"{each.reason}; {each.remedy}"
        rows.append((name, each.version, ", ".join(each.devices), state))
        rows += [(f"{name}:{provider}", "", "", reason) for provider, reason in each.missing.items()]
    print_table(("backend", "version", "providers", "state"), rows)
    print_table(("extra", "state"), list(extras.items()))
    print_table(("package", "version"), [(name, found or "-") for name, found in packages.items()])


def print_chains(chains: Mapping[str, Chain]) -> None:
    """A table for each provider, from what it needs first, and what mends it."""
    states = {True: "ok", False: "missing", None: "?"}
    for name, chain in chains.items():
        rows = [(link.what, states[link.ok], link.found) for link in chain.links]
        print_table(("needs", "state", "found"), rows, title=name)
        say(f"mend it: {chain.remedy}" if chain.broken else "nothing is missing")


def version(package: str) -> str | None:
    """The installed version, without importing the package; None where it is missing."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def extra_state(extra: str) -> str:
    """``installed``, or the pip commands that install what is missing."""
    missing = [package for package in EXTRAS[extra] if version(package) is None]
    runtimes = [package for package in RUNTIMES.values() if version(package) is not None]
    if extra == "cpu" and runtimes == [RUNTIMES["gpu"]]:
        return f"not needed: {RUNTIMES['gpu']} runs on the processor too"
    if extra in RUNTIMES and runtimes not in ([], [RUNTIMES[extra]]):
        # Each removal takes files of the other along: what is to stay is installed anew.
        return (
            f'pip uninstall -y {" ".join(runtimes)} && pip install "gensdk[{extra}]" (onnxruntime and '
            "onnxruntime-gpu overwrite each other)"
        )
    if missing:
        return f'pip install "gensdk[{extra}]" ({", ".join(missing)} missing)'
    if extra in BESIDE and not runtimes:
        return 'pip install "gensdk[cpu]", or "gensdk[gpu]" (ONNX Runtime is missing beside it)'
    return "installed"


def opencv_state() -> str:
    """As :func:`extra_state`, for windows and cameras: any one of the packages will do, two are one too many."""
    found = [name for name in OPENCV if version(name) is not None]
    if len(found) > 1:
        others = " ".join(found)
        return (
            f"{' and '.join(found)} overwrite each other: pip uninstall -y {others}, then pip install {found[0]}"
        )
    if not found:
        return "pip install opencv-python (no windows and cameras without it)"
    return f"installed ({found[0]}{', for cameras; it has no windows' if 'headless' in found[0] else ''})"
