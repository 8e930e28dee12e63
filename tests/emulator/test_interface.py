"""vlmkernels.emulator as Python sees it: modules, arguments, errors, reports."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from ptx_kernels import HEADER, elementwise, emulator, kernel


def test_module_describes_its_kernels() -> None:
    text = f"""{HEADER}
    .visible .entry first(.param .u64 first_0, .param .f32 first_1, .param .align 8 .b8 first_2[24])
    .maxntid 128, 2, 1
    {{ .shared .align 16 .b8 tile[100]; .reg .b32 %r0; mov.u32 %r0, tile; ret; }}
    .entry second() {{ ret; }}
    """
    module = emulator.load(text)
    assert list(module.kernels) == ["first", "second"]
    first = module.kernels["first"]
    assert [(p.name, p.type, p.offset, p.size) for p in first.parameters] == [
        ("first_0", "u64", 0, 8),
        ("first_1", "f32", 8, 4),
        ("first_2", "b8", 16, 24),
    ]
    assert (first.parameter_bytes, first.static_shared_bytes, first.max_threads) == (40, 100, 256)


def test_load_from_a_file(tmp_path) -> None:
    path = tmp_path / "some.ptx"
    path.write_text(kernel("", 1))
    assert emulator.load(path).name == "some"
    assert list(emulator.load(str(path)).kernels) == ["k"]
    with pytest.raises(FileNotFoundError, match=r"nothing\.ptx"):
        emulator.load(tmp_path / "nothing.ptx")


@pytest.mark.parametrize(
    ("body", "error", "message"),
    [
        ("frobnicate.b32 %r0, %r1;", NotImplementedError, "frobnicate"),
        ("add.sometimes.s32 %r0, %r1, %r2;", NotImplementedError, r"add\.sometimes\.s32.*'\.sometimes'"),
        ("add.s32 %r0, %r1, %r2, %r3;", NotImplementedError, "that many operands"),
        ("add.s32 %r0, %r1;", ValueError, "too few operands"),
        ("add.s64 %d0, %d1, %r2;", ValueError, "register of type b32 where .s64"),
        ("cp.async.bulk.shared::cluster.global [%r0], [%p0], 16;", NotImplementedError, r"cp\.async\.bulk"),
        ("barrier.cluster.arrive;", NotImplementedError, r"barrier\.cluster"),
        ("tex.2d.v4.f32.s32 {%f0, %f1, %f2, %f3}, [%r0, {%r1, %r2}];", NotImplementedError, "tensor addresses"),
        ("mov.u32 %r0, %pm0;", NotImplementedError, "%pm0"),
        ("st.global.u32 [nowhere], %r0;", ValueError, "unknown name 'nowhere'"),
    ],
)
def test_what_is_unknown_is_refused_when_loading(body: str, error: type, message: str) -> None:
    text = kernel(body, 1)
    line = next(i for i, content in enumerate(text.splitlines(), 1) if body in content)
    with pytest.raises(error, match=message) as caught:
        emulator.load(text)
    assert f"PTX line {line}" in str(caught.value)


def test_arguments() -> None:
    text = f"""{HEADER}
    .visible .entry k(.param .u64 k_0, .param .u32 k_1, .param .f32 k_2, .param .align 4 .b8 k_3[8], .param .u16 k_4)
    {{
    .reg .b64 %p; .reg .b32 %r<4>; .reg .f32 %f; .reg .b16 %h;
    ld.param.u64 %p, [k_0];
    ld.param.u32 %r0, [k_1];
    ld.param.f32 %f, [k_2];
    ld.param.v2.u32 {{%r1, %r2}}, [k_3];
    ld.param.u16 %h, [k_4];
    st.global.u32 [%p], %r0;
    st.global.f32 [%p+4], %f;
    st.global.v2.u32 [%p+8], {{%r1, %r2}};
    st.global.u16 [%p+16], %h;
    ret;
    }}
    """
    module = emulator.load(text)
    out = np.zeros(6, np.uint32)
    module.launch("k", 1, 1, [out, -1, 1.5, np.array([3, 4], np.uint32).tobytes(), 70]).raise_for_findings()
    assert list(out[[0, 2, 3, 4]]) == [2**32 - 1, 3, 4, 70]
    assert out.view(np.float32)[1] == 1.5
    good = [out, 1, 1.0, bytes(8), 2]
    for index, value, error, message in (
        (0, [1, 2], TypeError, r"args\[0\] must be a numpy array"),
        (1, 1.5, TypeError, r"args\[1\] is a float"),
        (1, 2**40, ValueError, r"args\[1\] = .* does not fit"),
        (1, out, TypeError, r"args\[1\] is an array"),
        (3, b"abc", ValueError, r"args\[3\] has 3 bytes; parameter 'k_3' has 8"),
    ):
        with pytest.raises(error, match=message):
            module.launch("k", 1, 1, [*good[:index], value, *good[index + 1 :]])
    with pytest.raises(ValueError, match="takes 5 arguments, got 1"):
        module.launch("k", 1, 1, [out])
    with pytest.raises(ValueError, match="no kernel 'other'; it has k"):
        module.launch("other", 1, 1, good)
    with pytest.raises(ValueError, match="2000"):
        module.launch("k", 1, 2000, good)
    with pytest.raises(ValueError, match="65535"):
        module.launch("k", (1, 70000), 1, good)
    with pytest.raises(ValueError, match="schedule"):
        module.launch("k", 1, 1, good, schedule="sorted")


def test_strided_views_are_bounded_allocations() -> None:
    module = emulator.load(kernel("mad.wide.u32 %at, %tid, 8, %p0;\nst.global.u32 [%at], %tid;", 1))
    whole = np.zeros(16, np.uint32)
    module.launch("k", 1, 4, [whole[2:9:2]]).raise_for_findings()
    assert list(whole) == [0, 0, 0, 0, 1, 0, 2, 0, 3] + [0] * 7
    assert module.launch("k", 1, 5, [whole[2:9:2]]).findings


def test_torch_tensors() -> None:
    torch = pytest.importorskip("torch")
    module = emulator.load(elementwise("add.f32 %res, %a, %a;", "f32", "f32"))
    x = torch.arange(32, dtype=torch.float32)
    out = torch.zeros(32)
    module.launch("k", 1, 32, [out, x]).raise_for_findings()
    assert torch.equal(out, 2 * x)


def test_counters_and_summary() -> None:
    text = kernel(
        """
        mov.u32 %r0, tile;
        shl.b32 %r1, %tid, 7;
        add.s32 %r2, %r0, %r1;
        st.shared.u32 [%r2], %tid;
        bar.sync 0;
        mul.wide.u32 %d0, %tid, 64;
        add.s64 %d1, %p0, %d0;
        ld.global.u32 %r3, [%d1];
        mul.wide.u32 %d0, %tid, 4;
        add.s64 %d1, %p0, %d0;
        st.global.u32 [%d1], %r3;
        """,
        1,
        declarations=".shared .align 4 .b8 tile[4096];",
    )
    room = np.zeros(1024 + 8, np.uint32)
    x = room[-(room.ctypes.data // 4) % 8 :][:1024]  # sectors begin at multiples of 32 bytes
    report = emulator.load(text).launch("k", 2, 32, [x])
    c = report.counters
    assert c["shared_store"] == {"bytes": 256, "wavefronts": 64, "ideal_wavefronts": 2}
    assert c["global_load"] == {"bytes": 256, "sectors": 64, "ideal_sectors": 8}
    assert c["global_store"] == {"bytes": 256, "sectors": 8, "ideal_sectors": 8}
    assert (c["blocks"], c["warps"], c["barriers"]) == (2, 2, 2)
    assert sum(c["by_class"].values()) == c["warp_instructions"]
    summary = report.summary()
    for part in ("2 blocks", "62 of them for bank conflicts", "8.00 of the ideal", "no findings"):
        assert part in summary, summary


def test_emulator_needs_no_torch() -> None:
    code = (
        "import sys; sys.modules['torch'] = None; from vlmkernels import emulator; import numpy as np;"
        f"m = emulator.load({kernel('st.global.u32 [%p0], 7;', 1)!r}); x = np.zeros(1, np.uint32);"
        "m.launch('k', 1, 1, [x]).raise_for_findings(); print(x[0])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "7"


def test_results_do_not_depend_on_host_threads() -> None:
    module = emulator.load(
        kernel("mad.lo.u32 %r0, %cta, 32, %tid;\nmad.wide.u32 %at, %r0, 4, %p0;\nst.global.u32 [%at], %r0;", 1)
    )
    for threads in (1, 2, 5):
        out = np.zeros(32 * 50, np.uint32)
        report = module.launch("k", 50, 32, [out], threads=threads)
        assert np.array_equal(out, np.arange(len(out)))
        assert report.counters["warp_instructions"] == 50 * 7
