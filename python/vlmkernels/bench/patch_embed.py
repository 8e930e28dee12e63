"""Patch embedding workloads: uint8 pixels to tokens in one pass, and patches that are cut already."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vlmkernels.bench.attention import compiled
from vlmkernels.bench.shapes import Shape, load_shapes
from vlmkernels.bench.workload import Call, Prepared, Unavailable, Workload, grad_pass, seeded_generator
from vlmkernels.ops.patch_embed import patch_embed, patch_embed_packed
from vlmkernels.reference import patch_embed as reference

__all__ = ["patch_flops", "patch_sizes", "patch_workload", "patch_workloads"]

MEAN, STD = [0.48, 0.46, 0.41], [0.27, 0.26, 0.28]
IMAGE_PEERS = ("unfused", "compile", "linear", "conv2d", "conv3d", "unfold+linear", "onednn")
PACKED_PEERS = ("conv3d", "linear", "onednn")
FORMULA = {
    "forward": "FLOP = 2 N K E (N patches of K numbers, E wide)",
    "backward": "FLOP = 2 N K E (the weight's gradient; pixels get none)",
}


def patch_sizes(shape: Shape) -> tuple[int, int, int]:
    """(patches in all, numbers in a patch, width)."""
    frames, rows, columns = shape["P"]
    elements = shape["C"] * frames * rows * columns
    if "packed" in shape:
        return shape["packed"], elements, shape["E"]
    per_image = (shape["T"] // frames) * (shape["H"] // rows) * (shape["W"] // columns)
    return shape["B"] * per_image, elements, shape["E"]


def patch_flops(shape: Shape, run_pass: str) -> float:
    patches, elements, width = patch_sizes(shape)
    return 2.0 * patches * elements * width


class _Problem:
    """Inputs of one shape; `tensors` are the leaves that get gradients."""

    def __init__(self, shape: Shape, dtype: torch.dtype, backward: bool) -> None:
        g = seeded_generator()
        self.shape, self.dtype = shape, dtype
        self.mean, self.std = torch.tensor(MEAN), torch.tensor(STD)
        patches, elements, width = patch_sizes(shape)
        frames, rows, columns = shape["P"]
        self.per_image = patches // shape.get("B", 1)
        kernel = (frames, rows, columns) if frames > 1 else (rows, columns)

        def parameter(*sizes: int, scale: float = 1.0) -> Tensor:
            return (torch.randn(*sizes, generator=g) * scale).to(dtype).requires_grad_(backward)

        self.weight = parameter(width, shape["C"], *kernel, scale=elements**-0.5)
        self.bias = parameter(width) if shape["bias"] else None
        tokens = self.per_image + shape["prefix"]
        self.prefix = parameter(shape["prefix"], width) if shape["prefix"] else None
        self.position = parameter(tokens, width) if shape["position"] else None
        if "packed" in shape:
            self.pixels = torch.randn(patches, elements, generator=g).to(dtype)
            self.grad = torch.randn(patches, width, generator=g).to(dtype)
        else:
            size = (shape["B"], *((shape["T"],) if frames > 1 else ()), shape["C"], shape["H"], shape["W"])
            self.pixels = torch.randint(0, 256, size, dtype=torch.uint8, generator=g)
            self.grad = torch.randn(shape["B"], tokens, width, generator=g).to(dtype)
        given = {"weight": self.weight, "bias": self.bias, "position": self.position, "prefix": self.prefix}
        self.named = {name: tensor for name, tensor in given.items() if tensor is not None}

    def normalised(self, dtype: torch.dtype) -> Tensor:
        """Channels in front of time: (B, C, [T,] H, W)."""
        x = self.pixels.movedim(1, 2) if self.pixels.dim() == 5 else self.pixels
        view = (1, -1, *[1] * (x.dim() - 2))
        return ((x.float() / 255 - self.mean.view(view)) / self.std.view(view)).to(dtype)

    def finish(self, tokens: Tensor) -> Tensor:
        """Prefix and position, as the embeddings of models add them."""
        if self.prefix is not None:
            tokens = torch.cat([self.prefix.expand(tokens.shape[0], -1, -1), tokens], 1)
        return tokens if self.position is None else tokens + self.position


def _prepare(shape: Shape, dtype: torch.dtype, run_pass: str) -> Prepared:
    p = _Problem(shape, dtype, run_pass != "forward")
    packed = "packed" in shape
    _, elements, width = patch_sizes(shape)

    def ours() -> Tensor:
        if packed:
            order = "CTPP" if shape["P"][0] > 1 else "CPP"
            return patch_embed_packed(p.pixels, p.weight, p.bias, order=order, position=p.position)  # type: ignore[arg-type]
        return patch_embed(p.pixels, p.weight, p.bias, position=p.position, prefix=p.prefix, mean=MEAN, std=STD)

    def measured(compute: Callable[[], Tensor]) -> Call:
        return grad_pass(lambda: (compute(),), list(p.named.values()), [p.grad], run_pass)

    peers, parts = _packed_contenders(p, measured) if packed else _image_contenders(p, measured)
    if run_pass == "backward":
        parts = {}
        peers = {name: peers[name] for name in (("conv3d", "linear") if packed else ("unfused", "compile"))}
    tokens = p.grad.numel()
    touched = {
        "forward": p.pixels.numel() * p.pixels.element_size() + (width * elements + tokens) * dtype.itemsize,
        "backward": p.pixels.numel() * p.pixels.element_size() + (width * elements + tokens) * dtype.itemsize,
    }
    return Prepared(
        ours=lambda: measured(ours),
        peers=peers,
        exact=lambda: _exact(p, run_pass),
        outputs=("tokens",) if run_pass == "forward" else tuple(f"grad {name}" for name in p.named),
        yardstick="conv3d" if packed else "unfused",
        flops=patch_flops(shape, run_pass),
        bytes=float(touched[run_pass]),
        formula=FORMULA[run_pass] + "; bytes = pixels, weight and tokens (or their gradients) once",
        sample=(lambda outputs: (outputs[0][:1],)) if run_pass == "forward" and not packed else (lambda outputs: outputs),
        parts=parts,
        part_flops=patch_flops(shape, run_pass),
        items=shape.get("B", 0),
    )  # fmt: skip


def _exact(p: _Problem, run_pass: str) -> tuple[Tensor, ...]:
    """The reference in float64: the first image's tokens, or every gradient."""
    given = {name: tensor.detach().double() for name, tensor in p.named.items()}
    with torch.no_grad():
        bias, position, prefix = given.get("bias"), given.get("position"), given.get("prefix")
        if "packed" in p.shape:
            order = "CTPP" if p.shape["P"][0] > 1 else "CPP"
            if run_pass == "forward":
                return (reference.patch_embed_packed(p.pixels.double()[None], given["weight"], bias, position, None, None, order, torch.float64)[0],)  # fmt: skip
            grads = reference.patch_embed_backward(p.grad.double()[None], p.pixels.double()[None], given["weight"], bias, position, None, None, None, order, "front")  # fmt: skip
        else:
            layout = "BTCHW" if p.pixels.dim() == 5 else "BCHW"
            mean, std = (torch.tensor(values, dtype=torch.float32).double() for values in (MEAN, STD))
            if run_pass == "forward":
                return (reference.patch_embed(p.pixels[:1], given["weight"], bias, position, prefix, mean, std, layout, "front", torch.float64),)  # fmt: skip
            grads = reference.patch_embed_backward(p.grad.double(), p.pixels, given["weight"], bias, position, prefix, mean, std, layout, "front")  # fmt: skip
        named = dict(zip(("pixels", "weight", "bias", "position", "prefix"), grads, strict=True))
        return tuple(named[name] for name in p.named)  # type: ignore[misc]


def _convolve(x: Tensor, p: _Problem) -> Tensor:
    convolve: Any = F.conv3d if p.weight.dim() == 5 else F.conv2d
    return convolve(x, p.weight, p.bias, stride=p.weight.shape[2:]).flatten(2).mT  # type: ignore[no-any-return]


Factories = dict[str, Callable[[], Call]]


def _image_contenders(p: _Problem, measured: Callable[[Callable[[], Tensor]], Call]) -> tuple[Factories, Factories]:
    """Peers go all the way from uint8; parts start from float pixels, or from patches, that are ready, and stop at the product."""
    dtype = p.dtype

    def unfused() -> Tensor:
        return p.finish(_convolve(p.normalised(dtype), p))

    def linear() -> Call:
        patches, weight = _ready_patches(p), p.weight.flatten(1)
        return measured(lambda: F.linear(patches, weight, p.bias))

    def conv2d() -> Call:
        if p.weight.dim() == 5:
            raise Unavailable("patches of several frames need a 3-D convolution")
        pixels = p.normalised(dtype)
        return measured(lambda: _convolve(pixels, p))

    def conv3d() -> Call:
        pixels, weight = p.normalised(dtype), p.weight
        if weight.dim() == 4:
            pixels, weight = pixels.unsqueeze(2), weight.unsqueeze(2)
        return measured(lambda: F.conv3d(pixels, weight, p.bias, stride=weight.shape[2:]).flatten(2).mT)

    def unfold() -> Call:
        if p.weight.dim() == 5:
            raise Unavailable("torch unfolds images only")
        pixels, kernel, weight = p.normalised(dtype), p.weight.shape[2:], p.weight.flatten(1)
        return measured(lambda: F.linear(F.unfold(pixels, kernel, stride=kernel).mT, weight, p.bias))

    return {"unfused": lambda: measured(unfused), "compile": lambda: measured(compiled(unfused))}, {
        "linear": linear,
        "conv2d": conv2d,
        "conv3d": conv3d,
        "unfold+linear": unfold,
        "onednn": lambda: measured(_onednn_linear(_ready_patches(p), p)),
    }


def _ready_patches(p: _Problem) -> Tensor:
    """(N, K): normalised patches, cut."""
    x = p.normalised(p.dtype)
    frames_first = x.movedim(1, 2) if x.dim() == 5 else x.unsqueeze(1)
    frames, rows, columns = p.shape["P"]
    return reference.patchify(frames_first, (frames, rows, columns)).flatten(0, 1).contiguous()


def _onednn_linear(patches: Tensor, p: _Problem) -> Callable[[], Tensor]:
    """oneDNN's own product, whichever library torch would choose for F.linear."""
    if not torch.backends.mkldnn.is_available():
        raise Unavailable("this torch is built without oneDNN")
    weight, bias = p.weight.detach().flatten(1), None if p.bias is None else p.bias.detach()
    call = lambda: torch.ops.mkldnn._linear_pointwise(patches, weight, bias, "none", [], "")  # noqa: E731
    try:
        call()
    except RuntimeError as error:
        raise Unavailable(f"oneDNN refuses the product: {str(error).splitlines()[0]}") from error
    return call


def _packed_contenders(p: _Problem, measured: Callable[[Callable[[], Tensor]], Call]) -> tuple[Factories, Factories]:
    kernel = p.weight.shape[1:]
    weight = p.weight if p.weight.dim() == 5 else p.weight.unsqueeze(2)

    def finish(tokens: Tensor) -> Tensor:
        return tokens if p.position is None else tokens + p.position

    def conv3d() -> Tensor:
        """As Qwen2-VL embeds its patches: a convolution whose output is one number a channel."""
        x = p.pixels.view(-1, *kernel) if p.weight.dim() == 5 else p.pixels.view(-1, *kernel).unsqueeze(2)
        return finish(F.conv3d(x, weight, p.bias, stride=weight.shape[2:]).flatten(1))

    def linear() -> Tensor:
        return finish(F.linear(p.pixels, p.weight.flatten(1), p.bias))

    return {"conv3d": lambda: measured(conv3d), "linear": lambda: measured(linear)}, {
        "onednn": lambda: measured(_onednn_linear(p.pixels, p))
    }


def patch_workload(shape: Shape) -> Workload:
    return Workload(
        name=shape["name"],
        operation="patch_embed",
        shape=shape,
        prepare=_prepare,
        passes=("forward", "backward"),
        flops=patch_flops,
        peers=PACKED_PEERS if "packed" in shape else IMAGE_PEERS,
        default_peers=("conv3d", "linear") if "packed" in shape else ("unfused", "linear"),
    )


def patch_workloads() -> list[Workload]:
    return [patch_workload(shape) for shape in load_shapes()["patch_embed"]]
