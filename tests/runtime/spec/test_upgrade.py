"""Manifests of schema 1, as bundles that users have hold them, say the same when they are read today."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from gensdk_runtime.errors import ManifestError
from gensdk_runtime.spec.manifest import SCHEMA_VERSION, Manifest
from gensdk_runtime.spec.upgrade import upgraded

KEPT: dict[str, Any] = json.loads((Path(__file__).parent / "schema_1.json").read_text())
"""Manifests that gensdk 0.1 wrote: the embedded bundles, points, translations, inversions and dreams."""


def holds(new: Any, old: Any) -> bool:
    """True if `new` says what `old` says, and beyond that at most defaults."""
    if isinstance(old, dict):
        return all(holds(new[key], value) for key, value in old.items())
    return bool(new == old)


@pytest.mark.parametrize("name", KEPT)
def test_what_an_old_manifest_says_is_what_is_read(name: str) -> None:
    old = {"source": None, "points": None, **KEPT[name]["model"]}  # the oldest knew neither
    manifest = Manifest.parse(json.dumps(KEPT[name]).encode(), what=name)
    model = json.loads(manifest.model.model_dump_json())
    made = old["image"] or old["points"]
    assert model["output"] == {**made, "kind": "image" if old["image"] else "points"}
    conditions = {each.pop("kind"): each for each in model["conditions"]}
    assert conditions.pop("image", None) == old["source"]
    named = {key: old[key] for key in ("num_classes", "class_names")}
    assert conditions.pop("label", {"num_classes": None, "class_names": None}) == named
    assert not conditions
    rest = [key for key in old if key in model]
    assert len(rest) == len(old) - 5
    assert all(holds(model[key], old[key]) for key in rest)
    again = Manifest.parse(manifest.to_json().encode(), what=name)
    assert (again, again.schema_version) == (manifest, SCHEMA_VERSION)


def test_the_old_manifest_stays_as_it_is() -> None:
    old = copy.deepcopy(KEPT["stargan"])
    new = upgraded(old)
    assert old == KEPT["stargan"]
    assert upgraded(new) == new


def changed(name: str, **model: Any) -> bytes:
    return json.dumps({**KEPT[name], "model": {**KEPT[name]["model"], **model}}).encode()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (changed("digits-vae", image=None), "model.output: Field required"),
        (changed("digits-vae", points={"dimensions": 2}), "model.output: Field required"),
        (changed("digits-vae", image={"kind": "points", "dimensions": 2}), "model.output: Field required"),
        (changed("stargan", source={"kind": "label", "num_classes": 3}), "model.output: Field required"),
        (changed("digits-vae", image=7), "model.output: expected output"),
        (changed("digits-vae", num_classes=None), "num_classes: Field required"),
        (changed("stargan", source=[1]), "expected condition"),
        (changed("digits-vae", output={"kind": "image"}), "model.output"),
        (changed("digits-vae", conditions=[]), "model.output: Field required"),
        (json.dumps({**KEPT["digits-vae"], "model": 3}).encode(), "model: "),
        (json.dumps({**KEPT["digits-vae"], "schema_version": 1.0}).encode(), "schema_version"),
    ],
)
def test_what_schema_1_refused_is_still_refused(text: bytes, reason: str) -> None:
    with pytest.raises(ManifestError) as caught:
        Manifest.parse(text, what="x")
    assert reason in str(caught.value)
