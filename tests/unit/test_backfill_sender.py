"""When a backfill goes on, and when it gives up: a clock that stands still between calls."""

import asyncio
from typing import Any

import pytest
from backfill_runs import row

from deployments.backfill import sender as sender_module
from deployments.backfill.calls import Call, Item
from deployments.backfill.destination import Postponed, Refused, Unexplained
from deployments.backfill.file_progress import FileProgress
from deployments.backfill.sender import Sender
from deployments.backfill.sources import SourceFile
from deployments.core.errors import NotReady, ServiceError
from deployments.core.segments import EmbeddingType, Segment, Upsert, UpsertResult

BUSY = Postponed("too much waits", 1.0)
BARE_500 = Unexplained("answered 500", 1.0)
REFUSED = Refused("a text is poisoned")
STORED = UpsertResult(stored=1, changed=1, removed=0)


class Answers:
    """A Destination with these answers in turn, each so many seconds after it was asked."""

    def __init__(self, *answers: tuple[float, UpsertResult | Exception]) -> None:
        self.answers = list(answers)

    async def embed(self, upsert: Upsert) -> UpsertResult:
        seconds, answer = self.answers.pop(0)
        await asyncio.sleep(seconds)
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sleeping moves the loop's clock on instead of waiting."""
    now = 0.0
    sleep = asyncio.sleep

    async def skip(seconds: float, *more: Any) -> Any:
        nonlocal now
        now += seconds
        return await sleep(0, *more)

    class Clock:
        def time(self) -> float:
            return now

    monkeypatch.setattr(sender_module.asyncio, "sleep", skip)
    monkeypatch.setattr(sender_module.asyncio, "get_running_loop", Clock)


def call(number: int) -> Call:
    progress = FileProgress(SourceFile("rows.jsonl", "rows.jsonl", "jsonl", None, "", None))
    segment = Segment(number, row(1, number)["text"])
    return Call((Item(1, segment, progress, progress.begin(), number, "", 10),))


async def send(*answers: tuple[float, UpsertResult | Exception], pause_s: float = 0.0) -> list[str]:
    """What became of calls until there are no more answers, with pauses between them."""
    heard: list[str] = []
    service = Answers(*answers)
    sender = Sender(
        service,
        EmbeddingType.TRANSCRIPT,
        lambda *_: heard.append("stored"),
        lambda *_: heard.append("refused"),
        lambda *_: heard.append("postponed"),
    )
    while service.answers:
        await sender.send(call(len(service.answers)))
        await sender.finish()
        await sender_module.asyncio.sleep(pause_s)
    return heard


async def test_a_pause_before_a_call_is_postponed_costs_no_patience() -> None:
    long = 2 * sender_module.PATIENCE_S
    for first in (STORED, REFUSED):
        heard = await send((1, first), (1, BUSY), (1, BUSY), (1, STORED), pause_s=long)
        assert heard[1:] == ["postponed", "postponed", "stored"]


async def test_a_first_call_that_takes_long_costs_no_patience() -> None:
    long = 2 * sender_module.FIRST_PATIENCE_S
    assert await send((long, BUSY), (1, STORED)) == ["postponed", "stored"]


async def test_each_answer_gives_patience_anew() -> None:
    half = sender_module.PATIENCE_S * 0.9
    answers = [(1, STORED), *[(half, BUSY), (1, STORED)] * 5]
    assert (await send(*answers)).count("stored") == 6


@pytest.mark.parametrize(
    ("before", "patience_s"),
    [((), sender_module.FIRST_PATIENCE_S), (((1, STORED),), sender_module.PATIENCE_S)],
)
async def test_patience_ends(before: Any, patience_s: float) -> None:
    with pytest.raises(NotReady, match="nothing could be stored for"):
        await send(*before, (1, BUSY), (patience_s, BUSY))
    heard = await send(*before, (1, BUSY), (patience_s - 5, BUSY), (1, STORED))
    assert heard[-1] == "stored"


async def test_errors_without_a_reason_are_repeated_for_a_while_only() -> None:
    most = sender_module.MOST_UNEXPLAINED
    killed = [(1, BARE_500)] * most
    assert (await send((1, STORED), *killed, (1, STORED), *killed, (1, STORED)))[-1] == "stored"
    # Other reasons in between are those of the restart.
    restarts = [each for kill in killed for each in (kill, (1, BUSY))]
    with pytest.raises(ServiceError, match="answered 500") as raised:
        await send((1, STORED), *restarts, (1, BARE_500))
    assert not isinstance(raised.value, NotReady)
