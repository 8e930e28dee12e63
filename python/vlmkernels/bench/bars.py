"""The bars: what the CPU backend has set itself, evaluated on the rows of a result. A bar without the rows it needs, or on a machine without the instruction it is about,
says so and counts as neither met nor missed."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from vlmkernels.bench.scaling import doublings, series_of

__all__ = ["Bar", "bar_lines", "evaluate_bars"]

Row = dict[str, Any]

_MASKED = "llama32v-cross-masked"
_WINDOWS = "qwen25vl-window"


@dataclass(frozen=True)
class Bar:
    """`met` is None where nothing could be measured; `measured` then says why."""

    what: str
    condition: str
    limit: str
    measured: str
    met: bool | None


def evaluate_bars(result: dict[str, Any]) -> list[Bar]:
    bars = _Bars(result)
    return [
        *bars.attention_forward(),
        *bars.attention_backward(),
        *bars.packed_windows(),
        *bars.tile_visibility(),
        *bars.decoding(),
        *bars.patch_embedding(),
        *bars.losses(),
        *bars.scaling(),
        *bars.host_overhead(),
        *bars.avx2(),
    ]


def bar_lines(result: dict[str, Any]) -> list[str]:
    """The table as text."""
    machine = result["machine"]
    emulated = ", AVX-512 emulated: speeds mean nothing" if machine["emulated_avx512"] else ""
    bars = evaluate_bars(result)
    lines = [f"bars on {machine['processor']}, instruction set {machine['instruction_set']}{emulated}"]
    for bar in bars:
        verdict = {True: "met", False: "NOT MET", None: "-"}[bar.met]
        lines.append(f"{verdict:<8}{bar.what:<52}{bar.condition:<24}{bar.limit:<16}{bar.measured}")
    met, missed = (sum(bar.met is value for bar in bars) for value in (True, False))
    lines.append(f"{met} met, {missed} not met, {len(bars) - met - missed} not measurable or not measured here")
    return lines


def _geometric_mean(values: list[float]) -> float:
    return math.exp(sum(map(math.log, values)) / len(values))


class _Bars:
    def __init__(self, result: dict[str, Any]) -> None:
        self.rows: list[Row] = result["rows"]
        self.ceilings = result["ceilings"]
        self.isa = result["machine"]["instruction_set"]
        self.has_dot = any(found["bf16_dot"] for found in self.ceilings.values())
        self.threads = [t for t in (1, 2) if str(t) in self.ceilings]

    def find(self, operation: str, run_pass: str, dtype: str, threads: int, keep: Callable[[Row], bool] = lambda row: True) -> list[Row]:  # fmt: skip
        return [
            row
            for row in self.rows
            if (row["operation"], row["pass"], row["dtype"], row["threads"]) == (operation, run_pass, dtype, threads)
            and "sweep" not in row
            and keep(row)
        ]

    # --- what a row says ---

    def share(self, row: Row) -> float | None:
        """Of the ceiling of the row; of the bf16 dot product for bf16, also where tile registers raise the row's own."""
        value: float | None = row["contenders"]["ours"].get("share")
        rate, dot = row["contenders"]["ours"].get("flops_per_second"), self.ceilings[str(row["threads"])]["bf16_dot"]
        if row["dtype"] == "bfloat16" and row["bound"] == "compute" and rate and dot:
            return float(rate / dot)
        return value

    @staticmethod
    def times_faster(peer: str) -> Callable[[Row], float | None]:
        """Time of the peer over ours."""
        return lambda row: row["contenders"].get(peer, {}).get("ratio")

    @staticmethod
    def times_slower(part: str) -> Callable[[Row], float | None]:
        """Our time over that of the peer or part."""
        return lambda row: 1 / ratio if (ratio := row["contenders"].get(part, {}).get("ratio")) else None

    # --- how rows become a bar ---

    def share_at_least(self, what: str, condition: str, limit: float, rows: list[Row]) -> Bar:
        """The least share; with what it is of tile registers, where those are the row's own ceiling."""
        bar = self.at_least(what, condition, limit, rows, self.share, percent=True)
        tiles = [
            row["contenders"]["ours"]["share"]
            for row in rows
            if row["ceiling"]["name"] == "bf16 tiles" and self.share(row) is not None
        ]
        return (
            replace(bar, measured=f"{bar.measured}, {min(tiles):.0%} of tiles")
            if tiles and bar.met is not None
            else bar
        )

    def at_least(self, what: str, condition: str, limit: float, rows: list[Row], value: Callable[[Row], float | None], percent: bool = False, mean: bool = False) -> Bar:  # fmt: skip
        return self._bar(what, condition, limit, rows, value, percent, mean, True)

    def at_most(self, what: str, condition: str, limit: float, rows: list[Row], value: Callable[[Row], float | None]) -> Bar:  # fmt: skip
        return self._bar(what, condition, limit, rows, value, False, False, False)

    @staticmethod
    def _bar(what: str, condition: str, limit: float, rows: list[Row], value: Callable[[Row], float | None], percent: bool, mean: bool, least: bool) -> Bar:  # fmt: skip
        def show(number: float) -> str:
            return f"{number:.0%}" if percent else f"{number:.2f}"

        words = f"{'>=' if least else '<='} {show(limit)}"
        failed = [row["workload"] for row in rows if not row["contenders"]["ours"].get("match", {"passed": True})["passed"]]  # fmt: skip
        if failed:
            return Bar(what, condition, words, f"wrong results: {', '.join(failed)}", False)
        known = [(number, row["workload"]) for row in rows if (number := value(row)) is not None]
        if not known:
            return Bar(what, condition, words, "not measured", None)
        if mean:
            found = _geometric_mean([number for number, _ in known])
            text = f"{show(found)} over {len(known)} workloads"
        else:
            found, where = min(known) if least else max(known)
            text = f"{show(found)} ({where}{f', the worst of {len(known)}' if len(known) > 1 else ''})"
        return Bar(what, condition, words, text, found >= limit if least else found <= limit)

    def _needs_dot(self, what: str, condition: str, limit: str) -> Bar:
        return Bar(what, condition, limit, f"not measurable: {self.isa} has no bf16 dot product", None)

    # --- the bars ---

    @staticmethod
    def _dense(row: Row) -> bool:
        shape = row["shape"]
        return "Sq" in shape and row["bound"] == "compute" and row["workload"] != _MASKED

    def _long(self, row: Row) -> bool:
        return self._dense(row) and row["shape"]["Sk"] >= 577 and row["shape"]["Sq"] >= 64

    def _middle(self, row: Row) -> bool:
        return self._dense(row) and row["shape"]["Sq"] == row["shape"]["Sk"] and row["shape"]["Sk"] in (197, 257)

    def attention_forward(self) -> list[Bar]:
        shares = {
            ("bfloat16", 1): (0.80, 0.76, 0.66),
            ("bfloat16", 2): (0.75, 0.70, 0.58),
            ("float32", 1): (0.84, 0.76, 0.62),
            ("float32", 2): (0.84, 0.76, 0.62),
        }
        found = []
        for dtype, mean, least in (("bfloat16", 3.4, 2.6), ("float32", 1.6, 1.35)):
            for threads in self.threads:
                where = f"{dtype}, {threads} thread{'s' if threads > 1 else ''}"
                kinds = (("S >= 577", self._long), ("S 197, 257", self._middle), ("64-token windows", lambda row: row["workload"] == _WINDOWS))  # fmt: skip
                for (name, keep), limit in zip(kinds, shares[dtype, threads], strict=True):
                    what = f"attention forward, {name}, of the ceiling"
                    if dtype == "bfloat16" and not self.has_dot:
                        found.append(self._needs_dot(what, where, f">= {limit:.0%}"))
                        continue
                    rows = self.find("attention", "forward", dtype, threads, keep)
                    found.append(self.share_at_least(what, where, limit, rows))
                if dtype == "bfloat16" and not self.has_dot:
                    found.append(self._needs_dot("attention forward x torch SDPA", where, f"mean >= {mean}"))
                    continue
                rows = self.find("attention", "forward", dtype, threads, self._dense)
                faster = self.times_faster("sdpa")
                found.append(self.at_least("attention forward x torch SDPA, mean", where, mean, rows, faster, mean=True))  # fmt: skip
                found.append(self.at_least("attention forward x torch SDPA, least", where, least, rows, faster))
        for threads in self.threads:
            where = f"float16, {threads} thread{'s' if threads > 1 else ''}"
            rows = self.find("attention", "forward", "float16", threads, lambda row: self._long(row) or self._middle(row))  # fmt: skip
            found.append(self.share_at_least("attention forward, S >= 197, of FMA", where, 0.75, rows))
            rows = self.find("attention", "forward", "float16", threads, self._dense)
            found.append(self.at_least("attention forward x torch SDPA, mean", where, 3.0, rows, self.times_faster("sdpa"), mean=True))  # fmt: skip
        return found

    def attention_backward(self) -> list[Bar]:
        found = []
        for dtype, mean in (("bfloat16", 2.5), ("float32", 1.5)):
            for threads in self.threads:
                where = f"{dtype}, {threads} thread{'s' if threads > 1 else ''}"
                if dtype == "bfloat16" and not self.has_dot:
                    found.append(self._needs_dot("attention backward, S >= 577, of the ceiling", where, ">= 65%"))
                    found.append(self._needs_dot("attention forward+backward x torch", where, f"mean >= {mean}"))
                    continue
                rows = self.find("attention", "backward", dtype, threads, self._long)
                found.append(self.share_at_least("attention backward, S >= 577, of the ceiling", where, 0.65, rows))
                rows = self.find("attention", "forward+backward", dtype, threads, self._dense)
                faster = self.times_faster("sdpa")
                found.append(self.at_least("attention forward+backward x torch, mean", where, mean, rows, faster, mean=True))  # fmt: skip
                found.append(self.at_least("attention forward+backward x torch, least", where, 1.0, rows, faster))
        return found

    def _each(self, dtypes: tuple[str, ...]) -> list[tuple[str, int, str]]:
        return [(d, t, f"{d}, {t} thread{'s' if t > 1 else ''}") for d in dtypes for t in self.threads]

    def packed_windows(self) -> list[Bar]:
        found = []
        for dtype, threads, where in self._each(("bfloat16", "float32")):
            limit = 3.5 if dtype == "bfloat16" else 1.6
            if dtype == "bfloat16" and not self.has_dot:
                found.append(self._needs_dot("packed windows x the split loop", where, f">= {limit}"))
                continue
            rows = self.find("attention", "forward", dtype, threads, lambda row: row["workload"] == _WINDOWS)
            found.append(self.at_least("packed windows x the split loop", where, limit, rows, self.times_faster("split")))  # fmt: skip
        return found

    def tile_visibility(self) -> list[Bar]:
        found = []
        for dtype, threads, where in self._each(("bfloat16", "float32")):
            rows = self.find("attention", "forward", dtype, threads, lambda row: row["workload"] == _MASKED)

            def against_all(row: Row, contender: str = "ours") -> float | None:
                everything = row["contenders"].get("ours, all visible", {}).get("ratio")
                ratio = row["contenders"].get(contender, {}).get("ratio")
                return ratio / everything if everything and ratio else None

            found.append(self.at_least("tile visibility x torch with a dense mask", where, 4.0, rows, self.times_faster("sdpa")))  # fmt: skip
            # Half of the pairs are visible in this workload.
            found.append(self.at_most("half visible: share of the time of all", where, 0.55, rows, against_all))
            nothing = lambda row: against_all(row, "ours, none visible")  # noqa: E731
            found.append(self.at_most("none visible: share of the time of all", where, 0.02, rows, nothing))
        return found

    def decoding(self) -> list[Bar]:
        found = []
        for dtype, threads, where in self._each(("bfloat16", "float32")):
            rows = self.find("attention", "forward", dtype, threads, lambda row: row["workload"].startswith("llama32v-cross-decode"))  # fmt: skip
            found.append(self.at_least("decoding, Sq 1 to 8, of the read bandwidth", where, 0.80, rows, self.share, percent=True))  # fmt: skip
        return found

    def patch_embedding(self) -> list[Bar]:
        found = []
        for dtype, threads, where in self._each(("bfloat16", "float32")):
            rows = self.find("patch_embed", "forward", dtype, threads, lambda row: "packed" not in row["shape"])
            found.append(self.at_most("uint8 to tokens / F.linear alone", where, 1.1, rows, self.times_slower("linear")))  # fmt: skip
            rows = self.find("patch_embed", "forward", dtype, threads, lambda row: row["workload"] == "qwen2vl-packed")
            found.append(self.at_least("packed 2x14x14 patches x Conv3d", where, 2.8, rows, self.times_faster("conv3d")))  # fmt: skip
            rows = self.find("patch_embed", "backward", dtype, threads)
            faster = lambda row: row["contenders"].get("conv3d" if "packed" in row["shape"] else "unfused", {}).get("ratio")  # noqa: E731  # fmt: skip
            found.append(self.at_least("patch embedding backward x torch", where, 1.0, rows, faster))
        return found

    def losses(self) -> list[Bar]:
        found = []
        for dtype, threads, where in self._each(("bfloat16", "float32")):

            def loss(kind: str, *batches: int, dtype: str = dtype, threads: int = threads) -> list[Row]:
                keep = lambda row: row["shape"]["loss"] == kind and row["shape"]["B"] in batches  # noqa: E731
                return self.find("contrastive", "forward+backward", dtype, threads, keep)

            products = self.times_slower("three products")
            found.append(self.at_most("InfoNCE / three products, B 4096, 16384", where, 1.35, loss("info_nce", 4096, 16384), products))  # fmt: skip
            found.append(self.at_most("InfoNCE / three products, B 1024", where, 1.5, loss("info_nce", 1024), products))
            rows = loss("info_nce", 1024, 4096, 16384)
            found.append(self.at_least("InfoNCE x the torch form", where, 1.8, rows, self.times_faster("open_clip")))
            if dtype == "bfloat16":
                found.append(self.at_most("InfoNCE gradient error / the torch form's", where, 0.1, rows, _gradient_error))  # fmt: skip
            found.append(self.at_most("sigmoid loss / three products", where, 1.25, loss("sigmoid", 1024, 4096, 16384), products))  # fmt: skip
            found.append(self.at_most("InfoNCE extra memory, B 16384, MiB", where, 128, loss("info_nce", 16384), _extra_mib))  # fmt: skip
            found.append(self.at_most("sigmoid extra memory, B 16384, MiB", where, 192, loss("sigmoid", 16384), _extra_mib))  # fmt: skip
        return found

    def scaling(self) -> list[Bar]:
        found = []
        if {"1", "2"} <= set(self.ceilings):
            for dtype in ("bfloat16", "float32"):
                products = [self.ceilings[t]["torch_product"][dtype] for t in ("1", "2")]
                gemm = products[1] / products[0]
                limit = 1.85 / 1.9 * min(gemm, 1.9)
                rows = self.find("attention", "forward", dtype, 1, lambda row: self._long(row) or self._middle(row))  # fmt: skip
                two = {row["workload"]: row for row in self.find("attention", "forward", dtype, 2)}

                def gain(row: Row, two: dict[str, Row] = two) -> float | None:
                    other = two.get(row["workload"])
                    times = [r["contenders"]["ours"].get("times") for r in (row, other) if r is not None]
                    return times[0]["median"] / times[1]["median"] if len(times) == 2 and all(times) else None

                bar = self.at_least("2 threads x 1 thread, attention S >= 197", f"{dtype}, torch's GEMM {gemm:.2f}", limit, rows, gain)  # fmt: skip
                found.append(bar)
        for axis, what, limit in (("S", "S doubled: time x", 4.2), ("B", "B doubled: time x", 2.1)):
            steps = [
                (ratio, f"{series} to {value}, {dtype}, {threads} threads")
                for (series, of, _, dtype, threads), points in series_of(self.rows).items()
                if of == axis and series.startswith(("attention", "patch"))
                for value, ratio in doublings(points)
            ]
            worst = max(steps) if steps else None
            found.append(Bar(what, "", f"<= {limit}", f"{worst[0]:.2f} ({worst[1]})" if worst else "not measured", worst[0] <= limit if worst else None))  # fmt: skip
        return found

    def host_overhead(self) -> list[Bar]:
        rows = self.find("host", "forward", "float32", 1, lambda row: row["workload"] == "tiny-attention")
        return [self.at_most("tiny attention / torch SDPA's call", "float32, 1 thread", 1.0, rows, self.times_slower("sdpa"))]  # fmt: skip

    def avx2(self) -> list[Bar]:
        found = []
        for dtype, threads, where in self._each(("float32", "bfloat16", "float16")):
            limit = 1.3 if dtype == "float32" else 1.5
            what = "on AVX2: attention forward x torch SDPA, mean"
            if self.isa != "avx2":
                found.append(Bar(what, where, f">= {limit}", f"not measurable: ran on {self.isa}; set VLMKERNELS_CPU_ISA=avx2", None))  # fmt: skip
                continue
            rows = self.find("attention", "forward", dtype, threads, self._dense)
            found.append(self.at_least(what, where, limit, rows, self.times_faster("sdpa"), mean=True))
        return found


def _gradient_error(row: Row) -> float | None:
    matches = [row["contenders"].get(name, {}).get("match") for name in ("ours", "open_clip")]
    if not all(matches) or not matches[1]["gradients"]:
        return None
    return float(matches[0]["gradients"] / matches[1]["gradients"])


def _extra_mib(row: Row) -> float | None:
    size = row["contenders"]["ours"].get("memory_bytes")
    return None if size is None else size / 2**20
