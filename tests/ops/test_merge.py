"""merge_attention: what it means, on every backend that runs its kernels; the grid of cases checks its accuracy."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.library import opcheck

import vlmkernels as vk
from vlmkernels import backends, images
from vlmkernels.reference import merge as reference

ISAS = backends.native.available_isas() if backends.native is not None else []
WHY_NOT_EMULATED = backends.native_error if backends.native is None else images.missing("merge_attention")
EVERYWHERE = [
    "reference",
    *(f"cpu-{isa}" for isa in ISAS),
    pytest.param("emulator", marks=pytest.mark.skipif(bool(WHY_NOT_EMULATED), reason=WHY_NOT_EMULATED)),
]
every_backend = pytest.mark.parametrize("backend", EVERYWHERE, indirect=True)
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def parts(*shape: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    return torch.randn(shape).to(dtype), 3 * torch.randn(shape[:-1])


@every_backend
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: str(d).removeprefix("torch."))
def test_attention_over_parts_of_the_keys_is_attention(backend: str, dtype: torch.dtype) -> None:
    q, k, v = (torch.randn(2, 3, s, 40).to(dtype) for s in (17, 50, 50))
    with backends.use_backend("reference"):
        whole, whole_lse = vk.attention(q, k, v, return_lse=True)
        split = [vk.attention(q, k[:, :, a:b], v[:, :, a:b], return_lse=True) for a, b in ((0, 20), (20, 20), (20, 50))]
    out, lse = vk.merge_attention(*(torch.stack(t) for t in zip(*split, strict=True)))
    tolerance = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 2e-3}[dtype]
    torch.testing.assert_close(out, whole, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(lse, whole_lse, rtol=1e-5, atol=1e-5)


@every_backend
def test_the_layout_is_that_of_the_parts(backend: str) -> None:
    token_major = torch.randn(3, 2, 5, 4, 8).transpose(2, 3)
    out, lse = vk.merge_attention(token_major, torch.zeros(3, 2, 4, 5))
    assert out.stride() == token_major[0].stride()
    assert lse.is_contiguous()
    torch.testing.assert_close(out, token_major.mean(0))


@every_backend
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: str(d).removeprefix("torch."))
def test_a_part_without_weight_does_not_matter(backend: str, dtype: torch.dtype) -> None:
    """Whatever it holds, also NaN; where no part has weight the output is 0 and gradients are 0."""
    outputs, lses = parts(3, 6, 24, dtype=dtype)
    lses[1] = -torch.inf
    lses[:, 2] = -torch.inf
    outputs[1] = torch.nan
    outputs[:, 2] = torch.nan
    outputs.requires_grad_(), lses.requires_grad_()
    out, lse = vk.merge_attention(outputs, lses)
    assert out.isfinite().all()
    assert (out[2] == 0).all()
    assert lse[2] == -torch.inf
    assert lse[[0, 1, 3, 4, 5]].isfinite().all()
    grads = torch.autograd.grad((out, lse), (outputs, lses), (torch.randn_like(out), torch.ones(6)))
    for grad in grads:
        assert grad.isfinite().all()
        assert (grad[1] == 0).all()
        assert (grad[:, 2] == 0).all()
    assert (grads[0][0, 0] != 0).any()


@every_backend
def test_large_logsumexps_do_not_overflow(backend: str) -> None:
    outputs, lses = parts(4, 9, 16)
    for shift in (-1e4, 1e4):
        out, lse = vk.merge_attention(outputs, lses + shift)
        expected, expected_lse = reference.merge_attention(outputs.double(), (lses + shift).double())
        torch.testing.assert_close(out, expected.float(), rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(lse, expected_lse.float())


@every_backend
def test_nan_is_not_hidden(backend: str) -> None:
    outputs, lses = parts(2, 3, 8)
    lses[0, 1] = torch.nan
    out, lse = vk.merge_attention(outputs, lses)
    assert out[1].isnan().all()
    assert lse[1].isnan()
    assert out[[0, 2]].isfinite().all()


@every_backend
@pytest.mark.parametrize(
    "shape", [(2, 8), (2, 2, 3, 2, 2, 2, 2, 8), (1, 1, 1), (2, 5, 1), (3, 4, 257), (0, 2, 8), (2, 0, 8)]
)
def test_ranks_and_widths(backend: str, shape: tuple[int, ...]) -> None:
    """From no row dimension to more than kernels index; D 1 and odd; nothing at all."""
    outputs, lses = parts(*shape)
    if len(shape) == 8:  # strides that no reshape can merge
        outputs, lses = outputs.transpose(1, 4), lses.transpose(1, 4)
    outputs.requires_grad_(), lses.requires_grad_()
    out, lse = vk.merge_attention(outputs, lses)
    expected, expected_lse = reference.merge_attention(outputs, lses)
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(lse, expected_lse, rtol=1e-5, atol=1e-6)
    weights = torch.randn_like(out), torch.randn_like(lse)
    found = torch.autograd.grad((out, lse), (outputs, lses), weights)
    wanted = torch.autograd.grad((expected, expected_lse), (outputs, lses), weights)
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@every_backend
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: str(d).removeprefix("torch."))
def test_any_strides(backend: str, dtype: torch.dtype) -> None:
    """Slices, transposes, broadcasts and shifted starts give the bits that contiguous inputs give."""
    wide = torch.randn(3, 4, 6, 96).to(dtype)
    variants = {
        "shifted": wide[..., 3:67],
        "every other row": wide[:, :, ::2],
        "transposed": wide.transpose(1, 2),
        "one part for all": wide[:1].expand(3, 4, 6, 96),
        "reversed roles": wide.transpose(0, 1),
    }
    for name, outputs in variants.items():
        given = 2 * torch.randn(*outputs.shape[:-1]).transpose(0, -1).contiguous().transpose(0, -1)
        results = []
        for o, given_lse in ((outputs, given), (outputs.contiguous(), given.contiguous())):
            leaves = o.detach().requires_grad_(), given_lse.detach().requires_grad_()
            out, lse = vk.merge_attention(*leaves)
            grads = torch.autograd.grad((out, lse), leaves, (torch.ones_like(out), torch.ones_like(lse)))
            results.append((out, lse, *grads))
        for a, b in zip(*results, strict=True):
            torch.testing.assert_close(
                a, b, rtol=1e-5 if dtype == torch.float32 else 0, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}"
            )


@every_backend
def test_one_gradient_is_enough(backend: str) -> None:
    outputs, lses = parts(3, 5, 16)
    for result in (0, 1):
        given = outputs.clone().requires_grad_(), lses.clone().requires_grad_()
        found = torch.autograd.grad(vk.merge_attention(*given)[result].sum(), given)
        wanted = torch.autograd.grad(reference.merge_attention(*given)[result].sum(), given, materialize_grads=True)
        for a, b in zip(found, wanted, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@every_backend
def test_nothing_outside_the_tensors_is_read_or_written(backend: str) -> None:
    for dtype in DTYPES:
        for shape in ((2, 3, 8), (3, 17, 72), (2, 5, 13)):
            count = torch.Size(shape).numel()
            buffer = torch.full((count + 128,), torch.nan, dtype=dtype)
            inside = buffer[64 : 64 + count].view(shape)
            inside.copy_(torch.randn(shape))
            lses = torch.full((count // shape[-1] + 128,), torch.nan)
            inner = lses[64 : 64 + count // shape[-1]].view(shape[:-1])
            inner.copy_(torch.randn(shape[:-1]))
            out, lse = vk.merge_attention(inside, inner)
            assert torch.equal(out, vk.merge_attention(inside.clone(), inner.clone())[0])
            assert out.isfinite().all()
            assert lse.isfinite().all()


BAD = {
    "not a tensor": (lambda: vk.merge_attention([torch.zeros(3, 8)], torch.zeros(1, 3)), TypeError, "outputs.*stack"),
    "dtype": (lambda: vk.merge_attention(torch.zeros(2, 3, 8).int(), torch.zeros(2, 3)), TypeError, "outputs"),
    "rank": (lambda: vk.merge_attention(torch.zeros(8), torch.zeros(())), ValueError, "outputs must be"),
    "shape": (lambda: vk.merge_attention(torch.zeros(2, 3, 8), torch.zeros(3, 3)), ValueError, "logsumexps must have the shape"),
    "lse dtype": (lambda: vk.merge_attention(torch.zeros(2, 3, 8).half(), torch.zeros(2, 3).half()), TypeError, "logsumexps.*float32"),
    "device": (lambda: vk.merge_attention(torch.zeros(2, 3, 8), torch.zeros(2, 3, device="meta")), ValueError, "one device"),
    "empty": (lambda: vk.merge_attention(torch.zeros(2, 3, 0), torch.zeros(2, 3)), ValueError, "not be empty"),
    "stride": (lambda: vk.merge_attention(torch.zeros(2, 8, 3).mT, torch.zeros(2, 3)), ValueError, "contiguous in its last"),
}  # fmt: skip


@every_backend
@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named(name: str, backend: str) -> None:
    call, kind, words = BAD[name]
    with pytest.raises(kind, match=words):
        call()


# --- torch integration ---


def differentiable() -> tuple[Tensor, Tensor]:
    outputs, lses = parts(3, 2, 5, 16)
    return outputs.requires_grad_(), lses.requires_grad_()


def total(outputs: Tensor, lses: Tensor) -> Tensor:
    out, lse = vk.merge_attention(outputs, lses)
    return out.square().sum(-1) + lse


def test_opcheck() -> None:
    outputs, lses = differentiable()
    opcheck(torch.ops.vlmkernels.merge_attention_forward, (outputs, lses))
    opcheck(torch.ops.vlmkernels.merge_attention_forward, (outputs.transpose(1, 2), lses.transpose(1, 2)))
    lse = vk.merge_attention(outputs, lses)[1].detach()
    plain = outputs.detach(), lses.detach(), lse
    opcheck(torch.ops.vlmkernels.merge_attention_backward, (torch.randn(2, 5, 16), None, *plain))
    opcheck(torch.ops.vlmkernels.merge_attention_backward, (torch.randn(2, 5, 16), torch.randn(2, 5), *plain))


def test_compile_export_and_vmap() -> None:
    outputs, lses = differentiable()
    compiled = torch.compile(total, fullgraph=True, dynamic=True, backend="aot_eager")
    torch.testing.assert_close(compiled(outputs, lses), total(outputs, lses))
    for a, b in zip(
        torch.autograd.grad(compiled(outputs, lses).sum(), (outputs, lses)),
        torch.autograd.grad(total(outputs, lses).sum(), (outputs, lses)),
        strict=True,
    ):
        torch.testing.assert_close(a, b)

    class Module(torch.nn.Module):
        def forward(self, outputs: Tensor, lses: Tensor) -> Tensor:
            return total(outputs, lses)

    plain = outputs.detach(), lses.detach()
    program = torch.export.export(Module(), plain)
    torch.testing.assert_close(program.module()(*plain), total(*plain))

    batch = [parts(3, 2, 5, 16) for _ in range(4)]
    stacked = tuple(torch.stack(t, 2) for t in zip(*batch, strict=True))
    found = torch.func.vmap(total, in_dims=2)(*stacked)
    torch.testing.assert_close(found, torch.stack([total(*row) for row in batch]))
    backward = torch.ops.vlmkernels.merge_attention_backward
    lse = vk.merge_attention(*plain)[1]
    grad_out, grad_lse = torch.randn(4, 2, 5, 16), torch.randn(2, 5, 4)
    many = torch.func.vmap(backward, in_dims=(0, 2, None, None, None))(grad_out, grad_lse, *plain, lse)
    for n in range(4):
        for a, b in zip(many, backward(grad_out[n], grad_lse[..., n], *plain, lse), strict=True):
            torch.testing.assert_close(a[n], b)


def test_autocast_leaves_it_alone_and_double_backward_is_refused() -> None:
    outputs, lses = differentiable()
    with torch.autocast("cpu", torch.bfloat16):
        out, lse = vk.merge_attention(outputs, lses)
    assert out.dtype == lse.dtype == torch.float32
    first = torch.autograd.grad(total(outputs, lses).sum(), outputs, create_graph=True)[0]
    with pytest.raises(NotImplementedError, match="second derivative"):
        first.sum().backward()


def test_gradients_of_the_reference() -> None:
    """The formula of the backward pass against autograd and finite differences in double."""
    outputs, lses = (t.double().requires_grad_() for t in parts(3, 4, 5))
    assert torch.autograd.gradcheck(reference.merge_attention, (outputs, lses))
    out, lse = reference.merge_attention(outputs, lses)
    weights = torch.randn_like(out), torch.randn_like(lse)
    wanted = torch.autograd.grad((out, lse), (outputs, lses), weights)
    for a, b in zip(reference.merge_attention_backward(*weights, outputs, lses, lse), wanted, strict=True):
        torch.testing.assert_close(a, b)
