"""Draws a gallery: a few samples of every bundle in the folders given, one row for each, by family.

    python benchmarks/gallery.py --train runs/gallery --data DATA  # every family, trained first (half an hour)
    python benchmarks/gallery.py runs/translation runs/quality     # these, and the embedded bundles
    python benchmarks/gallery.py runs --docs elsewhere/docs

DATA is a folder with dcss_tiles32/, for families that want colour images.

FOLDERS may be bundles too. Writes DOCS/gallery.md and small PNGs in DOCS/gallery/: mind the licence of what a
translation starts from before you publish its picture. Families come from the registry; one without a bundle is
named as missing. Samples are the first of seed 0, not chosen. A translation model starts from the examples of its
run, where that lies beside the bundle, and from made-up pictures otherwise.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from gallery_recipes import gallery_runs

from gensdk_export.export import ExportOptions, export_run
from gensdk_runtime.bundles.bundle import Bundle
from gensdk_runtime.bundles.embedded import FOLDER as EMBEDDED
from gensdk_runtime.conditions.base import required_examples
from gensdk_runtime.errors import GensdkError
from gensdk_runtime.generator import Generator
from gensdk_runtime.media.image_pixels import fit_size
from gensdk_runtime.media.images import encode_image, image_grid, write_atomically
from gensdk_runtime.spec.pianoroll import PianorollSpec
from gensdk_runtime.spec.provenance import Provenance
from gensdk_training.data.dataset import Images
from gensdk_training.examples import Examples
from gensdk_training.registry import families
from gensdk_training.run import train

SHOWN, TRANSLATED = 16, 4
"""Samples of a picture, and translations."""
COLUMNS = 8
PICTURED = {"points": 2500, "pianoroll": 4, "text": 10, "audio": 8}
"""Kinds that have a picture of their own: how many samples."""
FIRST_BARS = 8
"""Of pieces that end by themselves."""
WIDEST = 560
"""Pixels of a picture; wider ones are shrunk."""
SUFFIX = ".gsdk"


@dataclass(frozen=True)
class Entry:
    """One bundle: what it is, and its picture's file, or why there is none."""

    name: str
    family: str
    provenance: Provenance
    picture: str = ""
    problem: str = ""


def train_all(runs: Path, data: Path | None, only: str | None) -> None:
    """Trains and exports what `runs` does not hold yet."""
    for name, config in gallery_runs(data).items():
        if only is not None and name not in only.split(","):
            continue
        run, bundle = runs / name, runs / f"{name}{SUFFIX}"
        train(config, run, resume=(run / "run.json").exists(), tensorboard=False)
        if not bundle.exists():
            export_run(run, bundle, ExportOptions(fp16=True))


def find_bundles(folders: tuple[Path, ...]) -> list[Path]:
    """All bundles in `folders`, at any depth, without looking into bundles; a bundle stands for itself."""
    found: dict[Path, None] = {}
    for folder in folders:
        if folder.suffix == SUFFIX:
            found[folder.resolve()] = None
            continue
        for path in sorted(folder.rglob(f"*{SUFFIX}")):
            if not any(parent.suffix == SUFFIX for parent in path.relative_to(folder).parents):
                found[path.resolve()] = None
    return list(found)


def draw(path: Path, pictures: Path) -> Entry:
    """Samples one bundle into ``pictures/NAME.png``; what can't be drawn is told in the entry."""
    with Bundle.open(path) as bundle:
        model, provenance = bundle.manifest.model, bundle.manifest.provenance
        name = f"{path.stem}.png"
        try:
            with Generator.load(bundle, backend="onnxruntime") as generator:
                picture = _translations(generator, path) if model.source else _samples(generator)
        except GensdkError as failure:
            return Entry(path.stem, model.family, provenance, problem=str(failure))
    write_atomically(pictures / name, encode_image(_shrunk(picture), ".png", {}))
    return Entry(path.stem, model.family, provenance, f"{pictures.name}/{name}")


def _samples(generator: Generator) -> Images:
    kind = generator.model.output.kind
    if kind in PICTURED:
        return generator.sample(PICTURED[kind], seed=0, settings=_beginnings(generator), progress=False).picture()
    classes = generator.model.num_classes
    labels = [i % classes for i in range(SHOWN)] if classes else None
    return image_grid(generator.sample(SHOWN, seed=0, label=labels, progress=False).images, columns=COLUMNS)


def _beginnings(generator: Generator) -> dict[str, Any]:
    """The options that leave a picture legible: of pieces as long as chorales the first bars."""
    form = generator.model.output
    if not isinstance(form, PianorollSpec) or form.bars <= FIRST_BARS:
        return {}
    return {"max_length": FIRST_BARS * form.steps_per_bar}


def _translations(generator: Generator, path: Path) -> Images:
    """Each source beside its translation, and beside its target where the run kept one."""
    examples = Examples.load(path.with_suffix(""))
    if examples is None:
        made_up = required_examples(generator.model, TRANSLATED)
        examples = Examples(made_up["image"], heard=made_up.get("audio"))
    given = (examples.sources, examples.targets, examples.heard)
    kept = Examples(*(None if each is None else each[:TRANSLATED] for each in given))
    classes = generator.model.num_classes
    labels = [i % classes for i in range(len(kept.sources))] if classes else None
    results = generator.sample(len(kept.sources), seed=0, label=labels, progress=False, **kept.arguments)
    return kept.picture(results.images)


def _shrunk(picture: Images) -> Images:
    height, width = picture.shape[:2]
    if width <= WIDEST:
        return picture
    return fit_size(picture, (max(1, round(height * WIDEST / width)), WIDEST), "stretch")


def lines(entries: list[Entry]) -> Iterator[str]:
    """The page: families in alphabetical order, each with its bundles, or with the word that it has none."""
    yield "# Gallery\n"
    yield "Drawn by `python benchmarks/gallery.py`: the first samples of seed 0 from each bundle, not chosen."
    yield "For a translation: source, result, and target where it is known.\n"
    yield "| family | model | trained | samples |"
    yield "|---|---|---|---|"
    for name, family in families().items():
        own = [entry for entry in entries if entry.family == name]
        title = family.title.replace("|", "\\|")
        for entry in own:
            shown = f"![{entry.name}]({entry.picture})" if entry.picture else f"not drawn: {_cell(entry.problem)}"
            trained = f"{_cell(entry.provenance.data) or 'unknown data'}, {entry.provenance.steps} steps"
            yield f"| **{name}**: {title} | {_cell(entry.name)} | {trained} | {shown} |"
        if not own:
            yield f"| **{name}**: {title} | missing: no bundle of it was given | | |"


def by_hand(page: Path) -> str:
    """What stands below the table, from its first section on: it is kept."""
    text = page.read_text(encoding="utf-8") if page.exists() else ""
    return text[text.index("\n## ") :] if "\n## " in text else ""


def _cell(text: str) -> str:
    """Text from a bundle, which may not break the table or make markup."""
    return "".join(c if c.isprintable() and c not in "|<>[]`" else " " for c in text)[:200]


@click.command(help=__doc__, context_settings={"max_content_width": 110})
@click.argument("folders", nargs=-1, type=click.Path(path_type=Path, exists=True))
@click.option("--train", "runs", type=click.Path(path_type=Path), help="Train what this folder does not hold yet.")
@click.option("--data", type=click.Path(path_type=Path, exists=True), help="For --train: colour images.")
@click.option("--only", help="For --train: names with commas between; no page is written.")
@click.option("--docs", type=click.Path(path_type=Path), default=Path("docs"), show_default=True)
@click.option("--embedded/--no-embedded", default=True, show_default=True, help="The bundles that gensdk ships.")
def main(
    *,
    folders: tuple[Path, ...],
    docs: Path,
    embedded: bool,
    runs: Path | None,
    data: Path | None,
    only: str | None,
) -> None:
    if runs is not None:
        train_all(runs, None if data is None else data.absolute(), only)
        folders = (*folders, runs)
    if only is not None:
        return
    entries: list[Entry] = []
    for path in find_bundles((*folders, *((EMBEDDED,) if embedded else ()))):
        try:
            entries.append(draw(path, docs / "gallery"))
        except GensdkError as failure:
            print(f"left out {path}: {failure}", file=sys.stderr)
    names = [entry.name for entry in entries]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise click.ClickException(
            f"two bundles are called {twice[0]!r}; their pictures have one name: rename one"
        )
    page = docs / "gallery.md"
    write_atomically(page, ("\n".join(lines(entries)) + "\n" + by_hand(page)).encode())
    missing = np.setdiff1d(list(families()), [entry.family for entry in entries])
    print(f"{docs / 'gallery.md'}: {len(entries)} bundles; without one: {', '.join(missing) or 'none'}")


if __name__ == "__main__":
    main()
