"""An overload as a table, as JSON and as a graph, by parts of the time."""

import statistics
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
from rich.table import Table

from tests.bench.arrivals import Answer

# It draws into files, on machines without a screen.
mpl.use("Agg")

from matplotlib import pyplot as plt

BIN_S = 10.0
MEMORY_PERIOD_S = 2.0
SEGMENTS_A_REQUEST = 20


@dataclass(frozen=True, slots=True)
class Bin:
    """What happened to the requests that were sent in one part of the time."""

    start_s: float
    searches: Counter[int]
    """By status."""
    writes: Counter[int]
    search_p50_ms: float
    search_p99_ms: float
    memory_mb: float


def bins_of(answers: list[Answer], memory_mb: list[float]) -> list[Bin]:
    """Answers by when they were asked for, with the most memory of that time."""
    found = []
    for number in range(int(max(answer.sent_s for answer in answers) / BIN_S) + 1):
        start_s = number * BIN_S
        some = [answer for answer in answers if start_s <= answer.sent_s < start_s + BIN_S]
        first = int(start_s / MEMORY_PERIOD_S)
        readings = memory_mb[first : first + int(BIN_S / MEMORY_PERIOD_S)]
        found.append(
            Bin(
                start_s,
                Counter(answer.status for answer in some if answer.stream == "search"),
                Counter(answer.status for answer in some if answer.stream == "write"),
                *_percentiles_ms(
                    [a.latency_s for a in some if a.stream == "search" and a.status == 200]
                ),
                max(readings, default=memory_mb[-1]),
            )
        )
    return found


def _percentiles_ms(latencies_s: list[float]) -> tuple[float, float]:
    if len(latencies_s) < 2:
        return 0.0, 0.0
    cuts = statistics.quantiles(latencies_s, n=100, method="inclusive")
    return 1000 * cuts[49], 1000 * cuts[98]


def table_of(bins: list[Bin]) -> Table:
    table = Table()
    cells: dict[str, Callable[[Bin], str]] = {
        "from, s": lambda each: f"{each.start_s:.0f}",
        "searches/s": lambda each: f"{each.searches[200] / BIN_S:.0f}",
        "refused/s": lambda each: f"{each.searches[429] / BIN_S:.0f}",
        "p50 ms": lambda each: f"{each.search_p50_ms:.0f}",
        "p99 ms": lambda each: f"{each.search_p99_ms:.0f}",
        "segments/s": lambda each: f"{each.writes[200] * SEGMENTS_A_REQUEST / BIN_S:.0f}",
        "writes refused/s": lambda each: f"{each.writes[429] / BIN_S:.0f}",
        "other answers": lambda each: _others(each.searches + each.writes),
        "memory MB": lambda each: f"{each.memory_mb:.0f}",
    }
    for name in cells:
        table.add_column(name, justify="right")
    for each in bins:
        table.add_row(*(cell(each) for cell in cells.values()))
    return table


def _others(statuses: Counter[int]) -> str:
    rest = {status: n for status, n in sorted(statuses.items()) if status not in (200, 429)}
    return ", ".join(f"{n} x {status or 'none'}" for status, n in rest.items()) or "0"


def as_json(each: Bin) -> dict[str, object]:
    return {name: getattr(each, name) for name in each.__slots__}


def draw(bins: list[Bin], can_search: float, asked: float, file: Path) -> None:
    """Three charts over the same minutes, as SVG or PNG by the file's name."""
    # The last one may be shorter than the others.
    bins = bins[:-1] or bins
    minutes = [each.start_s / 60 for each in bins]
    # So that the file changes with the figures only.
    mpl.rcParams["svg.hashsalt"] = "overload"
    figure, (rates, latencies, memory) = plt.subplots(
        3, 1, sharex=True, figsize=(8, 7.5), layout="constrained"
    )
    rates.stackplot(
        minutes,
        [each.searches[200] / BIN_S for each in bins],
        [each.searches[429] / BIN_S for each in bins],
        labels=["answered", "refused with 429"],
        colors=["#2a7f62", "#d9a441"],
    )
    rates.axhline(can_search, color="#444", lw=1, ls="--", label="alone, without overload")
    rates.set(ylabel="searches a second", ylim=(0, 1.35 * asked))
    rates.legend(loc="upper right", ncols=3, frameon=False)
    latencies.plot(minutes, [each.search_p50_ms for each in bins], color="#2a7f62", label="p50")
    latencies.plot(minutes, [each.search_p99_ms for each in bins], color="#b5483a", label="p99")
    latencies.set(ylabel="answered after, ms", ylim=(0, None))
    latencies.legend(loc="upper right", ncols=2, frameon=False)
    memory.plot(minutes, [each.memory_mb for each in bins], color="#36558f")
    memory.set(ylabel="memory of all processes, MB", xlabel="minutes", ylim=(0, None))
    for axes in (rates, latencies, memory):
        axes.spines[["top", "right"]].set_visible(False)
    metadata = {"Date": None} if file.suffix == ".svg" else None
    figure.savefig(file, metadata=metadata)
