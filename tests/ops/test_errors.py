"""Bad input: a clear exception that names the argument and the remedy, before any kernel runs; and no combination of arguments crashes the process."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import vlmkernels as vk


def t(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.zeros(*shape, dtype=dtype)


Q = t(2, 4, 5, 16)
K = t(2, 2, 6, 16)
CU = torch.tensor([0, 3, 5], dtype=torch.int32)

BAD = {
    "query not a tensor": (lambda: vk.attention([1], K, K), TypeError, "query"),
    "query rank": (lambda: vk.attention(t(4, 5, 16), K, K), ValueError, "query"),
    "dtype mix": (lambda: vk.attention(Q, K.half(), K), (TypeError, ValueError), "key|dtype"),
    "integer query": (lambda: vk.attention(Q.int(), K.int(), K.int()), TypeError, "query|dtype"),
    "head dim": (lambda: vk.attention(t(1, 1, 2, 12), t(1, 1, 2, 12), t(1, 1, 2, 12)), ValueError, "multiple of 8"),
    "head dim 264": (lambda: vk.attention(t(1, 1, 2, 264), t(1, 1, 2, 264), t(1, 1, 2, 264)), (ValueError, NotImplementedError), "256"),
    "head count": (lambda: vk.attention(t(2, 3, 5, 16), K, K), ValueError, "multiple"),
    "batch": (lambda: vk.attention(Q, t(3, 2, 6, 16), t(3, 2, 6, 16)), ValueError, "key|batch"),
    "value length": (lambda: vk.attention(Q, K, t(2, 2, 7, 16)), ValueError, "value"),
    "causal word": (lambda: vk.attention(Q, K, K, causal=True), (TypeError, ValueError), "causal"),
    "window": (lambda: vk.attention(Q, K, K, window=(-1, 2)), ValueError, "window"),
    "nan scale": (lambda: vk.attention(Q, K, K, scale=float("nan")), ValueError, "scale"),
    "softcap": (lambda: vk.attention(Q, K, K, softcap=0.0), ValueError, "softcap"),
    "mask shape": (lambda: vk.attention(Q, K, K, mask=torch.ones(2, 1, 4, 6, dtype=torch.bool)), ValueError, "mask"),
    "mask with gradient": (lambda: vk.attention(Q, K, K, mask=torch.zeros(5, 6, requires_grad=True)), (ValueError, NotImplementedError), "mask"),
    "dropout": (lambda: vk.scaled_dot_product_attention(Q, K, K, dropout_p=0.1), (ValueError, NotImplementedError), "dropout_p"),
    "cu_seqlens start": (lambda: vk.attention_varlen(t(5, 2, 8), t(5, 2, 8), t(5, 2, 8), CU + 1, CU), ValueError, "cu_seqlens_q"),
    "cu_seqlens decreasing": (lambda: vk.attention_varlen(t(5, 2, 8), t(5, 2, 8), t(5, 2, 8), torch.tensor([0, 4, 3], dtype=torch.int32), CU), ValueError, "cu_seqlens_q"),
    "cu_seqlens past the end": (lambda: vk.attention_varlen(t(4, 2, 8), t(5, 2, 8), t(5, 2, 8), CU, CU), ValueError, "cu_seqlens_q"),
    "cu_seqlens dtype": (lambda: vk.attention_varlen(t(5, 2, 8), t(5, 2, 8), t(5, 2, 8), CU.long(), CU), (TypeError, ValueError), "int32"),
    "visible without tokens": (lambda: vk.cross_attention(Q, K, K, visible=torch.ones(2, 5, 3, dtype=torch.bool)), ValueError, "tokens_per_tile"),
    "too few tiles": (lambda: vk.cross_attention(Q, K, K, visible=torch.ones(2, 5, 1, dtype=torch.bool), tokens_per_tile=4), ValueError, "visible|tiles"),
    "one padding": (lambda: vk.cross_attention(Q, K, K, query_padding=torch.ones(2, 5, dtype=torch.bool)), ValueError, "key_padding"),
    "pixels rank": (lambda: vk.patch_embed(t(3, 8, 8), t(4, 3, 2, 2)), ValueError, "pixels"),
    "pixels dtype": (lambda: vk.patch_embed(t(1, 3, 8, 8).half(), t(4, 3, 2, 2)), (TypeError, ValueError), "pixels"),
    "ambiguous layout": (lambda: vk.patch_embed(t(1, 3, 8, 3), t(4, 3, 2, 2)), ValueError, "layout"),
    "weight rank": (lambda: vk.patch_embed(t(1, 3, 8, 8), t(4, 12)), ValueError, "weight"),
    "position": (lambda: vk.patch_embed(t(1, 3, 8, 8), t(4, 3, 4, 4), position=t(3, 4)), ValueError, "position"),
    "prefix_at": (lambda: vk.patch_embed(t(1, 3, 8, 8), t(4, 3, 4, 4), prefix=t(1, 4), prefix_at="top"), ValueError, "prefix_at"),
    "order": (lambda: vk.patch_embed_packed(t(2, 12), t(4, 3, 2, 2), order="PCP"), ValueError, "order"),
    "packed width": (lambda: vk.patch_embed_packed(t(2, 13), t(4, 3, 2, 2), order="CPP"), ValueError, "patches"),
    "widths": (lambda: vk.contrastive_loss(t(2, 3), t(2, 4), 1.0), ValueError, "width"),
    "logit_scale": (lambda: vk.contrastive_loss(t(2, 3), t(2, 3), t(2)), ValueError, "logit_scale"),
    "nan logit_scale": (lambda: vk.contrastive_loss(t(2, 3), t(2, 3), float("inf")), ValueError, "logit_scale"),
    "more images": (lambda: vk.contrastive_loss(t(3, 3), t(2, 3), 1.0), ValueError, "label_offset"),
    "no labels": (lambda: vk.contrastive_loss(t(2, 3), t(2, 3), 1.0, labels=None), ValueError, "labels"),
    "label ids": (lambda: vk.sigmoid_loss(t(2, 3), t(2, 3), 1.0, 0.0, labels=t(2)), TypeError, "labels"),
    "smoothing": (lambda: vk.contrastive_loss(t(2, 3), t(2, 3), 1.0, label_smoothing=2.0), ValueError, "label_smoothing"),
    "reduction": (lambda: vk.sigmoid_loss(t(2, 3), t(2, 3), 1.0, 0.0, reduction="avg"), ValueError, "reduction"),
    "feature dtype": (lambda: vk.sigmoid_loss(t(2, 3), t(2, 3).half(), 1.0, 0.0), TypeError, "dtype"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named(name: str, backend: str) -> None:
    call, kind, words = BAD[name]
    with pytest.raises(kind, match=words):
        call()


sizes = st.integers(0, 9)
dtypes = st.sampled_from(
    [torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.int64, torch.uint8, torch.bool]
)


@st.composite
def tensors(draw, rank=None):
    """Any small tensor, often strided, sometimes not a tensor at all."""
    if draw(st.integers(0, 15)) == 0:
        return draw(st.sampled_from([None, 3, "x"]))
    dims = draw(st.integers(1, 5)) if rank is None or draw(st.integers(0, 9)) == 0 else rank
    shape = [draw(sizes) if draw(st.booleans()) else draw(st.sampled_from([1, 2, 8, 16])) for _ in range(dims)]
    made = torch.ones([n * 2 if i == 0 else n for i, n in enumerate(shape)])
    made = made[::2] if draw(st.booleans()) else made[: shape[0]]
    if draw(st.integers(0, 3)) == 0 and dims > 1:
        made = made.transpose(-1, -2)
    return made.to(draw(dtypes) if draw(st.integers(0, 3)) == 0 else torch.float32)


def survives(call) -> None:
    """Either a result or one of the promised exceptions."""
    try:
        call()
    except (ValueError, TypeError, NotImplementedError) as error:
        message = str(error)
    else:
        return
    assert message


fuzz = settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)


@fuzz
@given(tensors(4), tensors(4), tensors(4), st.one_of(st.none(), tensors(4), tensors(2)), st.sampled_from([None, "top_left", "bottom_right", "x", 1]),
       st.sampled_from([None, (1, 2), (None, 0), (-1, 0), 3]), st.sampled_from([None, 0.5, float("nan"), 0, "x"]))  # fmt: skip
def test_fuzz_attention(q, k, v, mask, causal, window, softcap):
    survives(lambda: vk.attention(q, k, v, mask=mask, causal=causal, window=window, softcap=softcap))


@fuzz
@given(
    tensors(4),
    tensors(4),
    st.one_of(st.none(), tensors(3)),
    st.sampled_from([None, 0, 1, 4, "x"]),
    st.one_of(st.none(), tensors(2)),
    st.one_of(st.none(), tensors(2)),
)
def test_fuzz_cross_attention(q, k, visible, per_tile, query_padding, key_padding):
    survives(
        lambda: vk.cross_attention(
            q, k, k, visible=visible, tokens_per_tile=per_tile, query_padding=query_padding, key_padding=key_padding
        )
    )


@fuzz
@given(tensors(3), tensors(3), st.lists(st.integers(-2, 12), max_size=4), st.lists(st.integers(-2, 12), max_size=4))
def test_fuzz_varlen(q, k, a, b):
    survives(
        lambda: vk.attention_varlen(q, k, k, torch.tensor(a, dtype=torch.int32), torch.tensor(b, dtype=torch.int32))
    )


@fuzz
@given(tensors(4), tensors(4), st.one_of(st.none(), tensors(1)), st.one_of(st.none(), tensors(2)), st.one_of(st.none(), tensors(2)),
       st.sampled_from([None, "BCHW", "BHWC", "BTCHW", "x"]), st.sampled_from([None, [0.5], [0.5] * 3, "x"]))  # fmt: skip
def test_fuzz_patch_embed(pixels, weight, bias, position, prefix, layout, std):
    survives(lambda: vk.patch_embed(pixels, weight, bias, position=position, prefix=prefix, layout=layout, std=std))
    survives(lambda: vk.patch_embed_packed(pixels, weight, bias, order="CPP", position=position))


@fuzz
@given(tensors(2), tensors(2), st.sampled_from([1.0, 0, float("nan"), None, "x", torch.ones(1), torch.ones(2)]),
       st.one_of(st.sampled_from(["diagonal", None, 3]), tensors(1)), st.integers(-3, 9), st.booleans())  # fmt: skip
def test_fuzz_losses(image, text, scale, labels, offset, normalize):
    survives(lambda: vk.contrastive_loss(image, text, scale, labels=labels, label_offset=offset, normalize=normalize))
    survives(lambda: vk.sigmoid_loss(image, text, scale, 0.0, labels=labels, label_offset=offset, normalize=normalize))
