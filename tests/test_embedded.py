"""The laws of sampling over the real graphs of the embedded bundles, in every precision that they have."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from gensdk.cli.main import run
from gensdk_runtime.bundles.bundle import Bundle
from gensdk_runtime.bundles.embedded import FOLDER, embedded_names
from gensdk_runtime.errors import InputError
from gensdk_runtime.generator import Generator
from gensdk_runtime.proof.verify import verify_bundle
from support.embedded import IMAGES, KINDS, STEPWISE, precisions_of

SHOWN = {"image": ("grid.png",), "text": ("lines.txt",), "pianoroll": ("tunes.wav", "tunes.png", "tunes")}
"""What samples of a kind are written to: files, and a folder."""
ROUNDING = 2e-4
"""What another batch size may change in [-1, 1]: the backend sums in another order."""


@pytest.fixture(scope="module", params=[(n, p) for n in KINDS for p in precisions_of(n)], ids="-".join)
def generator(request: pytest.FixtureRequest) -> Iterator[Generator]:
    name, precision = request.param
    with Generator.load(name, precision=precision, threads=1) as loaded:
        yield loaded


def same(left: np.ndarray, right: np.ndarray, generator: Generator) -> bool:
    """Equal up to rounding; a pixel on grey levels, a note or a word may flip where a uniform number lies on the
    edge."""
    difference = np.abs(left - right)
    if generator.model.program.kind in STEPWISE:
        return bool((difference > ROUNDING).reshape(len(difference), -1).any(axis=1).mean() <= 0.1)
    return bool(difference.max() <= ROUNDING)


def test_all_are_there_and_small() -> None:
    assert set(IMAGES) == {"digits-dcgan", "digits-ddpm", "digits-pixelcnn", "digits-vae", "sprites"}
    assert {**dict.fromkeys(IMAGES, "image"), "captions": "text", "chorales": "pianoroll"} == KINDS
    sizes = {name: (FOLDER / f"{name}.gsdk").stat().st_size for name in KINDS}
    assert sum(sizes[name] for name in IMAGES if name != "sprites") <= 4_000_000
    assert sizes["sprites"] <= 6_000_000
    assert sizes["captions"] + sizes["chorales"] <= 3_000_000


def test_head_of_a_larger_call(generator: Generator) -> None:
    head = generator.sample(4, seed=0).array
    assert same(head, generator.sample(64, seed=0).array[:4], generator)
    assert same(head, generator.sample(4, seed=0, batch_size=1).array, generator)
    assert same(head, generator.sample(4, seed=[(0, i) for i in range(4)]).array, generator)


def test_eight_threads_give_what_one_gives(generator: Generator) -> None:
    alone = [generator.sample(2, seed=seed).array for seed in range(8)]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda seed: generator.sample(2, seed=seed).array, range(8)))
    np.testing.assert_array_equal(alone, together)


def test_samples_differ_and_fill_the_range(generator: Generator) -> None:
    samples = generator.sample(16, seed=1)
    assert len({each.tobytes() for each in samples.data}) == 16
    low, high = samples.value_range
    assert samples.array.min() < low + 0.2 * (high - low)
    assert samples.array.max() > high - 0.2 * (high - low)


@pytest.mark.parametrize("name", embedded_names())
def test_golden_trajectories_hold_here(name: str) -> None:
    report = verify_bundle(name)
    assert report.ok, report.problems
    assert {check.precision for check in report.checks} == set(precisions_of(name))


def test_captions_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["sample", "captions", "-n", "5", "--seed", "0"]) == 0
    printed = capsys.readouterr().out.splitlines()
    with Generator.load("captions") as model:
        texts = model.sample(5, seed=0).texts
    assert printed == texts
    assert len(set(texts)) == 5
    assert all(3 <= len(text.split()) <= 34 for text in texts)


@pytest.mark.parametrize(
    ("name", "licence"), [("captions", "CC BY 4.0"), ("chorales", "public domain"), ("sprites", "CC0")]
)
def test_cards_and_the_notice_tell_whose_the_data_are(name: str, licence: str) -> None:
    with Bundle.open(name) as bundle:
        card = bundle.read("README.md").decode()
    assert "## Data" in card
    assert licence in card
    notice = (Path(__file__).parents[1] / "NOTICE").read_text()
    assert f"{name}.gsdk" in notice


def large_halved_graphs() -> list[tuple[str, str, int, int]]:
    """Name, graph and the sizes of both files, but for graphs of which nothing may be half and of small ones."""
    found = []
    for name in embedded_names():
        if "fp16" not in precisions_of(name):
            continue
        with Bundle.open(name) as bundle:
            for graph, files in bundle.manifest.graph_files.items():
                full, half = (bundle.manifest.files[files[precision]].size for precision in ("fp32", "fp16"))
                if files["fp16"] != files["fp32"] and full >= 100_000:
                    found.append((name, graph, full, half))
    return found


@pytest.mark.parametrize(("name", "graph", "full", "half"), large_halved_graphs())
def test_fp16_graphs_are_about_half_as_large(name: str, graph: str, full: int, half: int) -> None:
    assert half <= 0.55 * full, f"{name}: {graph}"


@pytest.mark.parametrize("name", embedded_names())
def test_nothing_of_the_training_extra_is_needed(name: str, tmp_path) -> None:
    """Sampling in a fresh process in which PyTorch and its kin can't be imported."""
    program = (
        "import sys\n"
        "for name in ('torch', 'onnx', 'onnxscript', 'sklearn', 'accelerate', 'safetensors', 'scipy'):\n"
        "    sys.modules[name] = None\n"
        "from gensdk.cli.main import run\n"
        f"sys.exit(run(['sample', {name!r}, '-n', '4', '--seed', '0', '-o', sys.argv[1]]))\n"
    )
    files = SHOWN[KINDS[name]]
    assert files
    for file in files:
        out = tmp_path / file
        subprocess.run([sys.executable, "-c", program, str(out)], check=True, capture_output=True)
        assert (out if out.is_file() else out / "00000.mid").stat().st_size > 100


def test_a_prompt_for_a_model_that_takes_none_says_what_to_do() -> None:
    with (
        Generator.load("captions", backend="onnxruntime") as model,
        pytest.raises(InputError, match="is made from no text; leave prompt out"),
    ):
        model.sample(1, prompt="a cat")
