"""The tiles of Dungeon Crawl Stone Soup (CC0) as images with captions, for ``gensdk train ddpm --captions``.

    python benchmarks/sprites.py dcss_tiles32_rgba.npz sprites.npz

Tiles are laid on white. A caption is the words of the tile's path, with short names written out; folders that say
how files are kept, and not what is seen, say nothing.
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np

from gensdk_training.data.caption_set import caption_of_name

WRITTEN_OUT = {
    "mon": "monster",
    "dngn": "dungeon",
    "misc": "",
    "i": "",
    "artefact": "",
    "urand": "artefact",
    "nonliving": "construct",
    "randart": "artefact",
    "n": "north",
    "s": "south",
    "e": "east",
    "w": "west",
    "m": "male",
    "f": "female",
}
KINDS = ("mon", "item", "dngn")
"""Folders whose tiles are whole pictures; others are parts of dolls, icons and marks."""


def caption_of(name: str) -> str:
    """What a tile's path says, as ``mon/animals/green_dragon.png``: "monster animals green dragon"."""
    words = (WRITTEN_OUT.get(word, word) for word in caption_of_name(name).split())
    return " ".join(dict.fromkeys(word for word in words if word))


def prepare(tiles: Path, out: Path) -> int:
    """Writes `out`, an .npz with `images` uint8 [N, 32, 32, 3], `captions` and `labels`, the kinds; N."""
    with np.load(tiles, allow_pickle=False) as data:
        chosen = np.isin(data["category"], KINDS)
        rgba, names, kinds = data["x"][chosen], data["name"][chosen], data["category"][chosen]
    alpha = rgba[..., 3:].astype(np.float64) / 255
    images = np.rint(rgba[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)
    captions = np.array([caption_of(str(name)) for name in names])
    labels = np.array([WRITTEN_OUT.get(str(kind), str(kind)) for kind in kinds])
    out.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(out, images=images, captions=captions, labels=labels, allow_pickle=False)
    return len(images)


@click.command(help=__doc__)
@click.argument("tiles", type=click.Path(path_type=Path, exists=True))
@click.argument("out", type=click.Path(path_type=Path))
def main(tiles: Path, out: Path) -> None:
    """Writes OUT."""
    click.echo(f"{out}: {prepare(tiles, out)} tiles")


if __name__ == "__main__":
    main()
