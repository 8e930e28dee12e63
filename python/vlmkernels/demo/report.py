"""report.html: one file that holds its pictures."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from pathlib import Path

__all__ = ["write_report"]

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
table { border-collapse: collapse; } td, th { padding: .25rem .9rem .25rem 0; text-align: left; border-bottom: 1px solid #ddd; }
img { max-width: 100%; } footer { margin-top: 3rem; color: #777; font-size: .85rem; }
"""


def write_report(
    path: Path,
    title: str,
    facts: Sequence[tuple[str, str]],
    pictures: Sequence[tuple[str, str, Path]],
    credit: str = "",
) -> Path:
    """`facts` are rows of a table; `pictures` are (heading, explanation, file)."""
    rows = "".join(f"<tr><th>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>" for name, value in facts)
    sections = "".join(
        f"<h2>{html.escape(heading)}</h2><p>{html.escape(text)}</p>"
        f'<img alt="{html.escape(heading)}" src="data:image/png;base64,{base64.b64encode(file.read_bytes()).decode()}">'
        for heading, text, file in pictures
    )
    path.write_text(
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title><style>{_STYLE}</style>'
        f"<h1>{html.escape(title)}</h1><table>{rows}</table>{sections}<footer>{html.escape(credit)}</footer></html>\n",
        encoding="utf-8",
    )
    return path
