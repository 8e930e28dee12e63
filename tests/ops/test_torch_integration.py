"""Every operator under opcheck, torch.compile, torch.export, autocast, vmap; double backward is refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.library import opcheck

import vlmkernels as vk

ops = torch.ops.vlmkernels


def leaf(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, dtype=dtype).requires_grad_()


def qkv(**kw) -> tuple[Tensor, Tensor, Tensor]:
    return leaf(2, 4, 9, 16, **kw), leaf(2, 2, 11, 16, **kw), leaf(2, 2, 11, 16, **kw)


def packed() -> tuple[Tensor, ...]:
    return (
        leaf(9, 4, 16),
        leaf(11, 2, 16),
        leaf(11, 2, 16),
        torch.tensor([0, 4, 9], dtype=torch.int32),
        torch.tensor([0, 5, 11], dtype=torch.int32),
    )


VISIBLE = torch.arange(2 * 9 * 3).remainder(2).bool().view(2, 9, 3)
CALLS: dict[str, tuple[Callable[..., Tensor], Callable[[], tuple[Tensor, ...]]]] = {
    "attention": (lambda q, k, v: vk.attention(q, k, v, causal="bottom_right"), qkv),
    "attention lse": (lambda q, k, v: sum(t.sum() for t in vk.attention(q, k, v, return_lse=True)), qkv),
    "sdpa": (lambda q, k, v: vk.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True), qkv),
    "cross": (lambda q, k, v: vk.cross_attention(q, k, v, visible=VISIBLE[: q.shape[0]], tokens_per_tile=4), qkv),
    "varlen": (lambda q, k, v, a, b: vk.attention_varlen(q, k, v, a, b, causal="top_left"), packed),
    "patch_embed": (
        lambda x, w, b, p, c: vk.patch_embed(x, w, b, position=p, prefix=c, mean=[0.1] * 3, std=[0.9] * 3),
        lambda: (leaf(2, 3, 9, 8), leaf(8, 3, 4, 4), leaf(8), leaf(5, 8), leaf(1, 8)),
    ),
    "patch_embed_packed": (
        lambda x, w: vk.patch_embed_packed(x, w, order="PPC"),
        lambda: (leaf(2, 5, 48), leaf(8, 3, 4, 4)),
    ),
    "contrastive": (
        lambda x, y, s: vk.contrastive_loss(x, y, s, normalize=True, label_smoothing=0.1),
        lambda: (leaf(6, 8), leaf(6, 8), torch.tensor(5.0, requires_grad=True)),
    ),
    "sigmoid": (
        lambda x, y, s, b: vk.sigmoid_loss(x, y, s, b, label_offset=2),
        lambda: (leaf(6, 8), leaf(8, 8), torch.tensor(5.0, requires_grad=True), torch.tensor(-1.0, requires_grad=True)),
    ),
}


def differentiable(tensors: tuple[Tensor, ...]) -> list[Tensor]:
    return [t for t in tensors if t.requires_grad]


@pytest.mark.parametrize("name", CALLS)
def test_compile_with_gradients(name: str) -> None:
    call, make = CALLS[name]
    inputs = make()
    compiled = torch.compile(call, fullgraph=True, dynamic=True, backend="aot_eager")
    for _ in range(2):
        out, expected = compiled(*inputs), call(*inputs)
        torch.testing.assert_close(out, expected)
        weight = torch.randn_like(out)
        for a, b in zip(
            torch.autograd.grad((out * weight).sum(), differentiable(inputs)),
            torch.autograd.grad((expected * weight).sum(), differentiable(inputs)),
            strict=True,
        ):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
        inputs = make()


def test_compile_with_inductor() -> None:
    call, make = CALLS["attention"]
    inputs = make()
    torch.testing.assert_close(torch.compile(call, fullgraph=True)(*inputs), call(*inputs))


@pytest.mark.parametrize("name", CALLS)
def test_export(name: str) -> None:
    call, make = CALLS[name]
    inputs = tuple(t.detach() for t in make())

    class Module(torch.nn.Module):
        def forward(self, *args: Tensor) -> Tensor:
            return call(*args)

    program = torch.export.export(Module(), inputs)
    assert any("vlmkernels" in str(node.target) for node in program.graph.nodes)
    torch.testing.assert_close(program.module()(*inputs), call(*inputs))


@pytest.mark.parametrize("name", CALLS)
def test_double_backward_is_refused(name: str) -> None:
    call, make = CALLS[name]
    inputs = make()
    first = torch.autograd.grad(call(*inputs).square().sum(), differentiable(inputs)[0], create_graph=True)[0]
    with pytest.raises(NotImplementedError, match="second derivative"):
        first.sum().backward()


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(name: str, dtype: torch.dtype) -> None:
    call, make = CALLS[name]
    inputs = make()
    with torch.autocast("cpu", dtype):
        out = call(*inputs)
    assert out.dtype == (torch.float32 if name in ("contrastive", "sigmoid", "attention lse") else dtype)
    out.float().sum().backward()
    assert all(t.grad is not None and t.grad.dtype == torch.float32 for t in differentiable(inputs))


@pytest.mark.parametrize("name", [name for name in CALLS if name not in ("cross", "varlen", "attention lse")])
def test_vmap(name: str) -> None:
    call, make = CALLS[name]
    rows = [tuple(t.detach() for t in make()) for _ in range(3)]
    batch = tuple(torch.stack(ts) for ts in zip(*rows, strict=True))
    for got, row in zip(torch.func.vmap(call)(*batch), rows, strict=True):
        torch.testing.assert_close(got, call(*row), rtol=1e-4, atol=1e-5)


def test_opcheck() -> None:
    """Schemas, fake kernels with true strides, autograd registration, dynamic shapes: all four of torch's own checks on each operator."""
    x, y = leaf(6, 8), leaf(6, 8)
    scale, bias = torch.tensor(2.0, requires_grad=True), torch.tensor(-1.0, requires_grad=True)
    opcheck(ops.contrastive_forward, (x, y, scale, None, None, 1, 0, True))
    ids = torch.arange(6) // 2
    opcheck(ops.contrastive_forward, (x, y, scale, ids, ids, 2, 0, False))
    rows, columns = (t.detach() for t in ops.contrastive_forward(x, y, scale, None, None, 1, 0, True))
    plain = (x.detach(), y.detach(), scale.detach())
    opcheck(
        ops.contrastive_backward,
        (torch.randn_like(rows), torch.randn_like(columns), rows, columns, *plain, None, None, 1, 0, True),
    )
    opcheck(ops.sigmoid_forward, (x, y, scale, bias, None, None, 1, 0, True))
    opcheck(ops.sigmoid_backward, (torch.randn(6), *plain, bias.detach(), None, None, 1, 0, True))


@pytest.mark.parametrize("name", ["attention", "sdpa", "cross", "varlen", "patch_embed", "patch_embed_packed"])
def test_opcheck_of_what_public_functions_call(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records the operator calls a compiled public function makes, forward and backward, and puts each through opcheck."""
    from torch.utils._python_dispatch import TorchDispatchMode

    call, make = CALLS[name]
    seen = []

    class Recorder(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func.namespace == "vlmkernels":
                seen.append(
                    (func, tuple(a.detach().clone() if isinstance(a, Tensor) else a for a in args), kwargs or {})
                )
            return func(*args, **(kwargs or {}))

    inputs = make()
    with Recorder():
        call(*inputs).sum().backward()
    assert len(seen) == 2
    for func, args, kwargs in seen:
        if func._schema.name.endswith("_forward"):
            args = tuple(
                a.requires_grad_() if isinstance(a, Tensor) and a.is_floating_point() and i < 3 else a
                for i, a in enumerate(args)
            )
        opcheck(func, args, kwargs)
