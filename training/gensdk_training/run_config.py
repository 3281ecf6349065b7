"""The settings of a run: family, its settings, data, seed, precision, intervals. Saved as ``RUN/run.json``."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from gensdk_runtime.errors import InputError
from gensdk_runtime.host.own_files import read_own
from gensdk_runtime.media.image_pixels import Fit
from gensdk_runtime.spec.strict import StrictModel
from gensdk_training.data import Dataset, load_data
from gensdk_training.data.augment import Augmentation
from gensdk_training.data.dataset import Layout, Split
from gensdk_training.data.text_options import TextOptions
from gensdk_training.family import DataInfo, FamilyConfig
from gensdk_training.registry import AnyFamily, get_family

MAX_BYTES = 4 * 2**20
"""Of ``run.json``."""

Side = Annotated[int, Field(ge=1, le=16384)]


class DataConfig(StrictModel):
    """Which data, and how it is brought into shape; see :func:`gensdk_training.data.load_data`.

    `augment`: "flip" and "shift", the same for both images of a pair. `only`: the classes to keep, by name or
    number; none: all. `value_range`: (black, white) of arrays; None: found by their values.
    `depth`: bits that image files of 16 use; None: as they say. `sample_rate` (Hz) and `seconds`: of sounds; None:
    as most files, and as the longest. `text`: how texts become tokens. `bars`, `steps_per_beat`, `transpose`,
    `whole`: of music. `captions`: where texts beside images are. `unheard`: of sounds that images are made from,
    such as a speaker, for the test alone. `sounds`: where the sound around images is.
    """

    source: Annotated[str, Field(min_length=1, max_length=4096)]
    labels: str = "auto"
    size: tuple[Side, Side] | None = None
    channels: Literal[1, 3, 4] | None = None
    fit: Fit = "crop"
    holdout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    inputs: Annotated[str, Field(min_length=1, max_length=4096)] | None = None
    input_channels: Literal[1, 3, 4] | None = None
    paired: bool = True
    augment: tuple[Augmentation, ...] = ()
    only: tuple[Annotated[str, Field(min_length=1, max_length=200)], ...] = ()
    value_range: tuple[float, float] | None = None
    input_value_range: tuple[float, float] | None = None
    layout: Layout = "auto"
    depth: Annotated[int, Field(ge=8, le=16)] | None = None
    sample_rate: int | None = None
    seconds: float | None = None
    text: TextOptions | None = None
    bars: Annotated[int, Field(ge=1, le=256)] | None = None
    steps_per_beat: Annotated[int, Field(ge=1, le=96)] | None = None
    transpose: Annotated[int, Field(ge=0, le=11)] | None = None
    whole: bool = False
    captions: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    unheard: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    sounds: Annotated[str, Field(min_length=1, max_length=200)] | None = None

    def load(self, *, split: Split = "train", data_dir: Path | str | None = None) -> Dataset:
        """Opens the data. Raises :class:`InputError` where it can't be trained on."""
        return load_data(
            self.source,
            split=split,
            labels=self.labels,
            size=self.size,
            channels=self.channels,
            fit=self.fit,
            holdout=self.holdout,
            data_dir=data_dir,
            inputs=self.inputs,
            input_channels=self.input_channels,
            paired=self.paired,
            only=self.only,
            value_range=self.value_range,
            input_value_range=self.input_value_range,
            layout=self.layout,
            depth=self.depth,
            sample_rate=self.sample_rate,
            seconds=self.seconds,
            text=self.text,
            bars=self.bars,
            steps_per_beat=self.steps_per_beat,
            transpose=self.transpose,
            whole=self.whole,
            captions=self.captions,
            unheard=self.unheard,
            sounds=self.sounds,
        )


class RunConfig(StrictModel):
    """One training run.

    `config` holds the family's own settings (steps, batch size, learning rates, ...), the defaults filled in by
    :meth:`resolved`. `precision`: "fp16" and "bf16" are mixed precision, with float32 weights. Intervals count
    steps; `preview_every` 0 draws no previews.
    """

    family: str
    data: DataConfig
    config: dict[str, Any] = Field(default_factory=dict)
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    precision: Literal["fp32", "fp16", "bf16"] = "fp32"
    log_every: Annotated[int, Field(ge=1)] = 50
    checkpoint_every: Annotated[int, Field(ge=1)] = 500
    keep_checkpoints: Annotated[int, Field(ge=1)] = 2
    preview_every: Annotated[int, Field(ge=0)] = 500
    preview_count: Annotated[int, Field(ge=1, le=1024)] = 64

    def family_config(self) -> FamilyConfig:
        """The family's settings, checked. Raises :class:`InputError` for an unknown family or key."""
        known, what = get_family(self.family).Config, f"settings of {self.family!r}"
        hint = f"gensdk list {self.family} shows them all"
        if unknown := sorted(self.config.keys() - known.model_fields.keys()):
            near = difflib.get_close_matches(unknown[0], known.model_fields, n=1)
            names = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sorted(known.model_fields))};"
            raise InputError(f"{what}: unknown key {unknown[0][:80]!r}; {names} {hint}")
        try:
            return known.from_dict(self.config, what=what)
        except InputError as failure:
            raise InputError(f"{failure}; {hint}") from None

    def resolved(self) -> RunConfig:
        """The same run with the defaults of every setting written out, so that it outlives other defaults."""
        return self.model_copy(update={"config": self.family_config().model_dump(mode="json")})

    def build_family(self, data: DataInfo) -> AnyFamily:
        """The family for this config and data. Raises :class:`InputError` where they don't go together."""
        return get_family(self.family)(self.family_config(), data)


def identity(config: RunConfig, data: DataInfo, fingerprint: str, processes: int) -> dict[str, Any]:
    """All that decides the numbers of a run, flat by dotted key; a checkpoint continues only with the same.

    Where the data lies, what it is called and how often something is written are not part of it. Neither are the
    steps of a run whose schedules don't depend on them: it may be continued beyond its end.
    """
    whole = config.model_dump(mode="json")
    for key in ("log_every", "checkpoint_every", "keep_checkpoints", "preview_every", "preview_count"):
        del whole[key]
    del whole["data"]["source"]
    if whole["data"]["inputs"] is None:  # as in older runs, which knew none
        whole["data"] = {name: whole["data"][name] for name in ("labels", "size", "channels", "fit", "holdout")}
    else:
        del whole["data"]["inputs"]
    if config.data.augment:
        whole["data"]["augment"] = list(config.data.augment)
    newer = (
        *("only", "value_range", "input_value_range", "layout", "depth", "sample_rate", "seconds", "text"),
        *("bars", "steps_per_beat", "transpose", "whole", "captions", "unheard", "sounds"),
    )
    for key in newer:  # unknown to older runs, too
        whole["data"].pop(key, None)
        if getattr(config.data, key) != DataConfig.model_fields[key].default:
            whole["data"][key] = config.data.model_dump(mode="json")[key]
    if not _depends_on_steps(config, data):
        whole["config"].pop("steps", None)
    info = data.model_dump(mode="json", exclude={"name"})
    whole |= {"data_info": info, "data_fingerprint": fingerprint, "processes": processes}
    return _flat(whole)


def _depends_on_steps(config: RunConfig, data: DataInfo) -> bool:
    try:
        return config.build_family(data).depends_on_steps
    except InputError:  # a run on other data: what differs is told by the keys
        return config.family_config().lr_schedule != "constant"


def with_new_settings(was: dict[str, Any], settings: FamilyConfig) -> dict[str, Any]:
    """An identity of an older version: the settings that it did not know count as in `settings`, those of its
    run as they are read today."""
    known = _flat({"config": settings.model_dump(mode="json", exclude={"steps"})})
    return {**known, **was}


def with_data_of(was: dict[str, Any], dataset: Dataset) -> dict[str, Any]:
    """An identity of an older version: its name for the data is no part of it any more, and its fingerprint counts
    as today's, where an older version gave it to the same data."""
    told = {key: value for key, value in was.items() if key != "data_info.name"}
    if told.get("data_fingerprint") in dataset.earlier:
        told["data_fingerprint"] = dataset.fingerprint
    return told


def first_difference(was: dict[str, Any], now: dict[str, Any]) -> str | None:
    """Names the first key in which two identities differ: ``'config.batch_size' was 64, is 32``."""
    for key in sorted(was.keys() | now.keys(), key=lambda key: (key != "family", key)):
        if was.get(key) != now.get(key) and key == "data_fingerprint":
            return "the data have changed: files, images or labels are not those that it was begun with"
        if was.get(key) != now.get(key):
            return f"{key!r} was {_short(was.get(key))}, is {_short(now.get(key))}"
    return None


def read_run_config(run_dir: Path) -> RunConfig:
    """``run.json`` of a run. Raises :class:`InputError` where there is none."""
    path = run_dir / "run.json"
    try:
        text = read_own(path, limit=MAX_BYTES)
    except OSError as failure:
        raise InputError(f"no run in {run_dir}: {path.name} can't be read ({failure.strerror})") from None
    return RunConfig.from_json(text, what=str(path))


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {prefix: value}
    parts = (_flat(item, f"{prefix}.{key}" if prefix else str(key)) for key, item in value.items())
    return {key: item for part in parts for key, item in part.items()}


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
