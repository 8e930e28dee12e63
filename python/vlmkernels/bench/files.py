"""Results as files: JSON whole, CSV a line a contender."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from vlmkernels.bench.suite import SCHEMA

__all__ = ["read_json", "write_csv", "write_json"]

_COLUMNS = (
    "operation", "workload", "pass", "dtype", "threads", "contender", "kind", "median_s", "q1_s", "q3_s", "samples", "ratio_to_ours",
    "flops_per_second", "bytes_per_second", "ceiling", "share", "match_passed", "match_share", "memory_bytes", "missing", "note", "command",
)  # fmt: skip


def write_json(result: dict[str, Any], path: Path) -> None:
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """A result written by :func:`write_json`.

    Raises:
        ValueError: for anything else, and for another version of the format.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ValueError(f"there is no file {path}") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not JSON ({error}); give a file written by vlmkernels bench --json") from error
    if not isinstance(found, dict) or found.get("schema") != SCHEMA:
        schema = found.get("schema") if isinstance(found, dict) else None
        raise ValueError(f"{path} has schema {schema}, and this version reads {SCHEMA}: measure again with vlmkernels bench --json")  # fmt: skip
    return found


def write_csv(result: dict[str, Any], path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(_COLUMNS)
        for row in result["rows"]:
            for name, found in row["contenders"].items():
                times, match, ceiling = found.get("times") or {}, found.get("match") or {}, row.get("ceiling") or {}
                writer.writerow(
                    [
                        *(row[key] for key in ("operation", "workload", "pass", "dtype", "threads")),
                        name,
                        found["kind"],
                        *(times.get(key) for key in ("median", "q1", "q3", "samples")),
                        *(found.get(key) for key in ("ratio", "flops_per_second", "bytes_per_second")),
                        ceiling.get("name"),
                        found.get("share"),
                        match.get("passed"),
                        match.get("share"),
                        found.get("memory_bytes"),
                        found.get("missing"),
                        row["note"],
                        row["command"],
                    ]
                )
