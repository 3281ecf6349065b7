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

    `ok` None: it can't be told, as where a link before it is missing. `decides`: while it is missing, nothing that
    comes after it helps.
    """

    what: str
    ok: bool | None
    found: str
    remedy: str = ""
    decides: bool = False


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

        Where there is no GPU, or the driver itself is at fault, no package helps. Else a missing package comes
        first: what it would need is known only when it is there.
        """
        if not self.broken:
            return ""
        told = min(self.broken, key=lambda link: (not link.decides, link.what != PACKAGE))
        return f"{told.found}; {told.remedy}"


PACKAGE = "package"
DRIVERS = {12: 525, 13: 580}
"""The oldest driver of each CUDA, by its major version: CUDA's release notes, on Linux."""


def gpu_links(wants: Callable[[Capability], bool], wanted: str, cuda: int, *, older: str = "") -> Iterator[Link]:
    """The links from the GPU to CUDA.

    `wants`: whether a GPU of this compute capability will do, `wanted` in words; `cuda`: the major version of CUDA
    that the package was built with, 0 where that is not known; `older`: what installs one for CUDA 12.
    """
    driver = nvidia_driver()
    yield _gpu_link(driver)
    yield driver_link(driver)
    if driver.problem:
        yield Link("CUDA", None, f"wants CUDA {cuda}" if cuda else "not known")
        yield Link("compute capability", None, f"wants {wanted}")
        return
    yield cuda_link(driver.cuda, cuda, older=older)
    first, (major, minor) = driver.gpus[0], driver.gpus[0].capability
    if wants(first.capability):
        yield Link("compute capability", True, f"{major}.{minor}")
    else:
        text = f"{first.name} has compute capability {major}.{minor}, and it wants {wanted}"
        yield Link("compute capability", False, text, "use backend='auto', or another GPU (CUDA_VISIBLE_DEVICES)")


def _gpu_link(driver: Driver) -> Link:
    if driver.gpus:
        return Link("GPU", True, "; ".join(str(gpu) for gpu in driver.gpus))
    seen = gpus_in_sight()
    if seen is None:
        return Link("GPU", None, "the system does not tell")
    if seen:
        return Link("GPU", True, f"NVIDIA, {', '.join(seen)}")
    if driver.fault:  # what it says is the cause
        return Link("GPU", None, "the system shows none")
    # A container shows the devices of its host or none; a virtual machine those that it was given.
    return Link(
        "GPU", False, "no NVIDIA GPU was found", "use backend='auto' on a machine without one", decides=True
    )


def driver_link(driver: Driver) -> Link:
    """Whether the driver answers, and has a GPU."""
    if not driver.problem:
        return Link("driver", True, str(driver))
    if driver.fault:
        remedy = f"install the NVIDIA driver anew and restart the machine ({_another_driver()})"
        return Link("driver", False, driver.problem, remedy, decides=True)
    return Link("driver", False, driver.problem, driver_remedy())


def cuda_link(known: int, cuda: int, *, older: str = "") -> Link:
    """Whether the CUDA that the driver knows, 13020 for 13.2, is that of the package or a newer one."""
    found = f"{known // 1000}.{known % 1000 // 10}"
    if known // 1000 >= cuda:
        return Link("CUDA", True, found)
    text = f"the NVIDIA driver knows CUDA {found}, and the package is built with CUDA {cuda}"
    remedy = newer_driver(cuda)
    return Link("CUDA", False, text, f"{remedy}, or {older}" if older and known // 1000 == 12 else remedy)


def newer_driver(cuda: int) -> str:
    """What brings a driver that knows this major version of CUDA."""
    least = f" to {DRIVERS[cuda]} or newer" if cuda in DRIVERS else ""
    return f"update the NVIDIA driver{least} ({_another_driver()})"


def _another_driver() -> str:
    if _in_container():
        return "on the machine that runs the container: https://www.nvidia.com/drivers"
    return driver_remedy()


def driver_remedy() -> str:
    """The command that installs the driver, the newest one where it can be told."""
    if _in_container():
        return "start the container with its GPUs (docker run --gpus all)"
    if sys.platform.startswith("linux"):
        system = _os_release()
        if "ubuntu" in system:
            return "sudo ubuntu-drivers install"
        if "debian" in system:
            return "sudo apt install nvidia-driver"
    return "install the newest NVIDIA driver (https://www.nvidia.com/drivers)"


def _in_container() -> bool:
    return Path("/.dockerenv").exists() or Path("/run/.containerenv").exists()


def _os_release() -> str:
    try:
        lines = Path("/etc/os-release").read_text(encoding="utf-8", errors="replace")[:4096].splitlines()
    except OSError:
        return ""
    return " ".join(line.partition("=")[2].strip('"') for line in lines if line.startswith(("ID=", "ID_LIKE=")))
