"""The command line: help, exit codes, one-line errors, JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from gensdk.cli.main import VERBS, run
from gensdk.cli.train import absolute_source
from gensdk_runtime.generator import Generator

NAME = "digits-ddpm"


def outcome(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = run([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_an_example(verb, capsys) -> None:
    code, out, _ = outcome(capsys, verb, "--help")
    assert code == 0
    assert f"gensdk {verb}" in out
    assert "Example" in out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["smaple"], 2, "did you mean 'sample'"),
        (["sample"], 2, "Missing argument 'BUNDLE'"),
        (["sample", NAME, "--sede", "1"], 2, "--seed"),
        (["sample", NAME, "--solver", "ddmi"], 2, "'ddim'"),
        (["sample", "digits-dpm"], 3, "did you mean 'digits-ddpm'"),
        (["sample", NAME, "--seed", "x"], 5, "expected a seed"),
        (["sample", NAME, "--seed", "-1"], 5, "from 0 to 2^64"),
        (["sample", NAME, "-n", "0"], 5, "n from 1 to"),
        (["sample", NAME, "--label", "eleven"], 5, "no class 'eleven'"),
        (["sample", NAME, "--condition", "label"], 5, "expected KIND=VALUE"),
        (["sample", NAME, "--condition", "label=3", "--label", "4"], 5, "label is given twice"),
        (["sample", NAME, "--condition", "labl=3"], 5, "did you mean 'label'"),
        (["sample", "digits-pixelcnn", "--prefix", "none.png"], 5, "can't read none.png"),
        (["sample", "digits-pixelcnn", "--prefix", "none.png", "--prefix-length", "8"], 5, "from 1 to 7"),
        (["sample", "digits-pixelcnn", "--prefix-length", "4"], 5, "expected --prefix FILE"),
        (
            ["sample", "digits-pixelcnn", "--prefix", ""],
            5,
            "expected --prefix as a str or a Path, got an empty one",
        ),
        (["sample", "captions", "--prefix", ""], 5, "expected --prefix as a str or a Path, got an empty one"),
        (["sample", "captions", "--prefix", "/"], 5, "can't read /: "),
        (["sample", "captions", "--prompts", ""], 5, "expected --prompts as a str or a Path, got an empty one"),
        (
            ["sample", "captions", "--columns", "3"],
            5,
            "layout, columns and scale are for images, and these are texts",
        ),
        (
            ["sample", "captions", "--set", "nope=2"],
            5,
            "no option 'nope'; known: max_length, temperature, top_k, top_p",
        ),
        (["sample", "captions", "--set", "n=2"], 5, "no option 'n'; known: max_length, temperature, top_k, top_p"),
        (
            ["interpolate", NAME, "--seeds", "1,2", "--set", "n=2"],
            5,
            "no option 'n'; known: cache_interval",
        ),
        (["interpolate", NAME, "--seeds", "1,2", "--set", "nope=2"], 5, "no option 'nope'; known: cache_interval"),
        (["sample", "digits-vae", "--set", "nope=2"], 5, "no option 'nope'; none is known"),
        (
            ["dream", "x.png", "--bundle", NAME, "--set", "nope=2"],
            5,
            "no option 'nope'; known: beta1",
        ),
        (["sample", NAME, "-o", "grid.gif"], 5, "can't write .gif"),
        (["sample", NAME, "--backend", "onnxruntim"], 5, "did you mean 'onnxruntime'"),
        (["sample", NAME, "--backend", "onnxruntime:cuda"], 4, "CUDAExecutionProvider"),
        (["sample", "digits-vae", "--eta", "0.5"], 5, "eta means nothing"),
        (["sample", NAME, "-o", "/dev/null/x.png"], 5, "is a file, not a folder"),
        (["verify", NAME, "--atol", "-1"], 5, "atol as a number above 0"),
        (["train", "dppm", "--data", "digits", "--out", "x"], 5, "did you mean 'ddpm'"),
        (["train", "vae", "--data", "digitz", "--out", "x"], 5, "did you mean 'digits'"),
        (["train", "vae", "--data", "digits", "--out", "x", "--set", "latemt=4"], 5, "did you mean 'latent'"),
        (["train", "vae", "--data", "digits", "--out", "x", "--set", "latent"], 5, "KEY=VALUE"),
        (["train", "vae", "--out", "x"], 5, "--data is missing"),
        (["train", "pix2pix", "--data", "digits", "--out", "x"], 5, "--inputs"),
        (["train", "pix2pix", "--data", "digits", "--inputs", "digitz", "--out", "x"], 5, "no data 'digitz'"),
        (["train", "vae", "--data", "digits", "--out", "x", "--augment", "flop"], 5, "augment"),
        (["train", "stargan", "--data", "a=digits,b=digitz", "--out", "x"], 5, "did you mean 'digits'"),
        (["export", "no-such-run", "-o", "x.gsdk"], 5, "no-such-run"),
    ],
)
def test_errors_are_one_line_with_their_exit_code(arguments, code, message, capsys, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    got, out, err = outcome(capsys, *arguments)
    assert (got, out) == (code, "")
    assert message in err
    assert "Traceback" not in err
    assert code == 2 or len(err.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_debug_shows_the_traceback(capsys) -> None:
    code, _, err = outcome(capsys, "sample", "no-such-bundle", "--debug")
    assert code == 3
    assert "Traceback" in err


def test_sample_writes_and_tells_as_json(capsys, tmp_path) -> None:
    target = tmp_path / "grid.png"
    arguments = ("--seed", "0:17", "-n", 1, "--label", 7, "--json", "-o", target, "--steps", 2)
    code, out, _ = outcome(capsys, "sample", NAME, *arguments)
    told = json.loads(out)
    assert code == 0
    assert target.exists()
    assert told["settings"]["seeds"] == [[0, 17]]
    assert told["settings"]["labels"] == [7]
    assert told["settings"]["num_inference_steps"] == 2


@pytest.mark.parametrize("verb", ["list", "env", "inspect", "verify"])
def test_json_is_all_there_is_on_stdout(verb, capsys) -> None:
    code, out, _ = outcome(capsys, verb, *([NAME] if verb in ("inspect", "verify") else []), "--json")
    assert code == 0
    assert json.loads(out)
    code, out, _ = outcome(capsys, verb, *([NAME] if verb in ("inspect", "verify") else []))
    assert code == 0
    assert out


def test_a_missing_extra_names_its_pip_command() -> None:
    program = (
        "import sys\nsys.modules['torch'] = None\nfrom gensdk.cli.main import run\n"
        "sys.exit(run(['train', 'vae', '--data', 'digits', '--out', 'x']))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 4
    assert 'pip install "gensdk[training]"' in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_missing_backend_names_its_pip_command(tmp_path) -> None:
    program = (
        "import sys\nsys.modules['onnxruntime'] = sys.modules['openvino'] = None\n"
        "from gensdk.cli.main import run\n"
        f"sys.exit(run(['sample', {NAME!r}, '-o', sys.argv[1]]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "x.png")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 4
    assert 'pip install "gensdk[cpu]"' in done.stderr


@pytest.mark.parametrize(
    ("option", "value", "n"), [("--seed", "3,0:17", 2), ("--label", "1,2,3", 3), ("--condition", "label=1,2", 2)]
)
def test_a_list_of_seeds_or_labels_says_how_many_samples(option, value, n, capsys, tmp_path) -> None:
    code, out, _ = outcome(
        capsys, "sample", "digits-dcgan", option, value, "-o", tmp_path / "samples.npz", "--json"
    )
    assert code == 0
    assert json.loads(out)["settings"]["n"] == n


@pytest.mark.parametrize(
    ("file", "options", "rows", "n"),
    [("four.npz", [], 4, 4), ("four.npz", ["--prefix-length", "7"], 7, 4), ("four/00001.png", ["-n", "2"], 4, 2)],
)
def test_samples_go_on_from_files(file, options, rows, n, capsys, tmp_path) -> None:
    begin = ["sample", "digits-pixelcnn", "--backend", "onnxruntime"]
    for target in ("four.npz", "four"):
        assert outcome(capsys, *begin, "-n", "4", "--seed", "1", "-o", tmp_path / target)[0] == 0
    given, after = ["--prefix", tmp_path / file, *options], ["--seed", "1", "-o", tmp_path / "after.npz"]
    assert outcome(capsys, *begin, *given, *after)[0] == 0
    four, made = (np.load(tmp_path / name)["images"] for name in ("four.npz", "after.npz"))
    assert made.shape == (n, 8, 8, 1)
    if file == "four.npz":
        np.testing.assert_array_equal(made, four)
    np.testing.assert_array_equal(made[1, :rows], four[1, :rows])
    np.testing.assert_array_equal(made[0, :rows], four[0 if n == 4 else 1, :rows])


@pytest.mark.parametrize(
    ("image", "mask", "options", "drawn", "strength"),
    [
        ("four.npz", None, ["--strength", "0.3"], 4, 0.3),
        ("four.npz", "mask.png", ["--strength", "1"], 4, 1.0),
        ("four/00001.png", "mask.png", ["-n", "2", "--label", "3"], 2, 0.8),
        ("four/00001.png", "four", [], 4, 0.8),
        ("four/00001.png", None, [], 16, 0.8),
    ],
)
def test_sample_starts_from_the_images_of_files(image, mask, options, drawn, strength, capsys, tmp_path) -> None:
    for target in ("four.npz", "four"):
        assert outcome(capsys, "sample", "digits-ddpm", "-n", "4", "--seed", "0", "-o", tmp_path / target)[0] == 0
    painted = np.zeros((8, 8), np.uint8)
    painted[4:] = 255
    Image.fromarray(painted).save(tmp_path / "mask.png")
    given = ["--image", tmp_path / image, *([] if mask is None else ["--mask-image", tmp_path / mask])]
    made = ["--seed", "1", "-o", tmp_path / "after.npz", "--json"]
    code, out, err = outcome(capsys, "sample", "digits-ddpm", *given, *options, *made)
    assert code == 0
    assert ("between 0 and 255" in err) == (mask == "four"), "digits are no mask of black and white"
    after, four = np.load(tmp_path / "after.npz")["images"], np.load(tmp_path / "four.npz")["images"]
    assert len(after) == drawn
    assert json.loads(out)["settings"]["strength"] == strength
    if mask == "mask.png":
        np.testing.assert_array_equal(after[:, :4], four[:, :4] if image == "four.npz" else four[[1] * drawn, :4])


def test_an_image_that_does_not_fit_is_refused(capsys, tmp_path) -> None:
    Image.new("L", (9, 8)).save(tmp_path / "wide.png")
    Image.new("L", (8, 8)).save(tmp_path / "fits.png")
    wide, fits = tmp_path / "wide.png", tmp_path / "fits.png"
    for bundle, arguments, said in (
        ("digits-ddpm", ["--image", wide], "expected 8x8 pixels, got 9x8; resize it"),
        ("digits-ddpm", ["--image", fits, "--mask-image", wide], "expected 8x8 pixels, got 9x8; resize it"),
        ("digits-ddpm", ["--mask-image", fits], "mask_image needs an image"),
        ("digits-ddpm", ["--strength", "0.5"], "pass image too, or leave strength out"),
        ("digits-ddpm", ["--image", tmp_path / "none.png"], "none.png"),
        ("digits-dcgan", ["--image", fits], "takes no image; leave image out"),
        ("captions", ["--image", fits], "takes no image; leave image out"),
    ):
        code, out, err = outcome(capsys, "sample", bundle, *arguments, "-o", tmp_path / "x.png")
        assert (code, out) == (5, "")
        assert said in err
        assert len(err.splitlines()) == 1


def test_a_prefix_that_does_not_fit_is_refused(capsys, tmp_path) -> None:
    assert outcome(capsys, "sample", "digits-dcgan", "-n", "1", "-o", tmp_path / "one.png", "--scale", "2")[0] == 0
    code, _, err = outcome(capsys, "sample", "digits-pixelcnn", "--prefix", tmp_path / "one.png")
    assert code == 5
    assert err.strip().endswith("expected 8x8 pixels, got 16x16; resize it")
    assert outcome(capsys, "sample", "digits-dcgan", "-n", "1", "-o", tmp_path / "one.png", "--scale", "1")[0] == 0
    code, _, err = outcome(capsys, "sample", "digits-dcgan", "--prefix", tmp_path / "one.png")
    assert code == 5
    assert "makes its samples as a whole; leave prefix out" in err


@pytest.mark.parametrize("arguments", [["list"], ["inspect", "digits-vae"], ["inspect", "digits-vae", "--json"]])
def test_a_reader_that_leaves_early_is_no_failure(arguments) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "gensdk", *arguments], stdout=writer, stderr=subprocess.PIPE, check=False
        )
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_resumed_run_keeps_its_settings_and_heeds_those_written(capsys, tmp_path) -> None:
    pytest.importorskip("gensdk_training")
    run_dir = tmp_path / "a run"
    small = ["train", "vae", "--out", run_dir, "--preview-every", "0", "--no-tensorboard", "--no-progress"]
    begin = ["--data", "digits", "--seed", "3", "--steps", "4", "--batch-size", "4", "--log-every", "7"]
    code, out, _ = outcome(capsys, *small, *begin, "--max-seconds", "0")
    assert code == 0
    assert f"gensdk train vae --out '{run_dir}' --resume" in out
    assert outcome(capsys, *small, *begin, "--max-seconds", "nan")[0] == 5
    for option, value in (("--seed", "4"), ("--precision", "bf16"), ("--size", "16")):
        code, _, err = outcome(capsys, *small, "--resume", option, value)
        assert (code, option[2:] in err) == (6, True), err
    code, out, _ = outcome(capsys, *small, "--resume", "--checkpoint-every", "2")
    assert (code, "step 4" in out) == (0, True)
    config = json.loads((run_dir / "run.json").read_text())
    assert (config["seed"], config["log_every"], config["checkpoint_every"]) == (3, 7, 2)


def test_a_data_path_is_kept_whole_for_resuming_elsewhere(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "faces").mkdir()
    (tmp_path / "digits").mkdir()
    (tmp_path / "x.npz").touch()
    assert absolute_source("faces") == str(tmp_path / "faces")
    assert absolute_source("mnist:faces") == f"mnist:{tmp_path / 'faces'}"
    assert absolute_source("x.npz:images") == f"{tmp_path / 'x.npz'}:images"
    assert absolute_source("digits") == "digits"  # the data set of that name, not the folder
    assert absolute_source("nowhere") == "nowhere"


def test_bench_takes_a_class_by_name(capsys) -> None:
    short = ("--duration", 0.01, "--iterations", 2, "--warmup", 0, "--num-inference-steps", 1)
    code, out, _ = outcome(capsys, "bench", NAME, "--label", "7", "--json", *short)
    assert code == 0
    assert json.loads(out)["settings"]["options"]["label"] == 7
    code, _, err = outcome(capsys, "bench", NAME, "--label", "eleven", *short)
    assert code == 5
    assert "no class 'eleven'" in err


def test_verify_takes_a_bound_of_the_callers_own(capsys) -> None:
    assert outcome(capsys, "verify", "digits-dcgan", "--precision", "fp32", "--atol", "1e-3")[0] == 0
    code, _, err = outcome(capsys, "verify", "digits-dcgan", "--precision", "fp16", "--atol", "1e-9")
    assert code == 1
    assert "allowed 1.00e-09" in err


def test_a_translation_is_trained_exported_and_used(tmp_path, capsys) -> None:
    pytest.importorskip("gensdk_training")
    pairs = tmp_path / "pairs.npz"
    images = np.random.default_rng(0).integers(0, 256, (12, 16, 16, 3), dtype=np.uint8)
    np.savez(pairs, color=images, outline=images[..., 0])
    run_dir, bundle = tmp_path / "run", tmp_path / "made.gsdk"
    data = ["--data", f"{pairs}:color", "--inputs", f"{pairs}:outline", "--augment", "flip,shift"]
    small = ["--steps", "2", "--batch-size", "4", "--set", "channels=4", "--set", "patch_layers=1"]
    quiet = ["--no-tensorboard", "--no-progress"]
    code, _, err = outcome(capsys, "train", "pix2pix", *data, *small, *quiet, "--out", run_dir)
    assert code == 0, err
    written = json.loads((run_dir / "run.json").read_text())["data"]
    assert written["augment"] == ["flip", "shift"]
    code, _, err = outcome(capsys, "train", "pix2pix", "--out", run_dir, "--resume", *quiet)
    assert code == 0, err
    code, _, err = outcome(capsys, "export", run_dir, "-o", bundle, "--uint8")
    assert code == 0, err
    code, out, _ = outcome(capsys, "verify", bundle, "--backend", "onnxruntime", "--json")
    assert code == 0
    assert json.loads(out)["ok"]
    code, _, err = outcome(capsys, "bench", bundle, "--iterations", "3", "--duration", "0", "--warmup", "0")
    assert code == 0, err
    with Generator.load(bundle, backend="onnxruntime") as loaded:
        assert loaded.translate(images[0, :9, :13, :1]).shape == (9, 13, 3)
