"""`vlmkernels`: what is installed, whether it computes right, how fast it is, what its CUDA kernels do, and a demonstration. `python -m vlmkernels` is the same."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import vlmkernels
from vlmkernels.cli.bench import add_bench, run_bench
from vlmkernels.cli.profile import add_profile_arguments

__all__ = ["main"]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="vlmkernels", description="Hand-written kernels for vision-language models.")
    parser.add_argument("--version", action="version", version=f"vlmkernels {vlmkernels.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="info | verify | profile | bench | demo")

    info = commands.add_parser(
        "info", help="versions, instruction sets, CUDA kernels and GPUs, and what each operator runs on"
    )
    info.add_argument("--json", action="store_true", help="print one JSON object")

    verify = commands.add_parser("verify", help="check every operator against float64 on this machine")
    verify.add_argument(
        "--quick", action="store_true", help="a handful of cases an operator (seconds instead of a minute)"
    )
    verify.add_argument("--seed", type=int, default=0, help="of the random inputs (default %(default)s)")
    verify.add_argument(
        "--backend", choices=("cpu", "cuda", "emulator", "reference"), help="check this one; the best by default"
    )

    profile = commands.add_parser(
        "profile", help="run an operator's CUDA kernels on the emulator and print what they issue, move and wait for"
    )
    add_profile_arguments(profile)

    add_bench(commands)

    demo = commands.add_parser("demo", help="train small models on real drawings and show what they learned")
    demo.add_argument(
        "--task",
        choices=("clip", "digits", "caption", "video"),
        default="clip",
        help="clip: image/caption retrieval; digits: classify scikit-learn's digits; caption: name drawings; video: classify motion (default %(default)s)",
    )
    demo.add_argument(
        "--query",
        action="append",
        default=[],
        metavar="TEXT",
        help="clip: show the best drawings for this text; may be repeated",
    )
    demo.add_argument("--backend", choices=("cpu", "reference"), help="train on this one; the best by default")
    demo.add_argument(
        "--seed",
        type=int,
        default=0,
        help="the same seed gives the same numbers on the same machine (default %(default)s)",
    )
    demo.add_argument(
        "--out",
        default="vlmkernels-demo",
        metavar="FOLDER",
        help="where pictures and report.html go (default %(default)s)",
    )
    demo.add_argument("--steps", type=int, help="training steps; the recipe's by default")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit status."""
    options = _parser().parse_args(arguments)
    if options.command == "info":
        from vlmkernels.cli.info import run_info

        return run_info(options.json)
    if options.command == "verify":
        from vlmkernels.cli.verify import run_verify

        return run_verify(options.quick, options.seed, options.backend)
    if options.command == "bench":
        return run_bench(options, sys.argv[1:] if arguments is None else arguments)
    if options.command == "profile":
        from vlmkernels.cli.profile import run_profile

        return run_profile(options)
    from vlmkernels.cli.demo import run_demo

    return run_demo(options)
