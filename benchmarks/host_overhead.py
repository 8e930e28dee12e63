"""What a call costs before any arithmetic: our operators on tiny inputs against torch's own, interleaved in one process.

python benchmarks/host_overhead.py      (the same as `vlmkernels bench --op host`)
"""

from vlmkernels.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main(["bench", "--op", "host"]))
