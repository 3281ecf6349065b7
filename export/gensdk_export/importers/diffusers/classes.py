"""What classes a UNet2DModel takes, by its configuration and by what the user says of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gensdk_runtime.errors import ExportError, InputError
from gensdk_runtime.spec.conditions import LabelSpec


def read_label(config: Mapping[str, Any], classes: int | None, *, null_class: bool) -> LabelSpec | None:
    """The label condition; None for a model without classes.

    A table of embeddings (`num_class_embeds`) has a row for each class; a class as a time (`class_embed_type`
    "timestep") may be any number, so there `classes` says how many. With `null_class` the last one means none.
    Raises :class:`ExportError` for classes that are no numbers, and :class:`InputError` for options that fit none.
    """
    kind, rows = config.get("class_embed_type"), config.get("num_class_embeds")
    if kind is None and rows is None:
        if classes is not None or null_class:
            raise InputError("this UNet2DModel has no classes; leave --classes and --null-class out")
        return None
    if kind == "timestep":
        rows = _of_times(config, classes)
    elif kind is not None:
        raise ExportError(
            f"expected class_embed_type none or timestep, got {str(kind)[:40]!r}: its classes are no numbers"
        )
    elif type(rows) is not int or rows < 1:
        raise ExportError(f"expected num_class_embeds as a whole number from 1, got {str(rows)[:40]!r}")
    if classes not in (None, rows):
        raise InputError(f"expected --classes {rows}, as the model has, got {classes}; leave it out")
    if null_class and rows < 2:
        raise InputError("--null-class needs a class beside the one that means none; leave it out")
    data = {"num_classes": rows - null_class, "null_class": null_class}
    return LabelSpec.from_dict(data, what="unet/config.json", error=ExportError)


def _of_times(config: Mapping[str, Any], classes: int | None) -> int:
    """How many classes, which are embedded as time steps are; num_class_embeds is not read for them."""
    if classes is None:
        raise InputError(
            "this UNet2DModel takes a class as it takes a time step (class_embed_type timestep), and does not say "
            "how many there are; give --classes N"
        )
    rows = config.get("num_train_timesteps")
    if config.get("time_embedding_type") == "learned" and type(rows) is int and classes > rows:
        raise InputError(
            f"expected --classes of 1 to {rows}, as the model's table of time steps has, got {classes}"
        )
    return classes
