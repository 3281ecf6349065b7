"""Weights that a weight norm or a spectral norm computes, folded into plain ones: by their names in a state dict.

Salimans & Kingma (2016), "Weight Normalization", eq. 2: w = g v / |v|. Miyato et al. (2018), "Spectral
Normalization", eq. 8: w = W / (u^T W v), with the u and v that were saved, as in eval mode.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from gensdk_export.importers.import_report import Guess
from gensdk_runtime.errors import InputError

_NEW = re.compile(r"(.*?)parametrizations\.([^.]+)\.(original0|original1|original|0\._u|0\._v)")
_OLD = {"original0": "_g", "original1": "_v", "original": "_orig", "0._u": "_u", "0._v": "_v"}
"""Parts of parametrizations by the names that hooks gave them."""


def fold_norms(path: Path, tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], tuple[Guess, ...]]:
    """`tensors` with plain weights in place of what computes them, and a row that counts them.

    Raises :class:`InputError` where their shapes don't fit.
    """
    named = dict(_hooked(tensors))
    counts = {"weight norm": 0, "spectral norm": 0}
    for name in list(named):
        for ending, kind in (("_g", "weight norm"), ("_orig", "spectral norm")):
            stem = name.removesuffix(ending)
            beside = f"{stem}_v" if ending == "_g" else f"{stem}_u"
            if stem == name or beside not in named:
                continue
            try:
                folded = _weight(named, stem) if ending == "_g" else _spectral(named, stem)
            except (RuntimeError, IndexError) as failure:
                what = f"{name[:80]!r}: {' '.join(str(failure).split())[:120]}"
                raise InputError(f"{path}: a {kind} whose shapes don't fit, {what}") from None
            for part in ("_g", "_orig", "_u", "_v"):
                named.pop(stem + part, None)
            named[stem] = folded
            counts[kind] += 1
    told = tuple(
        Guess(kind, f"folded into {count} weights", "it gives the same in eval mode")
        for kind, count in counts.items()
        if count
    )
    return named, told


def _hooked(tensors: Mapping[str, Tensor]) -> list[tuple[str, Tensor]]:
    """Parts of parametrizations under the names of hooks."""
    pairs = []
    for name, tensor in tensors.items():
        match = _NEW.fullmatch(name)
        pairs.append((name if match is None else f"{match[1]}{match[2]}{_OLD[match[3]]}", tensor))
    return pairs


def _weight(named: Mapping[str, Tensor], stem: str) -> Tensor:
    gain, direction = named[f"{stem}_g"].float(), named[f"{stem}_v"].float()
    if gain.dim() and gain.dim() != direction.dim():
        raise RuntimeError(f"g of {list(gain.shape)} and v of {list(direction.shape)}")
    axes = [axis for axis in range(direction.dim()) if not gain.dim() or gain.shape[axis] == 1]
    norm = torch.linalg.vector_norm(direction, dim=axes, keepdim=True) if axes else direction.abs()
    return direction * (gain / norm)


def _spectral(named: Mapping[str, Tensor], stem: str) -> Tensor:
    weight, u = named[f"{stem}_orig"].float(), named[f"{stem}_u"].float()
    v = named.get(f"{stem}_v")
    fitting = [axis for axis in (0, 1) if axis < weight.dim() and weight.shape[axis] == u.numel()]
    if not fitting:
        raise RuntimeError(f"u of {list(u.shape)} and a weight of {list(weight.shape)}")
    # Transposed convolutions have their outputs second. Where both axes fit, u and v belong to the one that they
    # were iterated for: there they give the largest singular value, and elsewhere hardly anything.
    sigmas = [_sigma(weight.transpose(0, axis).flatten(1), u, v) for axis in fitting]
    return weight / max(sigmas, key=lambda sigma: float(sigma.abs()))


def _sigma(matrix: Tensor, u: Tensor, v: Tensor | None) -> Tensor:
    if v is None:  # PyTorch 0.3 saved u alone
        v = torch.nn.functional.normalize(matrix.T @ u, dim=0)
    return torch.dot(u, matrix @ v.float())
