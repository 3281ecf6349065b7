"""``gensdk translate``: images, folders and videos; errors in one line; Ctrl-C leaves a video that plays."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gensdk.cli.main import run
from gensdk_runtime.bundles.writer import write_bundle
from gensdk_runtime.media.image_files import decode
from gensdk_runtime.media.images import encode_image
from gensdk_runtime.spec.manifest import Manifest
from support.inverting_bundle import write_inverting_bundle
from support.streams import grey_frame, write_frames
from support.translation_graphs import GLOBAL, GRAPH, translation_model, translation_onnx
from support.videos import level_picture, times_of, write_video


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_inverting_bundle(tmp_path_factory.mktemp("bundle") / "negative.gsdk")


def outcome(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = run(["translate", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def frame_count(path: Path) -> int:
    return len(times_of(path))


def write_film(path: Path, count: int) -> Path:
    return write_video(
        path, (grey_frame(i % 256) for i in range(count)), codec="mjpeg", pixels="yuvj420p", unit=Fraction(1, 30)
    )


def test_one_image(bundle: Path, tmp_path: Path, capsys: Any) -> None:
    image = np.random.default_rng(0).integers(0, 256, (19, 31, 3), dtype=np.uint8)
    (tmp_path / "in.png").write_bytes(encode_image(image, ".png", {}))
    code, out, _ = outcome(capsys, bundle, "--source", tmp_path / "in.png", "--sink", tmp_path / "out.png")
    assert code == 0
    assert out.startswith("1 frame through negative")
    written = decode((tmp_path / "out.png").read_bytes(), 3)
    np.testing.assert_array_equal(written, 255 - image)


def test_a_folder_as_json(bundle: Path, tmp_path: Path, capsys: Any) -> None:
    folder = write_frames(tmp_path / "in", 4)
    code, out, err = outcome(
        capsys,
        bundle,
        "--source",
        folder,
        "--sink",
        tmp_path / "out",
        "--size",
        "12x8",
        "--side-by-side",
        "--json",
    )
    assert (code, err) == (0, "")
    report = json.loads(out)
    assert (report["model"], report["frames"], report["ended"], report["live"]) == ("negative", 4, "source", False)
    images = [decode(path.read_bytes(), 3) for path in sorted((tmp_path / "out").iterdir())]
    assert [image.shape for image in images] == [(8, 24, 3)] * 4


def test_a_video_and_its_limits(bundle: Path, tmp_path: Path, capsys: Any) -> None:
    source = write_film(tmp_path / "in.avi", 20)
    code, out, _ = outcome(
        capsys, bundle, "--source", source, "--sink", tmp_path / "out.mp4", "--skip-similar", 0.5
    )
    assert code == 0
    assert "20 frames" in out
    assert frame_count(tmp_path / "out.mp4") == 20
    code, out, _ = outcome(
        capsys, bundle, "--source", source, "--sink", tmp_path / "out.mp4", "--max-frames", 6, "--json"
    )
    assert json.loads(out)["ended"] == "limit"
    assert frame_count(tmp_path / "out.mp4") == 6


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--sink", "x.png"], 2, "--source"),
        (["--source", "0"], 2, "--sink, such as"),
        (["--source", "nothing.mp4", "--sink", "x.mp4"], 5, "no source"),
        (["--source", ".", "--sink", "x.txt"], 5, "can't write .txt"),
        (["--source", ".", "--sink", "x.mp4", "--size", "big"], 5, "WIDTHxHEIGHT"),
        (["--source", ".", "--sink", "x.mp4", "--mix", "3"], 5, "mix"),
        (
            ["--source", "rtsp://user:secret@127.0.0.1:9/x", "--sink", "x.mp4"],
            5,
            "can't open rtsp://***@127.0.0.1:9/x",
        ),
    ],
)
def test_errors_are_one_line(
    bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Any,
    arguments: Any,
    code: int,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    got, _, err = outcome(capsys, bundle, *arguments)
    assert got == code
    assert message in err
    assert "secret" not in err
    assert code == 2 or len(err.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_each_verb_points_to_the_other(bundle: Path, tmp_path: Path, capsys: Any) -> None:
    code, _, err = outcome(
        capsys, "digits-dcgan", "--source", tmp_path, "--sink", tmp_path / "x", "--backend", "fake"
    )
    assert code == 5
    assert "gensdk sample" in err
    assert run(["sample", str(bundle), "-o", str(tmp_path / "x.png")]) == 5
    assert "gensdk translate" in capsys.readouterr().err


def heed_ctrl_c() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize(
    ("number", "live", "code"),
    [("SIGINT", False, 130), ("SIGINT", True, 0), ("SIGTERM", True, 0), ("SIGHUP", False, 130)],
)
def test_a_signal_leaves_a_video_that_plays(
    bundle: Path, tmp_path: Path, number: str, live: bool, code: int
) -> None:
    source, target = write_film(tmp_path / "in.avi", 12000), tmp_path / "out.mp4"
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "gensdk.cli.main", "translate", str(bundle), "--source", str(source)),
            *("--sink", str(target), "--live" if live else "--no-live", "--threads", "1", "--page", "0"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_ctrl_c,  # noqa: PLW1509 - a shell may have started all of this with SIGINT ignored
    )
    assert process.stderr is not None
    while "frames/s" not in process.stderr.readline():  # a second of it has been written
        assert process.poll() is None
    process.send_signal(getattr(signal, number))
    out, err = process.communicate(timeout=60)
    assert (process.returncode, "Traceback" in err) == (code, False), err
    frames = int(out.split()[0])
    assert frames > 5
    written = frame_count(target)
    assert written == frames if not live else abs(written - frames) <= 10 + frames // 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.avi", "out.mp4"]


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_a_kill_leaves_no_half_film_and_what_stood_there(bundle: Path, tmp_path: Path) -> None:
    source, target = write_film(tmp_path / "in.avi", 12000), tmp_path / "out.mp4"
    target.write_bytes(b"an older film")
    command = [sys.executable, "-m", "gensdk.cli.main", "translate", str(bundle), "--source", str(source)]
    process = subprocess.Popen(
        [*command, "--sink", str(target), "--threads", "1"], stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    while "frames/s" not in process.stderr.readline():
        assert process.poll() is None
    process.kill()
    process.communicate(timeout=60)
    assert target.read_bytes() == b"an older film"


def test_a_video_that_is_cut_ends_with_an_error_code_and_what_there_is(
    bundle: Path, tmp_path: Path, capsys: Any
) -> None:
    source = write_film(tmp_path / "in.avi", 40)
    content = source.read_bytes()
    source.write_bytes(content[: len(content) // 2])
    code, out, err = outcome(capsys, bundle, "--source", source, "--sink", tmp_path / "out.mp4", "--json")
    report = json.loads(out)
    assert (code, report["ended"]) == (5, "cut")
    assert report["frames"] + report["corrupt"] + report["missing"] == 40
    assert frame_count(tmp_path / "out.mp4") == report["frames"]
    assert any("ended after" in remark for remark in report["remarks"])
    assert "ended after" in err


def test_what_was_left_out_is_said_and_in_the_report(bundle: Path, tmp_path: Path, capsys: Any) -> None:
    source = write_video(tmp_path / "in.mp4", [level_picture(90)] * 5, sound="aac", sound_seconds=0.2)
    code, out, err = outcome(capsys, bundle, "--source", source, "--sink", tmp_path / "out.gif", "--json")
    assert code == 0
    assert any("sound (aac) is left out" in remark for remark in json.loads(out)["remarks"])
    assert "sound (aac) is left out" in err


SECRETS = ("k@9w0rdy", "k/9zz", "k?9zz", "k#9zz", "s3cret9", "s&c;ret", "a:b@c/d")
PLACES = (
    "rtsp://admin:{}@127.0.0.1:9/1",
    "http://127.0.0.1:9/x.mp4?user=admin&password={}",
    "http://127.0.0.1:9/x?token={}",
    "http://127.0.0.1:9/user=admin&password={}&channel=1",
    "rtmp://127.0.0.1:9/live/{}",
    "rtsp:/admin:{}@127.0.0.1/1",
    "admin:{}@127.0.0.1/1",
    "127.0.0.1/x?pwd={}",
    "ftp://admin:{}@127.0.0.1/1",
)


@pytest.mark.parametrize(
    ("place", "option"),
    [(place, "--source") for place in PLACES] + [(place, "--sink") for place in PLACES if ":/" in place],
)
def test_no_password_is_ever_printed(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any, place: str, option: str
) -> None:
    """Nor a part of one, by us or by the library that connects, which refuses each of these addresses at once."""
    monkeypatch.chdir(tmp_path)
    write_frames(tmp_path / "in", 1)
    for secret in SECRETS:
        given = {"--source": "in", "--sink": "x.mp4", option: place.format(secret)}
        code = run(["translate", str(bundle), *(word for pair in given.items() for word in pair), "--json"])
        printed = "".join(capfd.readouterr()).replace(str(tmp_path), "")
        assert code == 5
        for part in (secret, *(part for part in re.split(r"[^a-z0-9]", secret) if len(part) > 2)):
            assert part not in printed, (place, secret)


def write_image(path: Path, image: Any, **how: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, **how)
    return path


def read_image(path: Path) -> Any:
    with Image.open(path) as opened:
        return np.asarray(opened)


def test_a_folder_of_photos_keeps_its_names(bundle: Path, tmp_path: Path, capsys: Any) -> None:
    """Names, folders, kinds of files and transparency come out as they went in; what is left out is named."""
    photos, generator = tmp_path / "photos", np.random.default_rng(0)

    def drawn(channels: int = 3) -> Any:
        return generator.integers(0, 256, (9, 12, channels), dtype=np.uint8)

    images = {name: drawn() for name in ("b.png", "a.tif", "trip/sea.png", "trip/day 2/hill.bmp", "ß.png")}
    for name, image in images.items():
        write_image(photos / name, image)
    clear = drawn(4)
    write_image(photos / "clear.png", clear)
    flat = np.repeat(np.repeat(generator.integers(0, 256, (3, 4, 1), dtype=np.uint8), 3, 0), 3, 1)[..., 0]
    write_image(photos / "moving.gif", flat)
    (photos / "bare").write_bytes((photos / "b.png").read_bytes())
    Image.fromarray(np.linspace(0, 65535, 108).reshape(9, 12).astype(np.uint16)).save(photos / "deep.png")
    for name in ("notes.txt", "more.txt", "film.mp4", ".hidden.png", "trip/Thumbs.db"):
        (photos / name).write_bytes(b"nothing")
    code, _, err = outcome(capsys, bundle, "--source", photos, "--sink", tmp_path / "out")
    assert code == 0, err
    assert "left out 2 .txt, 1 .mp4, 1 .db" in err
    out = tmp_path / "out"
    written = {path.relative_to(out).as_posix() for path in out.rglob("*.png")}
    assert written == {
        *("b.png", "a.png", "trip/sea.png", "trip/day 2/hill.png", "ß.png"),
        *("clear.png", "moving.png", "bare.png", "deep.png"),
    }
    for name, image in images.items():
        np.testing.assert_array_equal(read_image((out / name).with_suffix(".png")), 255 - image)
    np.testing.assert_array_equal(read_image(out / "clear.png")[..., :3], 255 - clear[..., :3])
    np.testing.assert_array_equal(read_image(out / "clear.png")[..., 3], clear[..., 3])
    assert read_image(out / "deep.png")[0, 0, 0] == 255
    assert read_image(out / "deep.png")[-1, -1, 0] == 0


def test_two_files_of_one_name_keep_their_suffixes(bundle: Path, tmp_path: Path, capsys: Any) -> None:
    photos = tmp_path / "photos"
    names = ("a.bmp", "a.png", "a.bmp.png", "A.tif")
    images = {name: np.full((4, 4, 3), i, np.uint8) for i, name in enumerate(names)}
    for name, image in images.items():
        write_image(photos / name, image)
    code, _, err = outcome(capsys, bundle, "--source", photos, "--sink", tmp_path / "out")
    assert code == 0
    assert "3 files differ from another one in their suffix alone" in err
    levels = {path.name: 255 - read_image(path)[0, 0, 0] for path in (tmp_path / "out").iterdir()}
    assert levels == {"a.bmp.2.png": 0, "a.png.png": 1, "a.bmp.png": 2, "A.tif.png": 3}


def test_transparency_is_scaled_with_the_colours(tmp_path: Path, capsys: Any) -> None:
    bundle = write_inverting_bundle(tmp_path / "twice.gsdk", scale=2)
    image = np.random.default_rng(0).integers(0, 256, (5, 6, 4), dtype=np.uint8)
    image[..., 3] = 77
    write_image(tmp_path / "in.png", image)
    assert outcome(capsys, bundle, "--source", tmp_path / "in.png", "--sink", tmp_path / "out.png")[0] == 0
    result = read_image(tmp_path / "out.png")
    assert result.shape == (10, 12, 4)
    assert (result[..., 3] == 77).all()
    np.testing.assert_array_equal(result[::2, ::2, :3], 255 - image[..., :3])
    code, _, err = outcome(capsys, bundle, "--source", tmp_path / "in.png", "--sink", tmp_path / "out.jpg")
    assert code == 0
    assert "laid over white" in err
    assert read_image(tmp_path / "out.jpg").shape == (10, 12, 3)


def test_a_model_of_grey_images_says_that_it_drops_colours(tmp_path: Path, capsys: Any) -> None:
    bundle = write_inverting_bundle(tmp_path / "grey.gsdk", channels=1)
    write_image(tmp_path / "colour.png", np.random.default_rng(0).integers(0, 256, (5, 6, 3), dtype=np.uint8))
    write_image(tmp_path / "grey.png", np.arange(30, dtype=np.uint8).reshape(5, 6))
    for name, told in (("colour", True), ("grey", False)):
        source, sink = tmp_path / f"{name}.png", tmp_path / f"{name}-out.png"
        code, _, err = outcome(capsys, bundle, "--source", source, "--sink", sink)
        assert code == 0
        assert ("colours are dropped" in err) is told


def test_what_changes_a_result_is_a_line_on_stderr(tmp_path: Path, capsys: Any) -> None:
    """A graph of one size that looks at all of an image gets photos resized; once said, not for each."""
    model = translation_model(1, size=64)
    manifest = Manifest(model=model, graph_files={GRAPH: {"fp32": "graphs/g.onnx"}})
    graph = translation_onnx(model, GLOBAL["instance_norm"][0])
    write_bundle(tmp_path / "fixed.gsdk", manifest, {"graphs/g.onnx": graph}).close()
    for i in range(3):
        write_image(tmp_path / "photos" / f"{i}.png", np.full((70, 90, 3), 40 * i, np.uint8))
    code, _, err = outcome(
        capsys, tmp_path / "fixed.gsdk", "--source", tmp_path / "photos", "--sink", tmp_path / "out"
    )
    assert code == 0
    assert err.count("warning: ") == 1
    assert "70 x 90 was resized to 50 x 64" in err
    assert read_image(tmp_path / "out" / "0.png").shape == (70, 90, 3)
