"""Manifests of older schemas as those of today.

Works on plain JSON, whatever it holds: what is not as the older schema has it stays as it is, and is refused when
the manifest is checked.
"""

from __future__ import annotations

from typing import Any


def upgraded(manifest: Any) -> Any:
    """A manifest of any older schema, as of the present one; the given one is not changed."""
    if not isinstance(manifest, dict) or type(manifest.get("schema_version")) is not int:
        return manifest
    if manifest["schema_version"] == 1:
        return {**manifest, "schema_version": 2, "model": _model_of_1(manifest.get("model"))}
    return manifest


def _model_of_1(model: Any) -> Any:
    """Schema 1 had the fields `image` and `points`, one of which was set, `source`, `num_classes` and
    `class_names`. Schema 2 has one `output` and a list of `conditions`, each with its kind."""
    if not isinstance(model, dict) or {"output", "conditions"} & set(model):
        return model
    old = {name: model.get(name) for name in ("image", "points", "source", "num_classes", "class_names")}
    if any(isinstance(fields, dict) and "kind" in fields for fields in old.values()):
        return model
    rest = {name: value for name, value in model.items() if name not in old}
    outputs = [_of_kind(kind, old[kind]) for kind in ("image", "points") if old[kind] is not None]
    classes = {name: old[name] for name in ("num_classes", "class_names") if old[name] is not None}
    conditions = [_of_kind("label", classes)] if classes else []
    if old["source"] is not None:
        conditions.append(_of_kind("image", old["source"]))
    return {**rest, **({"output": outputs[0]} if len(outputs) == 1 else {}), "conditions": conditions}


def _of_kind(kind: str, fields: Any) -> Any:
    return {"kind": kind, **fields} if isinstance(fields, dict) else fields
