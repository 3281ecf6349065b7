"""Folders at the top that are splits and no classes: ``train/`` beside ``test/`` or ``val/``."""

from __future__ import annotations

from pathlib import Path

from gensdk_runtime.errors import InputError
from gensdk_runtime.printable import printable
from gensdk_training.data.dataset import LoadOptions

TRAIN_NAMES = ("train", "training", "trn", "train_set", "training_set")
TEST_NAMES = (
    "test",
    "testing",
    "tst",
    "test_set",
    "val",
    "valid",
    "validation",
    "val_set",
    "dev",
    "eval",
    "holdout",
)
"""In the order in which one of them is taken for the test part."""


def split_folder(root: Path, options: LoadOptions) -> tuple[Path, str]:
    """The folder of the split where the data bring their own, and that in words; otherwise `root` and "".

    With ``layout="auto"`` they do where each folder at the top is named as a split and one of them is for
    training; a class may well be called "test". Raises :class:`InputError` where the names allow both.
    """
    if options.layout not in ("auto", "splits", "classes"):
        raise InputError(f"expected layout auto, splits or classes, got {options.layout!r}")
    tops = _folders(root)
    train = [name for name in tops if name.casefold() in TRAIN_NAMES]
    tests = sorted(
        (name for name in tops if name.casefold() in TEST_NAMES), key=lambda n: TEST_NAMES.index(n.casefold())
    )
    if options.layout == "classes" or not (train or (tests and len(tests) == len(tops))):
        if options.layout == "splits":
            raise InputError(f"{root}: no folder train/ in it, as layout='splits' needs")
        return root, ""
    clear = len(train) == 1 and (
        options.layout == "splits" or (bool(tests) and len(train) + len(tests) == len(tops))
    )
    if not clear:
        told = printable(", ".join(tops[:6])) + (", ..." if len(tops) > 6 else "")
        raise InputError(
            f"{root}: are {told} splits of the data, or classes? Say --layout splits or --layout classes"
        )
    return _part(root, train[0], tests, options)


def _part(root: Path, train: str, tests: list[str], options: LoadOptions) -> tuple[Path, str]:
    if tests and options.holdout > 0:
        raise InputError(f"{root} has its own {train}/ and {tests[0]}/; leave holdout at 0")
    if options.split == "train" or not tests:
        if options.split == "test" and options.holdout == 0:
            raise InputError(f"{root} has no folder for the test beside {train}/")
        others = f", beside {', '.join(name + '/' for name in tests)}" if tests else ""
        return root / train, f"train: the folder {train}/{others}" if tests else ""
    unused = f"; {', '.join(name + '/' for name in tests[1:])} not used" if tests[1:] else ""
    return root / tests[0], f"test: the folder {tests[0]}/{unused}"


def _folders(root: Path) -> list[str]:
    try:
        return sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError as failure:
        raise InputError(f"can't read folder {root} ({failure.strerror})") from None
