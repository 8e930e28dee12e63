"""Measures everything the bars and the curves need on this machine, stores it under today's date in benchmarks/results (JSON and page), and renews the table of the
README. Takes hours on a small machine; it should be quiet.

    python benchmarks/record.py [options of vlmkernels bench, for example --threads 1,2]
"""

from __future__ import annotations

import datetime
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import readme_table
from vlmkernels.bench.files import read_json, write_json
from vlmkernels.bench.page import write_page
from vlmkernels.cli.main import main as vlmkernels

PARTS = (["--bars"], ["--scaling", "--dtype", "float32"], ["--op", "model", "--dtype", "float32"])


def merged(results: list[dict[str, Any]], command: str) -> dict[str, Any]:
    """The rows of all parts under the machine and the ceilings of the first; a row measured twice counts once."""
    seen: set[str] = set()
    rows = []
    for row in (row for result in results for row in result["rows"]):
        key = json.dumps([row[k] for k in ("operation", "workload", "pass", "dtype", "threads")] + ["sweep" in row])
        if key not in seen:
            seen.add(key)
            rows.append(row)
    return {**results[0], "command": command, "rows": rows, "ceilings_after": results[-1]["ceilings_after"]}


def main(options: list[str]) -> int:
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for number, part in enumerate(PARTS):
            path = Path(folder) / f"{number}.json"
            status = vlmkernels(["bench", *part, *options, "--json", str(path)])
            if not path.is_file():
                return status
            results.append(read_json(path))
    result = merged(results, " ".join(["python benchmarks/record.py", *options]))
    out = readme_table.ROOT / "benchmarks" / "results"
    out.mkdir(exist_ok=True)
    name = datetime.date.today().isoformat()
    write_json(result, out / f"{name}.json")
    write_page(result, out / f"{name}.html")
    readme_table.main()
    print(f"wrote {out / name}.json and .html, and the table of the README")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
