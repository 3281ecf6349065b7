"""Versions of gensdk to compare: checkouts, or commits of this one laid out elsewhere, each for its processes."""

from __future__ import annotations

import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

import click
from peers.child import BENCHMARKS, Child, child_environment

from gensdk_runtime.host.atomic import put_in_place, sibling
from gensdk_runtime.host.child_process import run_program, start_python
from gensdk_runtime.host.scratch import scratch_folder

ROOTS = (".", "runtime", "training", "export")
"""Where the packages of a checkout lie."""
RUN_SECONDS = 900.0
GIT_SECONDS = 120.0

TRANSLATOR = ["pix2pix", "--data", "digits", "--inputs", "digits", "--channels", "3", "--input-channels", "3"]
TRANSLATOR += ["--size", "256", "--steps", "1", "--batch-size", "1", "--set", "channels=8", "--set", "depth=4"]
TRANSLATOR += ["--set", "patch_layers=1", "--preview-every", "0", "--no-tensorboard", "--no-progress"]


@dataclass(frozen=True)
class Version:
    """One checkout. `root` holds the caches of its processes."""

    name: str
    folder: Path
    root: Path

    @property
    def paths(self) -> list[Path]:
        """What its processes import from first."""
        return [self.folder / root for root in ROOTS]

    @property
    def environment(self) -> dict[str, str]:
        """Both write bytecode, if they are told to or not: they start as an installer leaves them."""
        return {**child_environment(self.root), "PYTHONDONTWRITEBYTECODE": "", "GENSDK_TUNE": "off"}

    def start(self) -> Child:
        """A process that serves it."""
        return Child(
            self.name, ["-m", "peers.tree"], {}, root=self.root, paths=self.paths, environment=self.environment
        )

    def run(self, module: str, *arguments: str) -> str:
        """The output of one of its modules, run as a program. Raises ClickException where it fails."""
        started = start_python(
            ["-m", module, *arguments],
            stderr=subprocess.PIPE,
            paths=[*self.paths, BENCHMARKS],
            environment=self.environment,
            text=True,
        )
        with started as process:
            try:
                output, errors = process.communicate(timeout=RUN_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                raise click.ClickException(f"{self.name}: {module} took over {RUN_SECONDS:.0f} s") from None
        if process.returncode:
            raise click.ClickException(f"{self.name}: {module} {arguments[0]}: {errors.strip()[-600:]}")
        return str(output)


def locate(against: str, root: Path) -> Path:
    """The folder of another checkout: `against` itself, or the commit of that name, laid out under `root`.

    Raises ClickException where it is neither.
    """
    folder = Path(against).absolute()
    if folder.is_dir():
        if not (folder / "gensdk" / "__init__.py").is_file():
            raise click.ClickException(f"expected a checkout of gensdk, but {folder} has no gensdk/__init__.py")
        return folder
    commit = _git("rev-parse", "--verify", "--quiet", f"{against}^{{commit}}").strip()
    if not commit:
        raise click.ClickException(f"{against!r} is neither a folder nor a commit of {BENCHMARKS.parent}")
    found = root / "commits" / commit
    if not found.is_dir():
        found.parent.mkdir(parents=True, exist_ok=True)
        with sibling(found, folder=True) as new, scratch_folder() as scratch:
            archive = scratch / "commit.tar"
            _git("archive", "--format=tar", f"--output={archive}", commit)
            with tarfile.open(archive) as tar:
                tar.extractall(new, filter="data")
            put_in_place(new, found)
    return found


def _git(*arguments: str) -> str:
    """What git prints about the checkout that this file lies in; empty where it fails."""
    done = run_program("git", "-C", str(BENCHMARKS.parent), *arguments, timeout=GIT_SECONDS)
    return "" if done is None or done.code else done.output


def make_translator(version: Version, folder: Path) -> Path:
    """A small U-Net, trained for one step by `version`, as a bundle that takes and gives images of any size."""
    run, out = folder / "run", folder / "translator.gsdk"
    version.run("gensdk", "train", *TRANSLATOR, "--out", str(run))
    version.run("gensdk", "export", str(run), "-o", str(out))
    return out
