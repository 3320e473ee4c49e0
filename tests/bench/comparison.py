"""The measurements: each compares servers in turn within the same minutes, on the same texts."""

import statistics
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

from tests.bench.ceilings import Ceilings
from tests.bench.load import Load, load
from tests.bench.servers import Server
from tests.bench.texts import queries, segments

STORED = 2000
SEGMENTS_PER_REQUEST = 100
CONCURRENCY = (1, 8, 32, 128)
ROUNDS = 5
TOP_K = 10
FAIRNESS_QUERIES = 60
QUERY_PAUSE_S = 0.2
"""Five searches a second, less the time that they take."""

Figures = dict[str, float]


@dataclass(slots=True)
class Row:
    """Medians of one measure for one server; `of` is what it is compared with."""

    measure: str
    server: str
    figures: Figures
    ratios: Figures = field(default_factory=dict)


class Comparison:
    """Runs the measurements and keeps their rows."""

    def __init__(self, servers: Sequence[Server], texts: list[str], ceilings: Ceilings) -> None:
        self.rows: list[Row] = []
        self._servers = servers
        self._ceilings = ceilings
        self._segments = segments(texts)
        self._queries = queries(texts)
        self._next_media_item = 0
        self._asked = 0

    def run(self) -> Iterator[str]:
        """Yields the name of each measurement before it begins."""
        steps: list[tuple[str, Callable[[], None]]] = [
            ("ingest", self._ingest),
            ("sending again what is stored", self._send_again),
            *((f"search, {n} clients", lambda n=n: self._search(n)) for n in CONCURRENCY),
            ("a repeated query", self._repeat),
            ("searching during a backfill", self._fairness),
            ("memory and start", self._footprint),
        ]
        for name, step in steps:
            yield name
            step()

    def _bodies(self, count: int) -> list[dict]:
        """Requests to store so many new segments."""
        bodies = []
        for _ in range(0, count, SEGMENTS_PER_REQUEST):
            self._next_media_item += 1
            texts = islice(self._segments, SEGMENTS_PER_REQUEST)
            bodies.append(
                {
                    "media_item_id": self._next_media_item,
                    "embedding_type": "transcript",
                    "segments": [{"id": i, "text": text} for i, text in enumerate(texts)],
                }
            )
        return bodies

    def _ingest(self) -> None:
        speeds: dict[str, list[float]] = {}
        ratios: dict[str, list[float]] = {}
        self._stored: list[dict] = []
        for _ in range(ROUNDS):
            bodies = self._bodies(STORED // ROUNDS)
            self._stored += bodies
            texts = [segment["text"] for body in bodies for segment in body["segments"]]
            raw = self._ceilings.encode_segments_per_s(texts)
            speeds.setdefault("raw encode", []).append(raw)
            for server in self._servers:
                if server.embeds_only:
                    continue
                speed = SEGMENTS_PER_REQUEST * load(server.url, "/embed", bodies, 1).requests_per_s
                speeds.setdefault(server.name, []).append(speed)
                ratios.setdefault(server.name, []).append(speed / raw)
        for name, values in speeds.items():
            row = Row("ingest, 100 segments a request", name, {"segments/s": _median(values)})
            if name in ratios:
                row.ratios["x raw encode"] = _median(ratios[name])
            self.rows.append(row)

    def _send_again(self) -> None:
        (service, *_) = self._servers
        again = load(service.url, "/embed", self._stored, 1).requests_per_s * SEGMENTS_PER_REQUEST
        first = next(row for row in self.rows if row.server == service.name).figures["segments/s"]
        self.rows.append(
            Row(
                "sending again what is stored",
                service.name,
                {"segments/s": again},
                {"x the first time": again / first},
            )
        )

    def _search(self, concurrency: int) -> None:
        count = 60 if concurrency == 1 else max(200, 4 * concurrency)
        self._compare(f"search, {concurrency} clients", concurrency, count, self._distinct)

    def _repeat(self) -> None:
        self._compare("a repeated query, 32 clients", 32, 1000, self._same, only_first=True)
        distinct = self._row("search, 32 clients", self._servers[0].name)
        repeated = self._row("a repeated query, 32 clients", self._servers[0].name)
        repeated.ratios["x distinct"] = (
            repeated.figures["requests/s"] / distinct.figures["requests/s"]
        )

    def _distinct(self, count: int) -> list[str]:
        return list(islice(self._queries, count))

    def _same(self, count: int) -> list[str]:
        return ["what is a moving average?"] * count

    def _compare(
        self,
        measure: str,
        concurrency: int,
        count: int,
        texts: Callable[[int], list[str]],
        only_first: bool = False,
    ) -> None:
        loads: dict[str, list[Load]] = {}
        cpu: dict[str, list[float]] = {}
        encoding: list[float] = []
        counters = None if only_first else self._servers[0].read_counters
        before_all = counters(self._asked) if counters else None
        for _ in range(ROUNDS):
            for server in self._servers[: 1 if only_first else None]:
                path, asked = server.search(texts(count), TOP_K)
                if server is self._servers[0]:
                    self._asked += count
                before = server.cpu_s()
                loads.setdefault(server.name, []).append(load(server.url, path, asked, concurrency))
                cpu.setdefault(server.name, []).append(1000 * (server.cpu_s() - before) / count)
            if concurrency == 32 and not only_first:
                encoding.append(self._encoding_and_faiss_ms(count))
        base = loads.get("baseline")
        for name, each in loads.items():
            row = Row(
                measure,
                name,
                {
                    "requests/s": _median([one.requests_per_s for one in each]),
                    "p50 ms": _median([one.p50_ms for one in each]),
                    "p99 ms": _median([one.p99_ms for one in each]),
                    "CPU ms": _median(cpu[name]),
                    "429": sum(one.refused for one in each),
                    "errors": sum(one.errors for one in each),
                },
            )
            if base and name != "baseline":
                row.ratios = _ratios(each, base)
            if encoding and name == "service":
                row.figures["CPU ms besides"] = row.figures["CPU ms"] - _median(encoding)
            if counters and before_all and name == "service":
                after = counters(self._asked)
                calls = after.calls - before_all.calls
                row.figures["calls a query"] = calls / (after.queries - before_all.queries)
            self.rows.append(row)
        for name in sorted(loads.keys() - {"service", "baseline"}):
            ratios = _ratios(loads["service"], loads[name])
            self.rows.append(Row(f"service beside a peer, {concurrency} clients", name, {}, ratios))

    def _encoding_and_faiss_ms(self, count: int) -> float:
        """CPU milliseconds of a query in ONNX Runtime and Faiss alone."""
        asked = list(islice(self._queries, count))
        stored = self._ceilings.encode(["stored"] * 10).repeat(STORED // 10, axis=0)
        vectors = self._ceilings.encode(asked[:64])
        return self._ceilings.query_cpu_ms(asked) + self._ceilings.faiss_cpu_ms(
            stored, vectors, TOP_K
        )

    def _fairness(self) -> None:
        """Five searches a second, without and with a backfill, and the backfill's speed."""
        server = self._servers[0]
        idle, busy, alone, beside = [], [], [], []
        for _ in range(ROUNDS):
            idle.append(self._few_searches(server))
            alone.append(self._backfill_speed(server, lambda: None))
            beside.append(
                self._backfill_speed(server, lambda: busy.append(self._few_searches(server)))
            )
        for name, loads in (("idle", idle), ("during a backfill", busy)):
            self.rows.append(
                Row(
                    "five searches a second",
                    name,
                    {
                        "p50 ms": _median([one.p50_ms for one in loads]),
                        "p99 ms": _median([one.p99_ms for one in loads]),
                        "errors": sum(one.errors for one in loads),
                    },
                )
            )
        self.rows[-1].ratios = {
            "x p50": self.rows[-1].figures["p50 ms"] / self.rows[-2].figures["p50 ms"],
            "x p99": self.rows[-1].figures["p99 ms"] / self.rows[-2].figures["p99 ms"],
        }
        self.rows.append(
            Row(
                "backfill",
                "beside five searches a second",
                {"segments/s": _median(beside)},
                {
                    "x alone": _median(
                        [with_ / without for with_, without in zip(beside, alone, strict=True)]
                    )
                },
            )
        )

    def _few_searches(self, server: Server) -> Load:
        path, asked = server.search(self._distinct(FAIRNESS_QUERIES // ROUNDS), TOP_K)
        return load(server.url, path, asked, 1, pause_s=QUERY_PAUSE_S)

    def _backfill_speed(self, server: Server, beside: Callable[[], None]) -> float:
        """Segments a second of a backfill with four requests at a time, while `beside` runs."""
        bodies = self._bodies(1200)
        speed: list[float] = []
        backfill = threading.Thread(
            target=lambda: speed.append(
                SEGMENTS_PER_REQUEST * load(server.url, "/embed", bodies, 4).requests_per_s
            )
        )
        backfill.start()
        beside()
        backfill.join()
        return speed[0]

    def _footprint(self) -> None:
        for server in self._servers:
            self.rows.append(
                Row(
                    "start and memory",
                    server.name,
                    {"start s": server.start_s, "memory MB": server.memory_mb()},
                )
            )

    def _row(self, measure: str, server: str) -> Row:
        return next(row for row in self.rows if (row.measure, row.server) == (measure, server))


def _ratios(each: Sequence[Load], base: Sequence[Load]) -> Figures:
    pairs = list(zip(each, base, strict=True))
    return {
        "x requests/s": _median(
            [one.requests_per_s / other.requests_per_s for one, other in pairs]
        ),
        "x p50": _median([one.p50_ms / other.p50_ms for one, other in pairs]),
    }


def _median(values: Sequence[float]) -> float:
    return statistics.median(values)
