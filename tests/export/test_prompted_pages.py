"""Pages of models that are told texts: the same pictures as Python, texts that stay texts, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gensdk_export.export import ExportOptions, export_plan
from gensdk_export.page.page import _check, write_page
from gensdk_runtime.bundles.bundle import Bundle
from gensdk_runtime.bundles.writer import write_bundle
from gensdk_runtime.errors import GensdkWarning, InputError
from gensdk_runtime.generator import Generator
from gensdk_runtime.spec.model import ModelSpec
from gensdk_runtime.spec.provenance import Provenance
from support.browser import Browser, served
from support.captioned import WORDS
from support.captioned import plan as captioned_plan
from support.latent_plan import latent_plan
from support.pages import sample, status
from support.translation_graphs import translation_model

CAPTIONS = ("red dragon", "Green RING", "", "blue wall a ring of dragons, red")
TOLD = {"clip_sample": False, "num_inference_steps": 4, "solver": "ddpm"}


@pytest.fixture(scope="module")
def captioned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that is told texts and labels."""
    out = tmp_path_factory.mktemp("captioned") / "captioned.gsdk"
    return export_plan(captioned_plan(classes=3), Provenance(), out, ExportOptions(golden_steps=2)).bundle


@pytest.mark.filterwarnings("ignore::gensdk_runtime.errors.GensdkWarning")
@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_the_browser_draws_what_python_draws_of_texts(
    tab: Browser, captioned: Path, tmp_path: Path, runtime_files: Path, scale: float
) -> None:
    settings = {**TOLD, "guidance_scale": scale}
    write_page(captioned, tmp_path / "page", settings=settings, onnxruntime_web_folder=runtime_files)
    with (
        served(tmp_path / "page") as url,
        Generator.load(captioned, backend="onnxruntime", threads=1) as generator,
    ):
        tab.open(url)
        assert "samples of seed 0" in status(tab)
        fields = "return ['prompt', 'negative_prompt'].map((name) => [document.getElementById(name).value, "
        fields += "document.getElementById(`${name}-field`).hidden])"
        assert tab.run(fields) == [["red green blue dragon", False], ["", scale == 1.0]]
        assert tab.run("return document.getElementById('notes').hidden") is True
        for asked in (
            {"prompt": list(CAPTIONS), "label": [0, 1, 2, 0]},
            {"prompt": "red dragon", "label": 1},
            {"label": 2},
            *([{"prompt": "ring", "negative_prompt": list(CAPTIONS)}] if scale != 1.0 else []),
        ):
            expected = generator.sample(4, seed=5, progress=False, **asked, **settings).array
            drawn, _ = sample(tab, seed=5, count=4, **asked)
            low, high = generator.model.output.value_range
            assert np.abs(np.clip(drawn, low, high) - np.clip(expected, low, high)).max() < (high - low) / 255
            np.testing.assert_allclose(drawn, expected, atol=1e-3 * np.abs(expected).max())
        wrong = [({"prompt": ["ring"]}, "one prompt for each of the 4"), ({"image": "x"}, "takes no image")]
        wrong += [({"negative_prompt": "ring"}, "without guidance")] if scale == 1.0 else []
        for asked, reason in wrong:
            with pytest.raises(AssertionError, match=f"RangeError.*{reason}"):
                sample(tab, count=4, **asked)


def test_a_prompt_becomes_no_markup_and_what_is_unknown_or_cut_is_said(
    tab: Browser, captioned: Path, tmp_path: Path, runtime_files: Path
) -> None:
    settings = {**TOLD, "guidance_scale": 2.0}
    write_page(captioned, tmp_path / "page", settings=settings, onnxruntime_web_folder=runtime_files)
    typed = "<img src=x onerror=alert(1)> red"
    with served(tmp_path / "page") as url:
        tab.open(url)
        status(tab)
        enter = """
          document.getElementById('status').textContent = '';
          document.getElementById('prompt').value = given[0];
          document.getElementById('prompt').dispatchEvent(
            new KeyboardEvent('keydown', { key: 'Enter', bubbles: true, cancelable: true }));"""
        tab.run(enter, typed)
        assert "samples of seed 0" in status(tab)
        notes, images = tab.run(
            "return [document.getElementById('notes').textContent, document.querySelectorAll('img').length]"
        )
    with (
        Generator.load(captioned, backend="onnxruntime", threads=1) as generator,
        pytest.warns(GensdkWarning) as told,
    ):
        generator.sample(1, prompt=typed, progress=False, **settings)
    assert notes.splitlines() == [str(each.message) for each in told]
    assert "reads the first 4" in notes
    assert "'<', 'img'" in notes
    assert images == 0


def test_what_a_page_can_not_give_is_refused_by_name(captioned: Path, tmp_path: Path, runtime_files: Path) -> None:
    with Bundle.open(captioned) as bundle:
        manifest, files = bundle.manifest, {name: bundle.read(name) for name in bundle.manifest.files}
    names = {word: number for number, word in enumerate(WORDS)}
    tokenizer = {"model": {"type": "WordLevel", "vocab": names, "unk_token": "<unknown>"}}
    special = {"pad": 0, "begin": 1, "end": 2, "unknown": 3}
    listed = {"kind": "tokenizers", "special": special, "tokenizer": tokenizer}
    files["captions.json"] = json.dumps(listed).encode()
    write_bundle(tmp_path / "clip.gsdk", manifest.model_copy(update={"files": {}}), files).close()
    with pytest.raises(InputError, match=r"by words or by characters, got .* kind 'tokenizers'") as refused:
        write_page(tmp_path / "clip.gsdk", tmp_path / "page", onnxruntime_web_folder=runtime_files)
    assert len(str(refused.value).splitlines()) == 1
    assert not (tmp_path / "page").exists()


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: translation_model(1), "takes 'source', which a page can't give"),
        (lambda: latent_plan().model, "samples latents, whose decoder no page runs"),
    ],
    ids=["images from images", "latents"],
)
def test_models_that_no_page_draws_are_refused_by_name(make: Callable[[], ModelSpec], reason: str) -> None:
    model = make()
    with pytest.raises(InputError, match=f"{model.name}.*{reason}"):
        _check(model)
