"""What ``gensdk env`` says of packages that share a module, and of extras."""

from __future__ import annotations

import pytest

from gensdk.cli import env


@pytest.mark.parametrize(
    ("installed", "said"),
    [
        ((), "pip install opencv-python"),
        (("opencv-python",), "installed (opencv-python)"),
        (("opencv-python-headless",), "installed (opencv-python-headless, for cameras; it has no windows)"),
        (("opencv-contrib-python",), "installed (opencv-contrib-python)"),
        (
            ("opencv-python", "opencv-python-headless"),
            "overwrite each other: pip uninstall -y opencv-python opencv-python-headless, "
            "then pip install opencv-python",
        ),
    ],
)
def test_any_one_package_of_opencv_will_do(
    installed: tuple[str, ...], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(env, "version", lambda name: "5.0" if name in installed else None)
    assert said in env.opencv_state()


@pytest.mark.parametrize(
    ("extra", "installed", "said"),
    [
        ("gpu", ("onnxruntime",), 'pip uninstall onnxruntime, then pip install "gensdk[gpu]"'),
        ("cpu", ("onnxruntime-gpu",), 'pip uninstall onnxruntime-gpu, then pip install "gensdk[cpu]"'),
        ("gpu", (), 'pip install "gensdk[gpu]" (onnxruntime-gpu missing)'),
        ("gpu", ("onnxruntime", "onnxruntime-gpu"), "installed"),
        ("import", ("onnxruntime",), 'pip install "gensdk[import]" (onnx missing)'),
    ],
)
def test_the_advice_of_an_extra_overwrites_nothing(
    extra: str, installed: tuple[str, ...], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(env, "version", lambda name: "1.0" if name in installed else None)
    assert env.extra_state(extra).startswith(said)
