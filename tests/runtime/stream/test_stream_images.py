"""Image files as sources of streams: animations frame by frame, folders file by file, nothing left out unsaid."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gensdk_runtime.generator import Generator
from gensdk_runtime.media.gif import encode_gif
from gensdk_runtime.media.image_files import decode
from gensdk_runtime.media.images import encode_image
from gensdk_runtime.stream import StreamOptions, TranslatedFrame, translate_stream
from support.image_bytes import exif, tiff
from support.inverting_bundle import write_inverting_bundle
from support.streams import grey_frame

DURATIONS = [40, 100, 1000, 0, 250]


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with Generator.load(write_inverting_bundle(tmp_path_factory.mktemp("b") / "negative.gsdk")) as model:
        yield model


def animation(form: str, **options: object) -> bytes:
    file = io.BytesIO()
    parts = [Image.fromarray(grey_frame(40 * k)) for k in range(5)]
    lossless = {"lossless": True} if form == "WEBP" else {}
    parts[0].save(file, form, save_all=True, append_images=parts[1:], duration=DURATIONS, **lossless, **options)
    return file.getvalue()


def translated(generator: Generator, source: Path) -> tuple[Any, list[TranslatedFrame], list[str]]:
    found: list[TranslatedFrame] = []
    told: list[str] = []
    report = translate_stream(generator, source, found.append, StreamOptions(on_event=told.append))
    return report, found, told


@pytest.mark.parametrize(
    ("form", "name"), [("WEBP", "a.webp"), ("PNG", "a.png"), ("PNG", "a.apng"), ("GIF", "a.gif")]
)
def test_every_frame_of_an_animation_is_translated(
    generator: Generator, form: str, name: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(animation(form))
    report, found, told = translated(generator, tmp_path / name)
    assert (report.frames, report.corrupt, told) == (5, 0, [])
    lengths = [Fraction(each if each > 10 else 100, 1000) for each in DURATIONS]
    for k, frame in enumerate(found):
        assert np.array_equal(frame.source, grey_frame(40 * k))
        assert np.array_equal(frame.result, 255 - grey_frame(40 * k))
        assert frame.presentation is not None
        assert frame.presentation.time == sum(lengths[:k])
        assert frame.presentation.duration == lengths[k]


def test_an_animation_that_is_cut_says_what_is_missing(generator: Generator, tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (5, 16, 24, 3)).astype(np.uint8)
    data = encode_gif(frames, fps=10)
    (tmp_path / "cut.gif").write_bytes(data[: data.rindex(b"\x21\xf9") + 900])
    report, found, told = translated(generator, tmp_path / "cut.gif")
    assert len(found) + report.corrupt + report.missing == 5
    assert len(found) == 4
    assert any("ended after 4 of 5 frames" in event for event in told)


def test_a_folder_takes_a_picture_of_each_file_and_says_where_there_are_more(
    generator: Generator, tmp_path: Path
) -> None:
    (tmp_path / "a.webp").write_bytes(animation("WEBP"))
    (tmp_path / "b.TIF").write_bytes(tiff(grey_frame(7), pages=2))
    (tmp_path / "c.jfif").write_bytes(encode_image(grey_frame(90), ".jpg", {}))
    (tmp_path / "d.gif").write_bytes(encode_gif(grey_frame(50)[None], fps=10))
    (tmp_path / "e.png").write_bytes(b"no picture")
    report, found, told = translated(generator, tmp_path)
    assert [int(frame.source[0, 0, 0]) for frame in found] == [0, 7, 90, 50]
    assert report.corrupt == 1
    assert [event.split(": ", 1)[0].rsplit("/", 1)[-1] for event in told] == ["a.webp", "b.TIF", "e.png"]
    assert sum("the first picture of several" in event for event in told) == 2


def test_an_animation_of_an_upright_phone(generator: Generator, tmp_path: Path) -> None:
    (tmp_path / "a.webp").write_bytes(animation("WEBP", exif=b"Exif\0\0" + exif(6)))
    _, found, _ = translated(generator, tmp_path / "a.webp")
    assert [frame.source.shape for frame in found] == [(24, 16, 3)] * 5
    still = decode((tmp_path / "a.webp").read_bytes(), 3)
    assert np.array_equal(found[0].source, still)
