"""The description of a data set as it was understood: shown before training, and kept as ``RUN/data.json``."""

from __future__ import annotations

import re
from collections import Counter
from typing import Literal

import numpy as np
from pydantic import Field

from gensdk_runtime.media.image_pixels import Fit
from gensdk_runtime.printable import printable
from gensdk_runtime.spec.strict import StrictModel
from gensdk_training.data.dataset import Dataset

FILE = "data.json"
LISTED = 12
"""Classes, sizes, reasons and suffixes that the block lists; the JSON has more."""
KEPT = 1000
_NUMBER = re.compile("[0-9]{1,15}")


class InputsDescription(StrictModel):
    """The images that a translation starts from; `form`: what one is, in words, where they are others."""

    count: int
    height: int
    width: int
    channels: int
    values: str
    form: str = ""


class DataDescription(StrictModel):
    """A data set as it is trained on.

    `kind`: what its samples are called, in the plural. `count` images of `height` x `width` x `channels`, or
    points of `channels` dimensions. `classes`: images of each, by name, empty without labels. `sizes`: images as
    they were found, by "WIDTHxHEIGHT"; `fit`: how they were brought to one size. `form`: what one is, in words.
    `skipped` files that can't be used, by `reasons`, the first ones as `skipped_files`. `left_out`: files that
    are no images by their suffix. `links` that were followed, `outside` of them out of the folder. All other
    fields are texts, empty if there is nothing to report.
    """

    schema_version: Literal[1] = 1
    name: str
    kind: str
    count: int
    height: int
    width: int
    channels: int
    values: str = ""
    classes: dict[str, int] = Field(default_factory=dict)
    sizes: dict[str, int] = Field(default_factory=dict)
    fit: str = ""
    split: str = ""
    pairs: str = ""
    inputs: InputsDescription | None = None
    skipped: int = 0
    reasons: dict[str, int] = Field(default_factory=dict)
    skipped_files: tuple[str, ...] = ()
    left_out: dict[str, int] = Field(default_factory=dict)
    links: int = 0
    outside: int = 0
    notes: tuple[str, ...] = ()
    fingerprint: str = ""
    form: str = ""

    def lines(self) -> list[str]:
        """The block: a headline, and a line for each remark."""
        kind, form = self.kind, self.form
        headline = form if form.startswith(kind) else f"{kind} of {form}"
        rows = [
            ("values", self.values),
            ("sizes", self._sizes()),
            ("classes", self._classes()),
            ("split", self.split),
            ("inputs", self._inputs()),
            ("pairs", self.pairs),
            ("skipped", f"{self.skipped} files: {listed(merged(self.reasons))}" if self.skipped else ""),
            ("left out", f"{sum(self.left_out.values())} files: {listed(self.left_out)}" if self.left_out else ""),
            ("links", f"{self.links} followed, {self.outside} of them out of the folder" if self.links else ""),
            *(("note", note) for note in self.notes),
        ]
        return [f"data: {self.name}, {self.count} {headline}"] + [
            f"  {title:<9} {printable(text)}" for title, text in rows if text
        ]

    def _sizes(self) -> str:
        wanted = f"{self.width}x{self.height}"
        if not self.sizes or list(self.sizes) == [wanted]:
            return ""
        found = f"{len(self.sizes)} sizes" if len(self.sizes) > 1 else "found"
        return f"{found} (width x height): {listed(self.sizes)}; all brought to {wanted} ({self.fit})"

    def _classes(self) -> str:
        if not self.classes:
            return "none"
        if len(self.classes) <= LISTED:
            return f"{len(self.classes)}: {listed(self.classes)}"
        counts = self.classes.values()
        return f"{len(self.classes)}, of {min(counts)} to {max(counts)} {self.kind} each: {listed(self.classes)}"

    def _inputs(self) -> str:
        if self.inputs is None:
            return ""
        i = self.inputs
        return f"{i.count} {i.form or f'images of {i.height}x{i.width}x{i.channels}'}; {i.values}"


def describe(dataset: Dataset, *, fit: Fit = "crop") -> DataDescription:
    """The description of `dataset`: counts come from the data, the rest from what loading found."""
    info, found = dataset.info, dataset.findings
    names, labels = info.class_names or (), dataset.labels
    counts = np.bincount(labels, minlength=len(names)).tolist() if labels is not None else []
    inputs = None
    if dataset.sources is not None:
        own = dataset.sources.info
        inputs = InputsDescription(
            count=own.count,
            height=own.height,
            width=own.width,
            channels=own.channels,
            values=dataset.sources.findings.values,
            form="" if own.on_a_grid else f"{own.kind} of {own.of_shape}",
        )
    sizes = Counter(f"{width}x{height}" for height, width in dataset.sizes or ())
    others = () if dataset.sources is None else _of_inputs(dataset.sources)
    return DataDescription(
        name=info.name,
        kind=info.kind,
        count=len(dataset),
        height=info.height,
        width=info.width,
        channels=info.channels,
        form=found.extent or info.of_shape,
        values=found.values,
        classes=dict(zip(names, counts, strict=True)) if labels is not None else {},
        sizes=dict(sizes.most_common(KEPT)),
        fit=fit,
        split=found.split,
        pairs=found.pairs,
        inputs=inputs,
        skipped=dataset.skipped.count,
        reasons=dict(dataset.skipped.reasons.most_common(KEPT)),
        skipped_files=tuple(dataset.skipped.named),
        left_out={printable(suffix) or "without suffix": n for suffix, n in found.left_out.most_common(KEPT)},
        links=found.links,
        outside=found.outside,
        notes=(*map(printable, found.notes), *others),
        fingerprint=dataset.fingerprint,
    )


def listed(counts: dict[str, int]) -> str:
    """``a (3), b (2)``, up to a dozen."""
    told = ", ".join(f"{name} ({count})" for name, count in list(counts.items())[:LISTED])
    return told + (f", and {len(counts) - LISTED} more" if len(counts) > LISTED else "")


def merged(reasons: dict[str, int]) -> dict[str, int]:
    """`reasons` with those as one that differ in numbers alone, which become "6 to 26"; most frequent first."""
    alike: dict[str, list[str]] = {}
    for reason in reasons:
        alike.setdefault(_NUMBER.sub("0", reason), []).append(reason)
    counts = Counter({_spanning(each): sum(reasons[reason] for reason in each) for each in alike.values()})
    return dict(counts.most_common())


def _spanning(reasons: list[str]) -> str:
    """The one text of `reasons` that differ in numbers alone."""
    numbers = zip(*(map(int, _NUMBER.findall(reason)) for reason in reasons), strict=True)
    spans = iter([(min(found), max(found)) for found in numbers])

    def told(match: re.Match[str]) -> str:
        low, high = next(spans)
        return match[0] if low == high else f"{low} to {high}"

    return _NUMBER.sub(told, reasons[0])


def _of_inputs(sources: Dataset) -> tuple[str, ...]:
    """What loading the inputs found."""
    found, told = sources.findings, []
    if found.left_out:
        told.append(
            f"left out: {sum(found.left_out.values())} files: {listed(dict(found.left_out.most_common()))}"
        )
    if found.links:
        told.append(f"links: {found.links} followed, {found.outside} of them out of the folder")
    return tuple(f"inputs: {printable(text)}" for text in (*told, *found.notes))
