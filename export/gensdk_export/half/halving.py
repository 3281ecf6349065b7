"""Half precision inside a module: float32 goes in and comes out, and what needs float32 keeps it.

Precision is a matter of the exported types, so it is written into the module itself, as casts in forward hooks:
the structure and the names of the submodules stay.

- A *region* is halved: its float inputs are cast to half, its outputs back to float32. What has one number a
  sample stays float32: it is a time step, which half would round.
- A *sealed island* in it (norms, recurrent cells, modules with ``fp32_island = True``) keeps float32 weights,
  takes float32 and gives half, so that everything around it stays half.
- An *open island*, chosen by measurement, gives float32: it may stand where values exceed the range of half.
  The next module with half weights casts down again. The island ``REGION:input`` is the region's entry: with
  it, the inputs stay float32 until the first module with half weights.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterator
from typing import Any

import torch
from torch import Tensor, nn

SEALED: tuple[type[nn.Module], ...] = (
    nn.GroupNorm,
    nn.LayerNorm,
    nn.RMSNorm,
    nn.modules.batchnorm._NormBase,
    nn.RNNBase,
    nn.RNNCellBase,
)


def halve(module: nn.Module, regions: Collection[str], islands: Collection[str] = ()) -> nn.Module:
    """A copy of `module` whose `regions` (dotted names; "" is all of it) run in half but for the `islands`.

    Weights of islands are the original ones, never rounded. The copy takes and gives what `module` does.
    """
    module = copy.deepcopy(module)
    for region in regions:
        root = module.get_submodule(region)
        if entry(region) not in islands:
            root.register_forward_pre_hook(_casting_inputs(torch.float16, least_axes=2), with_kwargs=True)
        for name, part in half_parts(module, region, islands):
            if name in islands:
                for inner in part.modules():  # some modules call their children from other methods than forward
                    inner.register_forward_pre_hook(_casting_inputs(torch.float32), with_kwargs=True)
            elif is_sealed(part):
                part.register_forward_pre_hook(_casting_inputs(torch.float32), with_kwargs=True)
                part.register_forward_hook(_casting_outputs(torch.float16))
            elif _halve_own_tensors(part):
                part.register_forward_pre_hook(_casting_inputs(torch.float16), with_kwargs=True)
        root.register_forward_hook(_casting_outputs(torch.float32))
    return module


def entry(region: str) -> str:
    """The name of the open island at the entry of `region`."""
    return f"{region}:input"


def half_parts(module: nn.Module, region: str, islands: Collection[str]) -> Iterator[tuple[str, nn.Module]]:
    """The submodules of `region` (itself first), with their names in `module`; nothing from inside an island."""
    skipped: list[str] = []
    for inner, part in module.get_submodule(region).named_modules():
        name = ".".join(filter(None, (region, inner)))
        if any(name.startswith(prefix) for prefix in skipped):
            continue
        if name in islands or is_sealed(part):
            skipped.append(f"{name}." if name else "")
        yield name, part


def is_sealed(part: nn.Module) -> bool:
    """True if `part` keeps float32 by its nature, whatever is measured."""
    return isinstance(part, SEALED) or bool(getattr(part, "fp32_island", False))


def own_tensors(part: nn.Module) -> list[Tensor]:
    """The float parameters and buffers that belong to `part` itself, not to a submodule of it."""
    tensors = (*part.parameters(recurse=False), *part.buffers(recurse=False))
    return [tensor.detach() for tensor in tensors if tensor.is_floating_point()]


def _halve_own_tensors(part: nn.Module) -> bool:
    """Turns the float tensors of `part` itself to half; False where it has none."""
    for name, parameter in list(part.named_parameters(recurse=False)):
        if parameter.is_floating_point():
            setattr(part, name, nn.Parameter(parameter.detach().half(), requires_grad=False))
    for name, buffer in list(part.named_buffers(recurse=False)):
        if buffer.is_floating_point():
            setattr(part, name, buffer.half())
    return bool(own_tensors(part))


def _cast(value: Any, dtype: torch.dtype, least_axes: int = 0) -> Any:
    """`value` with every float tensor in it (lists, tuples, dicts) cast that has as many axes."""
    if isinstance(value, Tensor):
        return value.to(dtype) if value.is_floating_point() and value.dim() >= least_axes else value
    if isinstance(value, tuple | list):
        return type(value)(_cast(item, dtype, least_axes) for item in value)
    if isinstance(value, dict):
        return {key: _cast(item, dtype, least_axes) for key, item in value.items()}
    return value


def _casting_inputs(dtype: torch.dtype, least_axes: int = 0) -> Callable[[nn.Module, Any, Any], tuple[Any, Any]]:
    return lambda _, args, kwargs: (_cast(args, dtype, least_axes), _cast(kwargs, dtype, least_axes))


def _casting_outputs(dtype: torch.dtype) -> Callable[[nn.Module, Any, Any], Any]:
    return lambda _, __, output: _cast(output, dtype)
