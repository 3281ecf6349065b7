"""What a GPU needs to run graphs, from the driver to the package: what is missing, and what mends it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from gensdk_runtime.host.nvidia import Driver, gpus_in_sight, nvidia_driver

Capability = tuple[int, int]
"""Of a GPU: (8, 9) is compute capability 8.9."""


@dataclass(frozen=True)
class Link:
    """One thing that must be there: `what` it is, what was `found`, and the `remedy` where it is not `ok`.

    `ok` None: it can't be told, as where a link before it is missing.
    """

    what: str
    ok: bool | None
    found: str
    remedy: str = ""


@dataclass(frozen=True)
class Chain:
    """All that a backend on one device needs, in order."""

    links: tuple[Link, ...]

    @property
    def broken(self) -> tuple[Link, ...]:
        """What is missing."""
        return tuple(link for link in self.links if link.ok is False)

    @property
    def remedy(self) -> str:
        """What mends what comes first of all that is missing; empty where nothing is."""
        return next((link.remedy for link in self.broken), "")

    @property
    def problem(self) -> str:
        """What is missing in one line, with the remedy; empty where nothing is.

        Where there is no GPU, no package helps. Else a missing package comes first: what it would need is known
        only when it is there.
        """
        if not self.broken:
            return ""
        told = min(self.broken, key=lambda link: (link.what != GPU, link.what != PACKAGE))
        return f"{told.found}; {told.remedy}"


GPU, PACKAGE = "GPU", "package"


def gpu_links(wants: Callable[[Capability], bool], wanted: str, cuda: int) -> Iterator[Link]:
    """The links from the GPU to CUDA.

    `wants`: whether a GPU of this compute capability will do, `wanted` in words; `cuda`: the major version of CUDA
    that the package was built with, 0 where that is not known.
    """
    driver = nvidia_driver()
    yield _gpu_link(driver)
    yield _driver_link(driver)
    if driver.problem:
        yield Link("CUDA", None, f"wants CUDA {cuda}" if cuda else "not known")
        yield Link("compute capability", None, f"wants {wanted}")
        return
    yield _cuda_link(driver, cuda)
    first, (major, minor) = driver.gpus[0], driver.gpus[0].capability
    if wants(first.capability):
        yield Link("compute capability", True, f"{major}.{minor}")
    else:
        text = f"{first.name} has compute capability {major}.{minor}, and it wants {wanted}"
        yield Link("compute capability", False, text, "use backend='auto', or another GPU (CUDA_VISIBLE_DEVICES)")


def _gpu_link(driver: Driver) -> Link:
    if driver.gpus:
        return Link(GPU, True, "; ".join(str(gpu) for gpu in driver.gpus))
    seen = gpus_in_sight()
    if seen is None:
        return Link(GPU, None, "the system does not tell")
    if seen:
        return Link(GPU, True, f"NVIDIA, {', '.join(seen)}")
    # A container shows the devices of its host or none; a virtual machine those that it was given.
    return Link(GPU, False, "no NVIDIA GPU was found", "use backend='auto' on a machine without one")


def _driver_link(driver: Driver) -> Link:
    if not driver.problem:
        return Link("driver", True, str(driver))
    return Link("driver", False, driver.problem, _driver_remedy())


def _cuda_link(driver: Driver, cuda: int) -> Link:
    found = f"{driver.cuda // 1000}.{driver.cuda % 1000 // 10}"
    if driver.cuda // 1000 >= cuda:
        return Link("CUDA", True, found)
    text = f"the NVIDIA driver knows CUDA {found}, and the package was built with CUDA {cuda}"
    return Link("CUDA", False, text, _driver_remedy())


def _driver_remedy() -> str:
    """The command that installs or updates the driver."""
    if Path("/.dockerenv").exists() or Path("/run/.containerenv").exists():
        return "start the container with its GPUs (docker run --gpus all)"
    if sys.platform.startswith("linux"):
        system = _os_release()
        if "ubuntu" in system:
            return "sudo ubuntu-drivers install"
        if "debian" in system:
            return "sudo apt install nvidia-driver"
    return "install the newest NVIDIA driver (https://www.nvidia.com/drivers)"


def _os_release() -> str:
    try:
        lines = Path("/etc/os-release").read_text(encoding="utf-8", errors="replace")[:4096].splitlines()
    except OSError:
        return ""
    return " ".join(line.partition("=")[2].strip('"') for line in lines if line.startswith(("ID=", "ID_LIKE=")))
