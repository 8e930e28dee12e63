"""What every operator shares: registration with torch.library, the eager shortcut past the dispatcher, autocast, refusals.

An operation `x` is two functional operators, `torch.ops.vlmkernels.x_forward` and `x_backward`. Its public function goes

- straight to the implementation when nothing needs the dispatcher and no input needs a gradient: a tiny call then costs no more than torch's own;
- through an autograd.Function around the two implementations when only eager autograd is needed (a third of the cost of the dispatcher's autograd);
- through torch.ops otherwise (compile, export, functional transforms, fake tensors, tensor subclasses, modes), where everything is registered.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

__all__ = [
    "aligned",
    "autocast_dtype",
    "define",
    "eager",
    "loop_over_batch",
    "needs_grad",
    "refuse_double_backward",
    "undisturbed",
    "workspace",
]

_library = torch.library.Library("vlmkernels", "DEF")
_plain_types = (Tensor, Parameter)
_dispatch_modes = torch._C._len_torch_dispatch_stack
_function_modes = torch._C._len_torch_function_stack
_interpreter = torch._C._functorch.peek_interpreter_stack
_tracing = torch._C._get_tracing_state


def undisturbed() -> bool:
    """True if nothing between the caller and the kernel wants to see the operator: no tracing, no functional transform, no mode."""
    return not (
        torch.compiler.is_compiling()
        or _dispatch_modes()
        or _function_modes()
        or _interpreter() is not None
        or _tracing() is not None
    )


def eager(*tensors: Tensor | None) -> bool:
    """True if the call may go past the dispatcher: undisturbed, and no tensor is of a subclass with its own ideas."""
    if not undisturbed():
        return False
    for tensor in tensors:  # noqa: SIM110 (a generator costs more than the whole test)
        if tensor is not None and type(tensor) not in _plain_types:
            return False
    return True


_LOAD_BYTES = 16


def aligned(backend: str, *tensors: Tensor) -> list[Tensor]:
    """The tensors with rows that start at multiples of 16 bytes, as CUDA kernels load them: copies of those whose do not, which takes an odd stride or offset."""
    if backend == "cpu":
        return list(tensors)
    return [t if _is_aligned(t) else t.clone(memory_format=torch.contiguous_format) for t in tensors]


def _is_aligned(tensor: Tensor) -> bool:
    item = tensor.element_size()
    return tensor.data_ptr() % _LOAD_BYTES == 0 and all(
        stride * item % _LOAD_BYTES == 0
        for size, stride in zip(tensor.shape[:-1], tensor.stride()[:-1], strict=True)
        if size > 1
    )


def workspace(like: Tensor) -> Callable[[int], Tensor]:
    """How the binding gets room for so many fp32 numbers beside `like`, where kernels need some."""
    return lambda numbers: like.new_empty(numbers, dtype=torch.float32)


def needs_grad(*tensors: Tensor | None) -> bool:
    if torch.is_grad_enabled():
        for tensor in tensors:
            if tensor is not None and tensor.requires_grad:
                return True
    return False


def autocast_dtype(device_type: str) -> torch.dtype | None:
    """The dtype autocast asks for on this device, or None where it is off."""
    if not torch._C._is_any_autocast_enabled() or not torch.is_autocast_enabled(device_type):
        return None
    return torch.get_autocast_dtype(device_type)


def refuse_double_backward(operation: str) -> Callable[..., None]:
    """A backward formula that raises: the kernels have no second derivative, and a wrong one must not pass for right."""

    def backward(ctx: Any, *grads: Tensor) -> None:
        raise NotImplementedError(
            f"{operation} has no second derivative (double backward); compute it with the functions of vlmkernels.reference, which plain autograd differentiates twice"
        )

    return backward


def loop_over_batch(name: str) -> Callable[..., Any]:
    """A vmap rule that calls ``torch.ops.vlmkernels.name`` once per element of the batch and stacks what it returns."""

    def rule(info: Any, in_dims: tuple[int | None, ...], *args: Any) -> tuple[Any, Any]:
        operator = getattr(torch.ops.vlmkernels, name)
        found = [
            operator(
                *(arg.select(dim, n) if isinstance(dim, int) else arg for arg, dim in zip(args, in_dims, strict=True))
            )
            for n in range(info.batch_size)
        ]
        if isinstance(found[0], Tensor):
            return torch.stack(found), 0
        return tuple(torch.stack(parts) for parts in zip(*found, strict=True)), (0,) * len(found[0])

    return rule


def define(
    name: str,
    schema: str,
    implementation: Callable[..., Any],
    fake: Callable[..., Any],
    *,
    setup_context: Callable[..., None] | None = None,
    backward: Callable[..., Any],
    vmap: Callable[..., Any] | None = None,
    autocast: Callable[..., Sequence[Any]] | None = None,
) -> None:
    """Registers ``vlmkernels::name`` with `schema` (the text after the name).

    `implementation` chooses the backend itself and serves every device. `fake` returns empty outputs with true shapes and strides. `backward` and
    `setup_context` are as for torch.library.register_autograd. `vmap(info, in_dims, *args)` as for torch.library.register_vmap. `autocast(dtype, *args)` returns
    the arguments cast as autocast wants them.
    """
    qualified = f"vlmkernels::{name}"
    _library.define(name + schema, tags=(torch.Tag.pt2_compliant_tag,))
    _library.impl(name, implementation, "CompositeExplicitAutograd")
    torch.library.register_fake(qualified, fake, lib=_library)
    torch.library.register_autograd(qualified, backward, setup_context=setup_context, lib=_library)
    if vmap is not None and hasattr(torch.library, "register_vmap"):
        torch.library.register_vmap(qualified, vmap, lib=_library)
    if autocast is not None:
        for device in ("CPU", "CUDA"):
            _library.impl(name, _autocast_kernel(name, device, autocast), f"Autocast{device}")


def _autocast_kernel(name: str, device: str, cast: Callable[..., Sequence[Any]]) -> Callable[..., Any]:
    device_type = device.lower()
    keys = torch._C.DispatchKeySet(getattr(torch._C.DispatchKey, f"Autocast{device}"))

    def kernel(*args: Any) -> Any:
        with torch._C._ExcludeDispatchKeyGuard(keys):
            return getattr(torch.ops.vlmkernels, name)(*cast(torch.get_autocast_dtype(device_type), *args))

    return kernel
