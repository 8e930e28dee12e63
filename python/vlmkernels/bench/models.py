"""Whole vision towers of transformers with random weights, from uint8 pixels to the pooled feature: with our patch embedding and attention put in, as they are (sdpa),
and in the runtimes people deploy them with."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from vlmkernels.bench.shapes import Shape, load_shapes
from vlmkernels.bench.workload import Call, Prepared, Unavailable, Workload
from vlmkernels.ops.attention import attention
from vlmkernels.ops.patch_embed import patch_embed

__all__ = ["model_workload", "model_workloads", "tower_flops"]

PEERS = ("transformers", "compile", "onnxruntime", "openvino")
FORMULA = (
    "FLOP = products of the blocks (2 S (4 W^2 + 2 W H) + 4 S^2 W a layer) and of the patch embedding, a tower of width W, "
    "hidden width H and S tokens; bytes = weights once"
)
MEAN, STD = (0.48, 0.46, 0.41), (0.27, 0.26, 0.28)


def tower_flops(shape: Shape, run_pass: str = "forward") -> float:
    patches = (shape["image"] // shape["patch"]) ** 2
    tokens, width = patches + (shape["family"] == "clip"), shape["width"]
    layer = 2 * tokens * (4 * width**2 + 2 * width * shape["hidden"]) + 4 * tokens**2 * width
    return float(shape["B"] * (shape["depth"] * layer + 2 * patches * 3 * shape["patch"] ** 2 * width))


class _Tower(nn.Module):
    """uint8 pixels to the pooled feature."""

    mean: Tensor
    std: Tensor

    def __init__(self, tower: nn.Module, fused: bool) -> None:
        super().__init__()
        self.tower, self.fused = tower, fused
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1))

    def forward(self, pixels: Tensor) -> Tensor:
        if not self.fused:
            dtype = next(self.tower.parameters()).dtype
            pixels = ((pixels.to(self.mean.dtype) / 255 - self.mean) / self.std).to(dtype)
        return self.tower(pixels).pooler_output  # type: ignore[no-any-return]


class _FusedEmbeddings(nn.Module):
    """The embeddings of a tower of transformers as one call of patch_embed."""

    def __init__(self, embeddings: Any) -> None:
        super().__init__()
        self.projection = embeddings.patch_embedding
        self.position = embeddings.position_embedding
        self.prefix = getattr(embeddings, "class_embedding", None)

    def forward(self, pixels: Tensor, interpolate_pos_encoding: bool = False) -> Tensor:
        return patch_embed(
            pixels,
            self.projection.weight,
            self.projection.bias,
            position=self.position.weight,
            prefix=None if self.prefix is None else self.prefix[None],
            mean=MEAN,
            std=STD,
        )


def _our_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float | None = None, **_: Any
) -> tuple[Tensor, None]:  # fmt: skip
    return attention(query, key, value, mask=mask, scale=scaling).transpose(1, 2), None


def _transformers_tower(shape: Shape, implementation: str) -> nn.Module:
    if importlib.util.find_spec("transformers") is None:
        raise Unavailable("transformers is not installed")
    import transformers

    sizes = {
        "hidden_size": shape["width"],
        "intermediate_size": shape["hidden"],
        "num_hidden_layers": shape["depth"],
        "num_attention_heads": shape["heads"],
        "image_size": shape["image"],
        "patch_size": shape["patch"],
    }
    config: Any
    make: Any
    if shape["family"] == "clip":
        config, make = transformers.CLIPVisionConfig(**sizes), transformers.CLIPVisionModel
    else:
        config, make = transformers.SiglipVisionConfig(**sizes), transformers.SiglipVisionModel
    transformers.AttentionInterface.register("vlmkernels", _our_attention)
    config._attn_implementation = implementation
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make(config).eval()  # type: ignore[no-any-return]


def _with_our_kernels(shape: Shape, tower: nn.Module) -> nn.Module:
    """The same weights in a tower that runs on our operators."""
    ours = _transformers_tower(shape, "vlmkernels")
    ours.load_state_dict(tower.state_dict(), assign=True)
    for module in ours.modules():
        for name, child in module.named_children():
            if name == "embeddings":
                setattr(module, name, _FusedEmbeddings(child))
    return ours


def _prepare(shape: Shape, dtype: torch.dtype, run_pass: str) -> Prepared:
    g = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (shape["B"], 3, shape["image"], shape["image"]), dtype=torch.uint8, generator=g)
    tower = _transformers_tower(shape, "sdpa").to(dtype).requires_grad_(False)
    plain = _Tower(tower, fused=False).eval()

    def measured(module: Callable[[Tensor], Tensor]) -> Call:
        return torch.no_grad()(lambda: (module(pixels),))

    def exact() -> tuple[Tensor, ...]:
        wide = _Tower(_transformers_tower(shape, "sdpa"), fused=False).double().eval()
        wide.tower.load_state_dict(tower.state_dict())
        with torch.no_grad():
            return (wide(pixels[:1]),)

    return Prepared(
        ours=lambda: measured(_Tower(_with_our_kernels(shape, tower), fused=True).eval()),
        peers={
            "transformers": lambda: measured(plain),
            "compile": lambda: measured(torch.compile(plain, dynamic=False)),
            "onnxruntime": lambda: _onnxruntime(plain, pixels, dtype),
            "openvino": lambda: _openvino(plain, pixels, dtype),
        },
        exact=exact,
        outputs=("feature",),
        yardstick="transformers",
        flops=tower_flops(shape),
        bytes=float(sum(p.numel() * p.element_size() for p in tower.parameters())),
        formula=FORMULA,
        sample=lambda outputs: (outputs[0][:1],),
        items=shape["B"],
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Exporters remark on every operator and branch they trace."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)


def _onnxruntime(module: nn.Module, pixels: Tensor, dtype: torch.dtype) -> Call:
    if dtype == torch.bfloat16:
        raise Unavailable("the CPU provider of ONNX Runtime has no bfloat16")
    for package in ("onnxruntime", "onnx", "onnxscript"):
        if importlib.util.find_spec(package) is None:
            raise Unavailable(f"{package} is not installed")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    with tempfile.TemporaryDirectory() as folder, _quiet():
        path = os.path.join(folder, "tower.onnx")
        torch.onnx.export(module, (pixels,), path, dynamo=True, external_data=True, verbose=False)
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name, array = session.get_inputs()[0].name, pixels.numpy()
    return lambda: (torch.from_numpy(session.run(None, {name: array})[0]),)


def _openvino(module: nn.Module, pixels: Tensor, dtype: torch.dtype) -> Call:
    if importlib.util.find_spec("openvino") is None:
        raise Unavailable("openvino is not installed")
    import openvino

    core = openvino.Core()
    capability = {torch.float32: "FP32", torch.bfloat16: "BF16", torch.float16: "FP16"}[dtype]
    if capability not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise Unavailable(f"OpenVINO computes no {capability} on this processor")
    precision = {"FP32": "f32", "BF16": "bf16", "FP16": "f16"}[capability]
    settings = {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"}  # fmt: skip
    with _quiet():
        model = core.compile_model(openvino.convert_model(module, example_input=pixels), "CPU", settings)
    array = pixels.numpy()
    return lambda: (torch.from_numpy(model(array)[0]),)


def model_workload(shape: Shape) -> Workload:
    return Workload(
        name=shape["name"],
        operation="model",
        shape=shape,
        prepare=_prepare,
        passes=("forward",),
        flops=tower_flops,
        peers=PEERS,
        default_peers=("transformers", "onnxruntime", "openvino"),
        dtypes=(torch.float32, torch.bfloat16),
    )


def model_workloads() -> list[Workload]:
    return [model_workload(shape) for shape in load_shapes()["model"]]
