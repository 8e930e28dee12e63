"""Every kind of fault, committed by a kernel and caught at the line that commits it."""

from __future__ import annotations

import numpy as np
import pytest
from ptx_kernels import compile_cuda, emulator, kernel, line_of, needs_nvcc


def launch(body: str, *args: np.ndarray, block: int = 32, **options: object):
    text = kernel(body, max(len(args), 1), declarations=".extern .shared .align 16 .b8 cell[];")
    args = args or (np.zeros(32, np.uint32),)
    report = emulator.load(text).launch("k", 1, block, list(args), shared_bytes=1024, **options)
    return text, report


def caught(body: str, kind: str, *args: np.ndarray, mark: str = "//!", **options: object):
    text, report = launch(body, *args, **options)
    found = [f for f in report.findings if f.kind == kind and f.ptx_line == line_of(text, mark)]
    assert found, report.summary()
    assert f"PTX line {found[0].ptx_line}" in str(found[0])
    return found[0], report


def test_global_out_of_bounds() -> None:
    out = np.zeros(20, np.uint32)
    finding, _ = caught("mad.wide.u32 %at, %tid, 4, %p0;\nst.global.u32 [%at], %tid; //!", "out_of_bounds_global", out)
    assert finding.occurrences == 12
    assert finding.thread == (20, 0, 0)
    assert "byte 80 of 'args[0]', which has 80" in finding.message
    assert np.array_equal(out, np.arange(20)), "what was in bounds has been written"
    finding, _ = caught("ld.global.u32 %r0, [%p0+-4]; //!", "out_of_bounds_global", out)
    assert "4 bytes before 'args[0]'" in finding.message


def test_read_only_memory() -> None:
    table = np.zeros(32, np.uint32)
    table.flags.writeable = False
    finding, _ = caught("st.global.u32 [%p0], %tid; //!", "out_of_bounds_global", table)
    assert "may only be read" in finding.message


def test_out_of_bounds_loads_give_poison() -> None:
    out = np.zeros(1, np.float32)
    launch("ld.global.f32 %f0, [%p0+400];\nst.global.f32 [%p0], %f0;", out)
    assert np.isnan(out[0])


def test_shared_out_of_bounds() -> None:
    caught("shl.b32 %r0, %tid, 6;\nst.shared.u32 [%r0], %tid; //!", "out_of_bounds_shared")
    caught("mov.u32 %r0, 1020;\nld.shared.v2.u32 {%r1, %r2}, [%r0+4]; //!", "out_of_bounds_shared")


def test_local_out_of_bounds() -> None:
    body = ".local .align 4 .b8 stack[64];\nmov.u64 %d0, stack;\nmul.wide.u32 %d1, %tid, 4;\nadd.s64 %d0, %d0, %d1;\nst.local.u32 [%d0], %tid; //!"
    finding, _ = caught(body, "out_of_bounds_local")
    assert finding.thread == (16, 0, 0)


def test_misaligned() -> None:
    caught("ld.global.v2.u32 {%r0, %r1}, [%p0+4]; //!", "misaligned", np.zeros(64, np.uint64))
    caught("mov.u32 %r0, 2;\nst.shared.u32 [%r0], %tid; //!", "misaligned")


def test_uninitialised_shared() -> None:
    body = "shl.b32 %r0, %tid, 2;\nsetp.ne.u32 %q0, %tid, 3;\n@%q0 st.shared.u32 [%r0], %tid;\nld.shared.u32 %r1, [%r0]; //!"
    finding, _ = caught(body, "uninitialised_shared")
    assert finding.thread == (3, 0, 0)
    assert finding.occurrences == 1


RACE = """
    shl.b32 %r0, %tid, 2;
    st.shared.u32 [%r0], %tid; //write
    BARRIER
    xor.b32 %r1, %r0, 128;
    ld.shared.u32 %r2, [%r1]; //read
    SECOND
    st.shared.u32 [%r0], %r2; //again
"""


@pytest.mark.parametrize("schedule", ["round_robin", "random"])
def test_race_between_warps(schedule: str) -> None:
    options = {"block": 64, "schedule": schedule}
    fixed = RACE.replace("BARRIER", "bar.sync 0;").replace("SECOND", "bar.sync 0;")
    assert not launch(fixed, **options)[1].findings
    text, report = launch(RACE.replace("BARRIER", "").replace("SECOND", "bar.sync 0;"), **options)
    kinds = {f.kind for f in report.findings}
    assert "shared_race" in kinds or "uninitialised_shared" in kinds
    missing = RACE.replace("BARRIER", "bar.sync 0;").replace("SECOND", "")
    text, report = launch(missing, **options)
    assert any(
        f.kind == "shared_race" and f.ptx_line in (line_of(text, "//again"), line_of(text, "//read"))
        for f in report.findings
    ), report.summary()


def test_race_within_a_warp() -> None:
    body = (
        "shl.b32 %r0, %tid, 2;\nst.shared.u32 [%r0], %tid;\nSYNC\nxor.b32 %r1, %r0, 4;\nld.shared.u32 %r2, [%r1]; //!"
    )
    caught(body.replace("SYNC", ""), "shared_race")
    assert not launch(body.replace("SYNC", "bar.warp.sync -1;"))[1].findings


def test_lanes_that_write_one_place() -> None:
    body = "mov.u32 %r0, 0;\nst.shared.u32 [%r0], VALUE; //!"
    caught(body.replace("VALUE", "%tid"), "shared_race")
    assert not launch(body.replace("VALUE", "7"))[1].findings, "the same value is no race"


def test_barrier_divergence() -> None:
    body = "setp.lt.u32 %q0, %tid, 16;\n@%q0 bra ELSE;\nbar.sync 0; //!\nbra.uni END;\nELSE:\nbar.sync 0;\nEND:"
    _, report = launch(body)
    assert any(f.kind == "barrier_divergence" for f in report.findings), report.summary()
    caught("setp.lt.u32 %q0, %tid, 32;\n@%q0 exit;\nbar.sync 0; //!", "barrier_divergence", block=64)


def test_deadlock() -> None:
    finding, report = caught("setp.lt.u32 %q0, %tid, 32;\n@%q0 bar.sync 1, 64; //!", "deadlock", block=64)
    assert not report.completed
    assert "32 of 64" in finding.message


def test_livelock() -> None:
    _, report = launch(
        "mov.u32 %r8, cell;\nsetp.eq.u32 %q0, %tid, 0;\n@%q0 mbarrier.init.shared.b64 [%r8], 33;\nbar.sync 0;\n"
        "mbarrier.arrive.shared.b64 _, [%r8];\nWAIT:\nmbarrier.try_wait.parity.shared.b64 %q1, [%r8], 0;\n@!%q1 bra WAIT;"
    )
    assert [f.kind for f in report.findings] == ["deadlock"]


def test_shuffle_with_a_wrong_mask() -> None:
    guard = "setp.lt.u32 %q0, %tid, 16;\n"
    # A lane that its own mask leaves out.
    caught("shfl.sync.bfly.b32 %r0, %tid, 1, 31, 0xFFFF; //!", "warp_mask")
    # A source that does not take part.
    finding, _ = caught(guard + "@%q0 shfl.sync.idx.b32 %r0, %tid, 20, 31, 0xFFFF; //!", "warp_mask")
    assert "lane 20" in finding.message


def test_shuffle_waits_for_lanes_that_do_not_come() -> None:
    body = """setp.lt.u32 %q0, %tid, 16;
    @%q0 bra LOW;
    shfl.sync.bfly.b32 %r0, %tid, 1, 31, -1;
    bra.uni END;
    LOW:
    vote.sync.any.pred %q1, %q0, -1; //!
    END:
    """
    finding, _ = caught(body, "warp_mask")
    assert "16 of 32 lanes" in finding.message


MMA = "mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%f0, %f1, %f2, %f3}, {%r0, %r1}, {%r2}, {%f4, %f5, %f6, %f7}; //!"


def test_mma_needs_the_whole_warp() -> None:
    caught(MMA, "warp_mask", block=16)
    caught("setp.ge.u32 %q0, %tid, 4;\n@%q0 bra ON;\nexit;\nON:\n" + MMA, "warp_mask")


COPY = """
    shl.b32 %r0, %tid, 4;
    mul.wide.u32 %d0, %tid, 16;
    add.s64 %d1, %p0, %d0;
    mov.u32 %r1, 5;
    st.shared.v4.u32 [%r0], {%r1, %r1, %r1, %r1};
    cp.async.cg.shared.global [%r0], [%d1], 16;
    cp.async.commit_group;
    WAIT
    ld.shared.u32 %r2, [%r0]; //!
    st.global.u32 [%d1], %r2;
"""


def test_missing_wait_gives_stale_data() -> None:
    x = np.full((32, 4), 9, np.uint32)
    caught(COPY.replace("WAIT", ""), "async_copy_in_flight", x)
    assert np.all(x[:, 0] == 5), "what was there before the copy"
    x = np.full((32, 4), 9, np.uint32)
    caught(COPY.replace("WAIT", "cp.async.wait_group 1;"), "async_copy_in_flight", x)
    x = np.full((32, 4), 9, np.uint32)
    assert not launch(COPY.replace("WAIT", "cp.async.wait_group 0;"), x)[1].findings
    assert np.all(x[:, 0] == 9)


def test_wait_without_barrier_is_a_race_for_others() -> None:
    body = COPY.replace("WAIT", "cp.async.wait_all;\nxor.b32 %r0, %r0, 512;")
    caught(body, "shared_race", np.zeros((64, 4), np.uint32), block=64)


def test_trap_and_no_checks() -> None:
    _, report = caught("trap; //!", "trap")
    assert not report.completed
    out = np.zeros(32, np.uint32)
    _, report = launch("mad.wide.u32 %at, %tid, 4, %p0;\nst.global.u32 [%at], %tid;", out, checks=False, counters=False)
    assert not report.findings
    assert np.array_equal(out, np.arange(32))


SOURCE = """
extern "C" __global__ void k(const float* x, float* out, int n) {
    __shared__ float tile[128];
    tile[threadIdx.x] = x[threadIdx.x];
    // a barrier is missing here
    float sum = tile[threadIdx.x] + tile[(threadIdx.x + 32) % blockDim.x];   // race
    out[threadIdx.x + n] = sum;                                              // bounds
}
"""


@needs_nvcc
def test_source_lines_of_compiled_kernels() -> None:
    module = emulator.load(compile_cuda(SOURCE))
    x, out = np.zeros(128, np.float32), np.zeros(128, np.float32)
    report = module.launch("k", 1, 128, [x, out, 64], schedule="random")
    lines = SOURCE.splitlines()
    for kind, mark in (("shared_race", "// race"), ("out_of_bounds_global", "// bounds")):
        found = [f for f in report.findings if f.kind == kind]
        assert found, report.summary()
        assert found[0].source_file.endswith("kernel.cu")
        assert mark in lines[found[0].source_line - 1] or kind == "shared_race"


ASSERT = '#include <cassert>\nextern "C" __global__ void k(int n) { assert(n < 5); }\n'


@needs_nvcc
def test_failed_assertion() -> None:
    module = emulator.load(compile_cuda(ASSERT))
    assert not module.launch("k", 1, 32, [4]).findings
    report = module.launch("k", 1, 32, [5])
    assert not report.completed
    assert "n < 5" in report.findings[0].message
