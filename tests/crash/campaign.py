"""The run: clients at work, one kill after the other, and a look at everything after each."""

import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from deployments.core.encoding.model_identity import read_identity
from deployments.core.encoding.model_source import find_model
from deployments.core.encoding.text_encoder import load_text_encoder
from deployments.core.settings import Settings
from deployments.serve_process import StartError
from tests.crash.checks import Checks, Scorer
from tests.crash.faults import AT_START, Fault, Point
from tests.crash.http_api import Api
from tests.crash.inspection import Inspection, NoAnswer
from tests.crash.ledger import Ledger
from tests.crash.report import Recovery, Report
from tests.crash.service import MortalService, wait_for
from tests.crash.texts import sentences
from tests.crash.workload import Client, Gate, Prober, Setting, Watcher, anchor_writes, request_of

RANDOM = "index, at a random moment"
STARTING = "index, and again while it starts"
SLOW = "index, then a start longer than the time-out"
CLUSTER = "whole cluster"

POINTS = {**{f"index, {point}": point for point in Point}, SLOW: Point.RECOVERED}

WEIGHTS: dict[str, int] = {
    RANDOM: 28,
    STARTING: 8,
    SLOW: 2,
    CLUSTER: 6,
    **{f"index, {point}": 7 for point in Point},
}
"""How often each kind comes, relative to the others."""

SHORT = (
    RANDOM,
    f"index, {Point.COMMITTED}",
    f"index, {Point.CHECKPOINT_RENAME}",
    CLUSTER,
    f"index, {Point.PUBLISHED}",
    f"index, {Point.CHECKPOINT_WRITE}",
    f"index, {Point.RECOVERED}",
    f"index, {Point.IN_TRANSACTION}",
    RANDOM,
)
"""Ten kills: at the start an Index dies twice."""

DEFAULT_TRANSPORT = {
    "RAY_SERVE_ENABLE_HA_PROXY": "0",
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "0",
}

TIMEOUT_S = 10.0
"""The service's own, embeddings_timeout_s."""
GRACE_S = 5.0
RECOVERY_LIMIT_S = 60.0
REACH_LIMIT_S = 30.0
PARKED_S = 2.0
STALE_S = 1.5


@dataclass(frozen=True)
class Options:
    """What a run does."""

    seed: int
    kills: int
    minutes: float
    folder: Path
    clients: int = 4
    media_items: int = 12
    texts: int = 2000
    sabotage: str = ""
    default_transport: bool = False
    only: str = ""
    """A part of the names of the kinds of kills that should come."""
    short: bool = False
    """Fewer kinds that need a second kill or a wait, and the whole cluster once."""


class NoRecovery(Exception):
    """The service is gone for good; the run can't go on."""


class Campaign:
    """One run over one folder."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._random = random.Random(f"kills {options.seed}")
        self._service = MortalService(
            options.folder,
            {"embeddings_timeout_s": TIMEOUT_S, "embeddings_max_top_k": Checks.MOST},
            environment=DEFAULT_TRANSPORT if options.default_transport else None,
            sabotage=options.sabotage,
        )
        self.report = Report(options.seed, TIMEOUT_S + GRACE_S)
        self._ledger = Ledger()
        checks = Checks(self._ledger, self.report)
        self._gate = Gate()
        self._setting = Setting(
            self._service.port,
            3 * TIMEOUT_S,
            options.seed,
            sentences(options.texts, options.seed),
            self._ledger,
            self.report,
            checks,
            self._gate,
        )
        settings = Settings.load({})
        encoder = load_text_encoder(
            settings.embedding_model,
            device=settings.embedding_device,
            backend=settings.embedding_backend,
            threads=1,
            cache_dir=settings.embeddings_cache_dir,
        )
        model = read_identity(settings.embedding_model, find_model(settings.embedding_model))
        self._inspection = Inspection(self._ledger, self.report, checks, Scorer(encoder), model)
        self._api = Api(self._service.port, 3 * TIMEOUT_S)
        self._prober = Prober(self._setting)

    def run(self) -> Report:
        """Start, kill, look, and so on; returns what was seen."""
        try:
            self._service.start()
            self._store_anchor()
            threads = self._start_clients()
            self._kill_and_look()
            self._gate.end()
            for thread in threads:
                thread.join(4 * TIMEOUT_S)
            self._service.stop()
            self._inspection.of_folder(self._service.index_dir, "after an orderly stop")
            self._inspection.of_checkpoints(self._service.index_dir)
        except (NoRecovery, NoAnswer, StartError) as error:
            self.report.violate("no recovery", str(error))
        finally:
            self._gate.end()
            self._service.stop()
            self._service.remove_ray_files()
        return self.report

    def _store_anchor(self) -> None:
        for write in anchor_writes():
            before = self._ledger.possible(write.media)
            self._ledger.begin(write)
            answer = self._api.request(*request_of(write))
            if not answer.ok:
                raise NoAnswer(f"the anchor can't be stored: {answer}")
            self._ledger.acknowledge(write, before)

    def _start_clients(self) -> list[Client | Prober | Watcher]:
        options = self._options
        clients = [
            Client(number, self._setting, options.media_items)
            for number in range(1, options.clients + 1)
        ]
        threads = [self._prober, Watcher(self._setting), *clients]
        for thread in threads:
            thread.start()
        return threads

    def _kill_and_look(self) -> None:
        kinds = self._schedule()
        deadline = time.monotonic() + 60 * self._options.minutes
        while self.report.kills.total() < self._options.kills and time.monotonic() < deadline:
            kind = next(kinds)
            time.sleep(self._random.uniform(0.2, 1.5))
            down_s = self._kill(kind)
            kills = self.report.kills.total()
            segments = self._look(f"after kill {kills} ({kind})")
            print(
                f"{time.monotonic() - self.report.began:7.1f} s  {kills:3d}/{self._options.kills}  "
                f"{kind:<44s} down {down_s:5.2f} s  {segments:5d} segments  "
                f"{len(self.report.violations)} violations",
                flush=True,
            )

    def _schedule(self) -> Iterator[str]:
        """Each kind once in random order, then by weight; the slow one only in a long run."""
        if self._options.short:
            yield from SHORT
        kinds = [kind for kind in WEIGHTS if self._options.only in kind]
        first = [kind for kind in kinds if kind != SLOW or self._options.kills > 50]
        self._random.shuffle(first)
        yield from first
        weights = [WEIGHTS[kind] for kind in kinds]
        while True:
            yield from self._random.choices(kinds, weights)

    def _kill(self, kind: str) -> float:
        """Kill and wait for the recovery; returns the seconds without an answered search."""
        if kind == CLUSTER:
            died = self._kill_cluster()
        elif kind in POINTS:
            died = self._kill_at(kind, POINTS[kind])
        else:
            died, pid = self._kill_index(RANDOM)
            if kind == STARTING:
                wait_for(lambda: self._service.control.index_pid() != pid, RECOVERY_LIMIT_S)
                time.sleep(self._random.uniform(0, 0.3))
                died, _ = self._kill_index(kind)
        if not wait_for(lambda: self._prober.last_success[0] > died, RECOVERY_LIMIT_S):
            raise NoRecovery(f"no search was answered for {RECOVERY_LIMIT_S:g} s after: {kind}")
        down_s = self._prober.last_success[1] - died
        self.report.recoveries.append(Recovery(self.report.kills.total(), kind, down_s))
        return down_s

    def _kill_index(self, kind: str) -> tuple[float, int]:
        """When it died, and which process it was."""
        deadline = time.monotonic() + RECOVERY_LIMIT_S
        while (pid := self._service.kill_index()) is None:
            if time.monotonic() > deadline:
                raise NoRecovery("there is no Index process to kill")
            time.sleep(0.01)
        self.report.kills[kind] += 1
        return time.monotonic(), pid

    def _kill_at(self, kind: str, point: Point) -> float:
        """Let the Index die at a point, or pause there when it starts again."""
        control = self._service.control
        slow = kind == SLOW
        skip = 0 if point in AT_START else self._random.randrange(4)
        control.arm(Fault(point, skip, wait_s=TIMEOUT_S + GRACE_S if slow else 0))
        died = time.monotonic()
        if point in AT_START:
            died, _ = self._kill_index(RANDOM)
        if not wait_for(control.fired, REACH_LIMIT_S):
            self.report.violate("unreached", kind)
        elif not slow:
            died = time.monotonic()
            self.report.kills[kind] += 1
        control.disarm()
        return died

    def _kill_cluster(self) -> float:
        self.report.cluster_is_down = True
        survivors = self._service.kill_everything()
        died = time.monotonic()
        self.report.kills[CLUSTER] += 1
        if survivors:
            self.report.violate("survivor", ", ".join(survivors))
        copy = self._service.copy_of_folder(self._options.folder / "copy")
        # The clients' writes end without an answer, so what they left is among the possible.
        self._inspection.of_folder(copy, f"in the folder after kill {self.report.kills.total()}")
        self._service.start()
        self._api.close()
        # A connection that was opened while the routes weren't known yet says so once more.
        time.sleep(STALE_S)
        self.report.cluster_is_down = False
        return died

    def _look(self, where: str) -> int:
        """Stop the clients, compare everything with the ledger, and let them go on."""
        if not self._gate.close(3 * TIMEOUT_S + GRACE_S):
            self.report.violate("hang", f"a client waits for an answer, {where}")
        try:
            before = time.monotonic() - PARKED_S
            query = " and ".join(self._random.sample(self._setting.texts, 2))
            segments = self._inspection.over_http(self._api, query, where)
            self._inspection.settle(before)
            return segments
        finally:
            self._gate.open()
