"""The lowest versions that pyproject.toml allows: what they are, and whether a model can be made with them.

    python .ci/lowest.py pins     # for pip install -r; needs no package
    python .ci/lowest.py check    # with these installed: trains, exports, verifies, samples and translates

torch is the one of constraints.txt: of older ones there may be no build for this machine's processor.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
EXTRAS = ("cpu", "training")
ANY = "torch"
_REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+)\s*>=\s*([0-9.]+)$")

VERBS = (
    "train dcgan --data digits --out {0}/gan --steps 6 --batch-size 16 --set spectral_norm=true --preview-every 3",
    "train dcgan --data digits --out {0}/gan --steps 8 --batch-size 16 --set spectral_norm=true --resume",
    "export {0}/gan -o {0}/gan.gsdk --fp16",
    "verify {0}/gan.gsdk",
    "sample {0}/gan.gsdk -n 4 --seed 0 -o {0}/grid.png",
    "train pix2pix --data digits --inputs digits --out {0}/pairs --steps 2 --set channels=8 --set patch_layers=1",
    "export {0}/pairs -o {0}/pairs.gsdk",
    "translate {0}/pairs.gsdk --source {0}/grid.png --sink {0}/translated.png",
    "sample digits-ddpm -n 2 --num-inference-steps 2 -o {0}/ddpm.png",
)


def lowest() -> dict[str, str]:
    """The lowest version of each package that is asked for, by name. ValueError for a requirement without one."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [one for extra in EXTRAS for one in project["optional-dependencies"][extra]]
    found: dict[str, str] = {}
    for requirement in [*project["dependencies"], *extras]:
        match = _REQUIREMENT.match(requirement.split(";")[0].strip())
        if match is None:
            raise ValueError(f"expected NAME>=VERSION, got {requirement!r}")
        found[match[1]] = match[2]
    return found


def pins() -> list[str]:
    """Requirements that let pip take these versions and no newer ones; 4.9 is met by 4.9.0.80."""
    lines = [f"{name}>={version},<{version}.1" for name, version in lowest().items() if name != ANY]
    known = (ROOT / "constraints.txt").read_text(encoding="utf-8").split()
    return [*lines, *(line for line in known if line.startswith(f"{ANY}=="))]


def check() -> None:
    """Runs the verbs one after another, in an empty folder. Raises CalledProcessError where one fails."""
    from importlib.metadata import version

    for name, wanted in lowest().items():
        if name != ANY and not version(name).startswith(wanted):
            raise SystemExit(f"expected {name} {wanted}, found {version(name)}; install the pins first")
    with tempfile.TemporaryDirectory() as folder:
        for verb in VERBS:
            words = [word.format(folder) for word in verb.split()]
            subprocess.run([sys.executable, "-m", "gensdk", *words], cwd=folder, check=True)
    print("the lowest versions work:", ", ".join(f"{name} {version(name)}" for name in lowest()))


if __name__ == "__main__":
    command = sys.argv[1] if len(sys.argv) == 2 else ""
    if command == "pins":
        print("\n".join(pins()))
    elif command == "check":
        check()
    else:
        raise SystemExit(__doc__)
