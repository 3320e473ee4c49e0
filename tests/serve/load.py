"""Clients that write, search and check every answer while something happens to the service."""

from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote

from deployments.core.encoding.model_identity import read_identity
from deployments.core.encoding.model_source import find_model
from deployments.core.encoding.text_encoder import load_text_encoder
from deployments.core.settings import Settings
from tests.crash.checks import Checks, Scorer
from tests.crash.http_api import Api
from tests.crash.inspection import Inspection
from tests.crash.ledger import Ledger
from tests.crash.report import Report
from tests.crash.texts import sentences
from tests.crash.workload import Client, Gate, Prober, Setting, Watcher, anchor_writes, request_of

CLIENTS = 3
MEDIA_ITEMS = 8
TEXTS = 500
GRACE_S = 5.0


@contextmanager
def under_load(port: int, timeout_s: float, seed: int) -> Iterator[Report]:
    """Clients at work while the block runs; then everything is compared with their ledger.

    `timeout_s` is the service's own, and its EMBEDDINGS_MAX_TOP_K has to be Checks.MOST. It must
    hold nothing before, and holds nothing afterwards.
    """
    ledger, gate = Ledger(), Gate()
    report = Report(seed, timeout_s + GRACE_S)
    checks = Checks(ledger, report)
    texts = sentences(TEXTS, seed)
    setting = Setting(port, 3 * timeout_s, seed, texts, ledger, report, checks, gate)
    api = Api(port, 3 * timeout_s)
    for write in anchor_writes():
        before = ledger.possible(write.media)
        ledger.begin(write)
        answer = api.request(*request_of(write))
        assert answer.ok, answer
        ledger.acknowledge(write, before)
    threads = [Prober(setting), Watcher(setting)]
    threads += [Client(number, setting, MEDIA_ITEMS) for number in range(1, CLIENTS + 1)]
    for thread in threads:
        thread.start()
    try:
        yield report
        assert gate.close(timeout_s + GRACE_S), "a client waits for an answer"
        inspection = Inspection(ledger, report, checks, _scorer(), _model())
        inspection.over_http(api, "what is stored here", "at the end")
    finally:
        gate.end()
        for thread in threads:
            thread.join(timeout_s + GRACE_S)
            thread.api.close()
        for media in ledger.media():
            api.request("DELETE", f"/media/{quote(media, safe='')}")
        api.close()


def _scorer() -> Scorer:
    settings = Settings.load({})
    return Scorer(
        load_text_encoder(
            settings.embedding_model,
            device=settings.embedding_device,
            backend=settings.embedding_backend,
            threads=1,
            cache_dir=settings.embeddings_cache_dir,
        )
    )


def _model():
    name = Settings.load({}).embedding_model
    return read_identity(name, find_model(name))
