"""`vlmkernels bench`."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

__all__ = ["add_bench", "run_bench"]

_DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
_OPERATIONS = ("attention", "patch_embed", "contrastive", "model", "host")
_PASSES = ("forward", "backward", "forward+backward", "all")


def add_bench(commands: Any) -> None:
    """Adds the parser of the command."""
    bench = commands.add_parser(
        "bench",
        help="measure speed and memory against the machine's ceilings and PyTorch's own ways",
        description="Measures named workloads of real models. Ours and every peer take turns in one process; results are held against float64, and none that fails shows a speed.",
    )
    what = bench.add_argument_group("what to measure")
    what.add_argument(
        "names", nargs="*", help="workloads (see --list); without any, all of --op, or all but the models"
    )
    what.add_argument("--op", choices=_OPERATIONS, help="one operation")
    what.add_argument(
        "--pass", dest="passes", type=_words, default=[], metavar="P,P",
        help="of forward, backward, forward+backward, all; by default forward+backward for losses and forward for the rest",
    )  # fmt: skip
    what.add_argument("--dtype", type=_words, default=[], metavar="D,D", help="of float32 (fp32), bfloat16 (bf16), float16 (fp16); by default the first two")  # fmt: skip
    what.add_argument("--threads", type=_words, default=[], metavar="N,N", help="numbers of threads; by default 1 and all cores")  # fmt: skip
    what.add_argument("--peers", type=_words, default=["default"], metavar="P,P", help="names (see --list), default, all or none")  # fmt: skip
    what.add_argument("--scaling", nargs="?", const="all", choices=("S", "B", "threads", "all"), metavar="AXIS", help="sweep S, B, threads or all, and show what doubling a size costs")  # fmt: skip
    what.add_argument("--bars", action="store_true", help="measure what the bars need and show which are met; with names or --op, the bars those can tell")  # fmt: skip
    what.add_argument("--static", action="store_true", help="measure nothing: the CUDA kernels' plans, instructions, traffic, occupancy and waves on several GPUs, beside FlashAttention-2's tile rule; needs no GPU (default: every row, all passes, bf16)")  # fmt: skip
    how = bench.add_argument_group("how to measure")
    how.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where; auto is the GPU, if torch sees one and the kernels run on it, for attention, patch embedding and losses (default %(default)s)")  # fmt: skip
    how.add_argument("--batch", type=int, default=0, metavar="N", help="on a GPU: this batch for attention and images instead of the shapes' own")  # fmt: skip
    how.add_argument("--full", action="store_true", help="keep every batch whole, however long a call takes")
    how.add_argument("--seconds", type=float, default=1.0, help="a call of ours may take about this long before the batch is scaled down (default %(default)s)")  # fmt: skip
    how.add_argument("--samples", type=int, default=10, help="at least this many of every contender, fewer where a round of calls takes seconds (default %(default)s)")  # fmt: skip
    how.add_argument("--memory", choices=("auto", "all", "none"), default="auto", help="peak extra memory in a fresh process: of the losses (auto), of everything or nothing")  # fmt: skip
    show = bench.add_argument_group("what to show")
    show.add_argument("--json", type=Path, metavar="F", help="write everything as JSON")
    show.add_argument("--csv", type=Path, metavar="F", help="write a table, a line a contender")
    show.add_argument("--html", type=Path, metavar="F", help="write one self-contained page")
    show.add_argument("--from", dest="stored", type=Path, metavar="F", help="measure nothing: show a result stored with --json, with --bars, --csv or --html")  # fmt: skip
    show.add_argument("--compare", nargs=2, type=Path, metavar=("OLD", "NEW"), help="measure nothing: what changed beyond the noise between two stored results")  # fmt: skip
    show.add_argument("--list", action="store_true", help="the workloads, their shapes and peers")


def _words(text: str) -> list[str]:
    return [word for word in text.split(",") if word]


def run_bench(options: argparse.Namespace, arguments: Sequence[str]) -> int:
    """Measures or shows; 1 if a result of ours fails the accuracy rule, 2 for arguments that make no sense."""
    try:
        return _run(options, arguments)
    except ValueError as error:
        print(f"vlmkernels bench: {error}", file=sys.stderr)
        return 2


def _run(options: argparse.Namespace, arguments: Sequence[str]) -> int:
    from vlmkernels.bench.bars import bar_lines
    from vlmkernels.bench.compare import compare_lines
    from vlmkernels.bench.files import read_json
    from vlmkernels.bench.scaling import scaling_lines

    if options.compare:
        print("\n".join(compare_lines(*map(read_json, options.compare))))
        return 0
    if options.list:
        _list(options)
        return 0
    result = read_json(options.stored) if options.stored else None
    if options.static or (result is not None and result.get("kind") == "static"):
        return _static(options, arguments, result)
    result = result or _measure(options, arguments)
    if options.scaling:
        print("\n".join(["", *scaling_lines(result["rows"])]))
    if options.bars:
        print("\n".join(["", *bar_lines(result)]))
    _write(options, result)
    failed = [
        row["workload"]
        for row in result["rows"]
        if not row["contenders"]["ours"].get("match", {"passed": True})["passed"]
    ]
    if failed:
        print(f"results that fail the accuracy rule: {', '.join(dict.fromkeys(failed))}", file=sys.stderr)
    return 1 if failed else 0


def _static(options: argparse.Namespace, arguments: Sequence[str], stored: dict[str, Any] | None) -> int:
    """The report on the CUDA kernels that needs no GPU, made or shown."""
    import torch

    from vlmkernels.bench.catalog import select
    from vlmkernels.bench.static import run_static
    from vlmkernels.bench.static_words import missing_lines, static_lines

    if options.csv or options.bars or options.scaling:
        raise ValueError("--static has no --csv, --bars or --scaling; it writes --json and --html")
    if stored is not None and stored.get("kind") != "static":
        raise ValueError(f"{options.stored} is not a static report; leave --static out to show it")
    dtypes = _dtypes(options, ["bfloat16"])
    _known("--pass", options.passes, _PASSES)
    result = stored or run_static(
        select(options.names, options.op, gpu=True),
        tuple(getattr(torch, name) for name in dtypes),
        tuple(options.passes),
        _command(arguments),
        lambda line: print(line, flush=True),
        static_lines,
    )
    lines = [line for row in result["rows"] for line in static_lines(row)] if stored else []
    print("\n".join([*lines, *missing_lines(result)]))
    _write(options, result)
    return 0


def _list(options: argparse.Namespace) -> None:
    from vlmkernels.bench.catalog import all_workloads

    for workload in all_workloads():
        if options.op in (None, workload.operation) and (not options.names or workload.name in options.names):
            print(f"{workload.operation:<12}{workload.name:<26}{workload.describe()}")
            print(f"{'':<12}{'':<26}passes: {', '.join(workload.passes)}; peers: {', '.join(workload.peers)}")


def _measure(options: argparse.Namespace, arguments: Sequence[str]) -> dict[str, Any]:
    from vlmkernels.bench.catalog import select
    from vlmkernels.bench.jobs import bar_jobs, scaling_jobs
    from vlmkernels.bench.suite import run_suite

    gpu = _on_gpu(options)
    plan = _plan(options, gpu)
    selected = select(options.names, options.op, gpu)
    if gpu:
        from vlmkernels.bench.gpu_suite import run_gpu_suite

        gpu_jobs = [(workload, plan) for workload in selected]
        return run_gpu_suite(gpu_jobs, _command(arguments), lambda line: print(line, flush=True))
    if options.scaling:
        jobs = scaling_jobs(options.scaling, plan)
    elif options.bars:
        jobs = bar_jobs(plan)
    else:
        jobs = [(workload, plan) for workload in selected]
    if (options.scaling or options.bars) and (options.names or options.op):
        jobs = [
            (w, p) for w, p in jobs if options.op in (None, w.operation) and (not options.names or w.name in options.names)
        ]  # fmt: skip
    return run_suite(jobs, _command(arguments), lambda line: print(line, flush=True))


def _on_gpu(options: argparse.Namespace) -> bool:
    from vlmkernels.bench.catalog import all_workloads
    from vlmkernels.bench.gpu_suite import gpu_reasons

    cpu_only = options.bars or options.scaling or options.threads or options.op in ("model", "host")
    if options.device == "cuda" and cpu_only:
        raise ValueError("--device cuda has no --bars, --scaling, --threads, models or host overhead; those are of the CPU")  # fmt: skip
    if options.batch and (options.batch < 0 or cpu_only or options.device == "cpu"):
        raise ValueError("--batch is a positive number, for --device cuda")
    if options.device != "auto":
        return bool(options.device == "cuda")
    named = set(options.names) <= {w.name for w in all_workloads(gpu=True)}
    return named and not cpu_only and not gpu_reasons()


def _command(arguments: Sequence[str]) -> str:
    return "vlmkernels " + " ".join(shlex.quote(argument) for argument in arguments)


def _plan(options: argparse.Namespace, gpu: bool) -> Any:
    import torch

    from vlmkernels.bench.catalog import all_workloads
    from vlmkernels.bench.run import Plan
    from vlmkernels.bench.suite import default_threads
    from vlmkernels.bench.timing import Settings

    usual = ["bfloat16"] if gpu else ["float32", "bfloat16", "float16"] if options.bars else ["float32", "bfloat16"]
    dtypes = _dtypes(options, usual)
    _known("--pass", options.passes, _PASSES)
    peers = {name for workload in all_workloads() for name in workload.peers}
    _known("--peers", options.peers, ("default", "all", "none", *sorted(peers)))
    if not all(word.isdigit() and int(word) > 0 for word in options.threads):
        raise ValueError(f"--threads is {','.join(options.threads)}; give whole numbers from 1, as in --threads 1,2")
    cores = default_threads()
    threads = tuple(dict.fromkeys(int(word) for word in options.threads)) or (
        (1,)
        if gpu
        else tuple(range(1, min(2, cores[-1]) + 1))
        if options.bars
        else _doubled(cores[-1])
        if options.scaling
        else cores
    )
    if options.samples < 1 or options.seconds <= 0:
        raise ValueError("--samples must be at least 1 and --seconds more than 0")
    return Plan(
        dtypes=tuple(getattr(torch, name) for name in dtypes),
        threads=threads,
        passes=("all",) if "all" in options.passes else tuple(options.passes),
        peers=() if options.peers == ["none"] else tuple(options.peers),
        full=options.full,
        call_seconds=options.seconds,
        memory=options.memory,
        gpu=gpu,
        batch=options.batch,
        timing=Settings(samples=options.samples, slow_samples=min(3, options.samples)),
    )


def _dtypes(options: argparse.Namespace, default: list[str]) -> list[str]:
    """Names of torch's, each once."""
    names = [_DTYPES.get(name, name) for name in options.dtype or default]
    _known("--dtype", names, tuple(_DTYPES.values()))
    return list(dict.fromkeys(names))


def _known(option: str, given: list[str], choices: tuple[str, ...]) -> None:
    unknown = [word for word in given if word not in choices]
    if unknown:
        raise ValueError(f"{option} has no {', '.join(unknown)}; choose of {', '.join(choices)}")


def _doubled(cores: int) -> tuple[int, ...]:
    """1, 2, 4, ... and all cores."""
    return tuple(dict.fromkeys([*(2**i for i in range(cores.bit_length()) if 2**i <= cores), cores]))


def _write(options: argparse.Namespace, result: dict[str, Any]) -> None:
    from vlmkernels.bench.files import write_csv, write_json
    from vlmkernels.bench.page import write_page
    from vlmkernels.bench.static_page import write_static_page

    page = write_static_page if result.get("kind") == "static" else write_page
    for path, write in ((options.json, write_json), (options.csv, write_csv), (options.html, page)):
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            write(result, path)
            print(f"wrote {path}")
