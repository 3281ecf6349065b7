"""What the machine is: hardware, driver, packages; and each backend's chain from the driver to the package."""

from __future__ import annotations

import platform
from importlib.util import find_spec

from day_one.backends import doubled, known
from day_one.conduct import OPENS
from day_one.double import WARNING, engines_here
from day_one.result import Found, Order, told
from gensdk.cli.env import EXTRAS, PACKAGES, version
from gensdk_runtime.backends.chain import Chain
from gensdk_runtime.bench.machine import this_machine
from gensdk_runtime.host.nvidia import nvidia_driver

MARKS = {True: "ok", False: "MISSING", None: "?"}


def rows(order: Order) -> Found:
    """Facts first, then a row for each backend, on which the other parts build."""
    yield "the hardware"
    machine, driver = this_machine(), nvidia_driver()
    facts = {
        "system": f"{machine.os}, {platform.machine()}, Python {machine.python}",
        "processor": f"{machine.cpu}, {machine.cores} cores"
        + (f", a quota of {machine.cpu_quota:g}" if machine.cpu_quota else ""),
        "memory": f"{machine.memory_gib} GiB",
        "load": ", ".join(f"{each:g}" for each in machine.load_average) or "unknown",
        "GPUs": "; ".join(str(gpu) for gpu in driver.gpus) or "none",
        "nvidia-smi": "; ".join(machine.gpus) or "says nothing",
        "driver": driver.problem or str(driver),
        "CUDA of the driver": f"{driver.cuda // 1000}.{driver.cuda % 1000 // 10}" if driver.cuda else "none",
    }
    for what, found in facts.items():
        yield order.row("", what, "measured", detail=found)
    names = dict.fromkeys(["gensdk", *PACKAGES, *(each for packages in EXTRAS.values() for each in packages)])
    for name in names:
        yield order.row("package", name, "measured", detail=version(name) or "missing")
    if find_spec("torch") is not None:
        yield "PyTorch"
        yield order.row("", "PyTorch", "measured", detail=torch_build())
    yield "the chains of all providers"
    for name, chain in known().items():
        ok = not chain.broken
        detail = in_words(chain) if ok else f"{chain.problem} ({in_words(chain)})"
        yield order.row(name, OPENS, "passed" if ok else "skipped", detail=detail)
    if order.double:
        try:
            engines_here()
        except Exception as failure:
            yield order.row("double", "is there", "failed", detail=told(failure))
            return
        for name in doubled():
            yield order.row(name, OPENS, "passed", detail=WARNING)


def in_words(chain: Chain) -> str:
    """Its links in one line."""
    return "; ".join(f"{link.what} {MARKS[link.ok]}: {link.found}" for link in chain.links)


def torch_build() -> str:
    """What PyTorch was built with, and whether it sees a GPU."""
    try:
        import torch
    except (ImportError, OSError) as failure:
        return told(failure)
    return f"{torch.__version__}, CUDA {torch.version.cuda or 'none'}, sees a GPU: {torch.cuda.is_available()}"
