from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from vlmkernels import images
from vlmkernels.cli.main import main


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "vlmkernels", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )


def test_info(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info"]) == 0
    assert "attention in float32" in capsys.readouterr().out
    assert main(["info", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["operators"]["attention"]["float64"]["backend"] == "reference"
    assert "float64" in found["operators"]["attention"]["float64"]["not"]["cpu"][0]


@pytest.mark.parametrize("failure", ["raise ImportError('gone')", "raise OSError('libtorch_cpu.so: broken')"])
def test_info_without_torch(tmp_path: Path, failure: str) -> None:
    (tmp_path / "torch.py").write_text(failure)
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    found = run("info", PYTHONPATH=path)
    assert found.returncode == 0, found.stderr
    assert failure.split("'")[1] in found.stdout
    assert json.loads(run("info", "--json", PYTHONPATH=path).stdout)["torch"]["error"]
    code = "import vlmkernels\ntry: vlmkernels.attention\nexcept ImportError as e: print(e)"
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path}
    )
    assert "needs torch" in out.stdout


def test_wrong_instruction_set_is_explained(native) -> None:
    found = run("info", VLMKERNELS_CPU_ISA="sse9")
    assert found.returncode == 0
    assert "VLMKERNELS_CPU_ISA" in found.stdout


def test_verify_quick(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "--quick"]) == 0
    out = capsys.readouterr().out
    assert "0 failures" in out
    assert "seed 0" in out


def test_verify_fails_on_a_wrong_result(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from vlmkernels.verify import grid

    right = grid.patch_embed
    monkeypatch.setattr(
        grid, "patch_embed", lambda **kw: right(**kw) * (1.0 if kw["weight"].dtype == torch.float64 else 1.01)
    )
    assert main(["verify", "--quick"]) == 1
    assert "FAILED" in capsys.readouterr().out


def test_help_names_every_command() -> None:
    out = run("--help").stdout
    assert all(word in out for word in ("info", "verify", "profile", "bench", "demo"))


def test_info_says_why_cuda_is_not_used(capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(run("info", "--json", VLMKERNELS_LIBCUDA="/nowhere/libcuda.so.1").stdout)["cuda"]
    assert any("no NVIDIA driver" in why for why in found["not used"])
    assert [image["name"] for image in found["kernels"]] == [image.name for image in images.images()]
    assert main(["info"]) == 0
    out = capsys.readouterr().out
    assert ("merge_attention/merge: 18 kernels, machine code for sm_80, sm_86" in out) == bool(images.images())


needs_emulator = pytest.mark.skipif(
    bool(images.missing("merge_attention")), reason=images.missing("merge_attention") or "kernels are there"
)


@needs_emulator
def test_verify_on_the_emulator(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "--quick", "--backend", "emulator"]) == 0
    out = capsys.readouterr().out
    assert "0 failures" in out
    assert "merge_attention     bfloat16" in out
    assert "contrastive_loss    bfloat16" in out
    assert "sigmoid_loss        float32" in out


@needs_emulator
def test_profile(capsys: pytest.CaptureFixture[str]) -> None:
    """Both launches, with figures; the forward kernel reads whole sectors and nothing else."""
    assert main(["profile", "merge_attention", "--seqlen", "33", "--head-dim", "72", "--backward"]) == 0
    out = capsys.readouterr().out
    assert "merge_forward_bfloat16_8x16: grid 17 x 1 x 1, block 128 x 1 x 1" in out
    assert "merge_backward_bfloat16_8x16" in out


def test_profile_needs_kernels(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(images, "OPERATIONS", {})
    assert main(["profile", "merge_attention"]) == 1
    assert "cannot be profiled: there is no CUDA kernel" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["demo", "--steps", "0"], ["demo", "--task", "digits", "--query", "x"]])
def test_demo_refuses_what_makes_no_sense(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert "--" in capsys.readouterr().err
