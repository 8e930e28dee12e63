"""What the package ships: every kernel for every architecture, with PTX that belongs to it."""

from __future__ import annotations

import re

import pytest

from vlmkernels import backends, images

found = images.images()
pytestmark = pytest.mark.skipif(not found, reason="this build has no CUDA kernels")


@pytest.mark.parametrize("image", found, ids=lambda i: i.name)
def test_architectures(image: images.Image) -> None:
    assert image.machine_code == (80, 86, 89, 90, 120)
    assert image.ptx == (80,)
    assert image.ptx_version == "9.0" or image.ptx_version.startswith("9.")


@pytest.mark.parametrize("image", found, ids=lambda i: i.name)
def test_ptx_names_sources_of_the_project(image: images.Image) -> None:
    """Source lines, but no folder of the machine it was built on."""
    text = (images.FOLDER / f"{image.name}.ptx").read_text()
    names = re.findall(r'^\s*\.file\s+\d+\s+"([^"]+)"', text, re.MULTILINE)
    assert any(name.startswith("csrc/") for name in names)
    assert re.search(r"^\s*\.loc\s", text, re.MULTILINE)
    assert image.kernels


def test_every_kernel_of_a_plan_is_there() -> None:
    kernels = {kernel for image in found for kernel in image.kernels}
    expected = {
        f"merge_{direction}_{dtype}_{tile}"
        for direction in ("forward", "backward")
        for dtype in ("float32", "bfloat16", "float16")
        for tile in ("8x16", "32x16", "32x0")
    }
    assert expected <= kernels


def test_missing_says_how_to_get_them(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    assert images.missing("merge_attention") == ""
    assert "no CUDA kernel for convolution" in images.missing("convolution")
    monkeypatch.setattr(images, "FOLDER", tmp_path)
    assert "VLMKERNELS_CUDA=ON" in images.missing("merge_attention")


@pytest.mark.skipif(backends.native is None, reason=backends.native_error)
def test_both_sides_look_in_the_same_folder() -> None:
    from pathlib import Path

    assert Path(backends.native.image_folder()).resolve() == images.FOLDER.resolve()


@pytest.mark.parametrize("image", found, ids=lambda i: i.name)
def test_resources_are_known_of_all_machine_code(image: images.Image) -> None:
    resources = images.resources(image.name)
    assert set(resources) == {(kernel, arch) for kernel in image.kernels for arch in image.machine_code}
    assert all(0 < r.registers <= 255 and r.static_shared_bytes <= 48 * 1024 for r in resources.values())
    assert images.resources("nothing/here") == {}
