"""Folds batch norm into the layer before it, in float32, before anything is exported.

A folded graph is smaller and faster, and in half precision it is up to four times closer.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import fusion, parametrize, remove_spectral_norm, remove_weight_norm
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm
from torch.utils.hooks import RemovableHandle

from gensdk_runtime.errors import ExportError

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
FOLDABLE = (nn.Conv1d, nn.Conv2d, nn.Conv3d, *TRANSPOSED, nn.Linear)

RELATIVE_TOLERANCE = 1e-4

Arguments = tuple[Tensor, ...]


def plain_copy(module: nn.Module) -> nn.Module:
    """A copy of `module` in which weight norm and spectral norm that hang on hooks became plain weights.

    Where there are none, and no parametrizations, it shares the weights of `module`. The hooks compute the weight
    anew in every run, and what they computed last can't be copied.
    """
    hooked = [(part, hook.name) for part in module.modules() for hook in _norm_hooks(part)]
    computed = (getattr(part, name) for part, name in hooked)
    memo: dict[int, Any] = {id(tensor): tensor.detach().clone() for tensor in computed}
    if not hooked and not any(parametrize.is_parametrized(part) for part in module.modules()):
        # Nothing is computed in place, so weights may be shared: those of a large model are most of its memory.
        memo |= {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
    copied = copy.deepcopy(module, memo)
    for part in copied.modules():
        for hook in list(_norm_hooks(part)):
            remove = remove_weight_norm if isinstance(hook, WeightNorm) else remove_spectral_norm
            remove(cast(Any, part), hook.name)
    return copied


def _norm_hooks(part: nn.Module) -> Iterator[WeightNorm | SpectralNorm]:
    for hook in part._forward_pre_hooks.values():
        if isinstance(hook, WeightNorm | SpectralNorm):
            yield hook


def refuse_batch_statistics(module: nn.Module, where: str) -> None:
    """:class:`ExportError` for a batch norm without stored statistics: its samples depend on their neighbours."""
    for name, part in module.named_modules():
        if isinstance(part, BATCH_NORMS) and part.running_mean is None:
            raise ExportError(
                f"{where}: layer {name!r} is a batch norm without stored statistics (track_running_stats=False), "
                "so a sample would depend on its batch; train it with statistics, or use an instance norm, "
                "which is the same for a batch of one"
            )


def bake_parametrizations(module: nn.Module) -> None:
    """Turns parametrized weights (spectral norm and the like) of `module` into plain ones, in place."""
    for part in list(module.modules()):
        if parametrize.is_parametrized(part):
            _own_class(part)
            for name in list(part.parametrizations):  # type: ignore[arg-type]
                parametrize.remove_parametrizations(part, name, leave_parametrized=True)


def _own_class(part: nn.Module) -> None:
    """Copies of a parametrized module share the class that PyTorch made for it, and removing the parametrization
    changes that class: without one of its own, the module that was copied would lose its weight."""
    shared = type(part)
    own = {key: value for key, value in vars(shared).items() if key not in ("__dict__", "__weakref__")}
    part.__class__ = type(shared.__name__, shared.__bases__, own)


def fold_batch_norms(module: nn.Module, calls: Iterable[Arguments]) -> tuple[str, ...]:
    """Folds in place each batch norm of `module` that follows a convolution or linear layer directly.

    `calls` are real arguments of the module (eval mode). They show which layer feeds which norm, and prove each
    folding: one that changes an output (since something else reads the layer too) is undone. Returns the names
    of the folded norms.
    """
    calls = list(calls)
    normed = any(isinstance(part, BATCH_NORMS) for part in module.modules())
    pairs = _adjacent(module, calls[0]) if calls and normed else []  # which keeps all that layers make
    if not pairs:
        return ()
    expected = [_outputs(module, arguments) for arguments in calls]
    folded = []
    for layer_name, norm_name in pairs:
        layer, norm = module.get_submodule(layer_name), module.get_submodule(norm_name)
        fused = _fuse(layer, norm)
        module.set_submodule(layer_name, fused)
        module.set_submodule(norm_name, nn.Identity().eval())
        if _same(expected, [_outputs(module, arguments) for arguments in calls]):
            folded.append(norm_name)
        else:
            module.set_submodule(layer_name, layer)
            module.set_submodule(norm_name, norm)
    return tuple(folded)


def _adjacent(module: nn.Module, arguments: Arguments) -> list[tuple[str, str]]:
    """(layer, norm) names, where the norm's input was the layer's output and both ran once."""
    made_by: dict[int, str] = {}
    kept: list[Tensor] = []  # so that no two tensors get one id
    runs: dict[str, int] = {}
    pairs: list[tuple[str, str]] = []
    handles: list[RemovableHandle] = []

    def watch(name: str, part: nn.Module) -> None:
        def after(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            runs[name] = runs.get(name, 0) + 1
            kept.extend((output, *inputs))
            if isinstance(part, FOLDABLE):
                made_by[id(output)] = name
            elif id(inputs[0]) in made_by:
                pairs.append((made_by[id(inputs[0])], name))

        handles.append(part.register_forward_hook(after))

    for name, part in module.named_modules():
        if (isinstance(part, FOLDABLE) and getattr(part, "groups", 1) == 1) or isinstance(part, BATCH_NORMS):
            watch(name, part)
    try:
        _outputs(module, arguments)
    finally:
        for handle in handles:
            handle.remove()
    return [pair for pair in pairs if runs[pair[0]] == runs[pair[1]] == 1]


def _fuse(layer: nn.Module, norm: nn.Module) -> nn.Module:
    if isinstance(layer, nn.Linear):
        return fusion.fuse_linear_bn_eval(layer, cast(Any, norm))
    transpose = isinstance(layer, TRANSPOSED)
    return cast(nn.Module, fusion.fuse_conv_bn_eval(cast(Any, layer), cast(Any, norm), transpose=transpose))


@torch.no_grad()
def _outputs(module: nn.Module, arguments: Arguments) -> Arguments:
    result = module(*arguments)
    return (result,) if isinstance(result, Tensor) else tuple(result)


def _same(expected: list[Arguments], got: list[Arguments]) -> bool:
    return all(
        float((new - old).abs().max()) <= RELATIVE_TOLERANCE * max(1.0, float(old.abs().max()))
        for old_call, new_call in zip(expected, got, strict=True)
        for old, new in zip(old_call, new_call, strict=True)
        if old.is_floating_point() and old.numel()
    )
