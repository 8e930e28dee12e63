"""A bar while rows are made."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from collections.abc import Callable
from typing import Any

__all__ = ["Progress"]


class Progress(contextlib.AbstractContextManager["Progress"]):
    """By tqdm where it is installed and the error output is a terminal; else nothing but the rows."""

    def __init__(self, rows: int) -> None:
        self._bar: Any = None
        if importlib.util.find_spec("tqdm") is not None and sys.stderr.isatty():
            import tqdm

            self._bar = tqdm.tqdm(total=rows, unit="row", dynamic_ncols=True, file=sys.stderr)

    def tell(self, what: str) -> None:
        if self._bar is not None:
            self._bar.set_description(what)

    def write(self, write: Callable[[str], None], lines: list[str]) -> None:
        if self._bar is None:
            for line in lines:
                write(line)
            return
        with self._bar.external_write_mode(file=sys.stderr):
            for line in lines:
                write(line)
        self._bar.update(1)

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()
