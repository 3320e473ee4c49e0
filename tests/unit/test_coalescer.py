import asyncio
import contextvars
import gc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deployments.core.coalescer import Coalescer
from deployments.core.errors import InvalidInput, NotReady, Overloaded, ServiceError


class Calls:
    """The other side: keeps each call's items and doubles them when the test lets it."""

    def __init__(self, held=False):
        self.batches = []
        self.running = 0
        self.most_running = 0
        self.release = asyncio.Semaphore(0) if held else None

    async def __call__(self, items):
        self.batches.append(items)
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            await (self.release.acquire() if self.release else asyncio.sleep(0))
            return [ValueError(item) if item == "bad" else item * 2 for item in items]
        finally:
            self.running -= 1


def coalescer_of(calls, max_in_flight=1, max_batch=100, max_waiting=100, full_batch=1):
    return Coalescer(
        calls,
        max_in_flight=max_in_flight,
        max_batch=max_batch,
        max_waiting=max_waiting,
        full_batch=full_batch,
    )


async def settle():
    for _ in range(10):
        await asyncio.sleep(0)


async def submitted(coalescer, *items):
    tasks = [asyncio.create_task(coalescer.submit(item)) for item in items]
    await settle()
    return tasks


async def test_a_lone_item_goes_at_once():
    calls = Calls()
    assert await coalescer_of(calls).submit("a") == "aa"
    assert calls.batches == [["a"]]


async def test_items_of_one_iteration_share_a_call_and_keep_their_order():
    calls = Calls()
    coalescer = coalescer_of(calls)
    results = await asyncio.gather(*(coalescer.submit(i) for i in range(5)))
    assert results == [0, 2, 4, 6, 8]
    assert calls.batches == [[0, 1, 2, 3, 4]]


async def test_another_call_leaves_beside_a_running_one_only_when_full():
    calls = Calls(held=True)
    coalescer = coalescer_of(calls, max_in_flight=2, full_batch=3)
    tasks = await submitted(coalescer, "a")
    tasks += await submitted(coalescer, "b", "c")
    assert calls.batches == [["a"]]
    tasks += await submitted(coalescer, "d")
    assert calls.batches == [["a"], ["b", "c", "d"]]
    tasks += await submitted(coalescer, "e", "f", "g", "h")
    assert calls.batches == [["a"], ["b", "c", "d"]]
    calls.release.release()
    await settle()
    assert calls.batches[2:] == [["e", "f", "g", "h"]]
    tasks += await submitted(coalescer, "i")
    for _ in range(3):
        calls.release.release()
        await settle()
    assert calls.batches[3:] == [["i"]], "with no call running, one item is enough"
    assert await asyncio.gather(*tasks) == [item * 2 for item in "abcdefghi"]


async def test_items_collect_while_all_slots_are_busy_and_leave_together():
    calls = Calls(held=True)
    coalescer = coalescer_of(calls, max_in_flight=2)
    tasks = await submitted(coalescer, "a")
    tasks += await submitted(coalescer, "b")
    for item in "cde":
        tasks += await submitted(coalescer, item)
    assert calls.batches == [["a"], ["b"]]
    assert (coalescer.waiting, coalescer.in_flight) == (3, 2)
    calls.release.release()
    await settle()
    assert calls.batches == [["a"], ["b"], ["c", "d", "e"]]
    for _ in range(2):
        calls.release.release()
    assert await asyncio.gather(*tasks) == ["aa", "bb", "cc", "dd", "ee"]
    assert (coalescer.waiting, coalescer.in_flight) == (0, 0)


async def test_what_a_woken_submitter_sends_joins_those_that_wait():
    calls = Calls(held=True)
    coalescer = coalescer_of(calls)

    async def two():
        await coalescer.submit("first")
        await coalescer.submit("second")

    task = asyncio.create_task(two())
    await settle()
    waiting = await submitted(coalescer, "waiting")
    calls.release.release()
    await settle()
    assert calls.batches == [["first"], ["waiting", "second"]]
    calls.release.release()
    await asyncio.gather(task, *waiting)


async def test_a_batch_has_at_most_max_batch_items():
    calls = Calls()
    coalescer = coalescer_of(calls, max_in_flight=2, max_batch=2)
    assert await asyncio.gather(*map(coalescer.submit, range(5))) == [0, 2, 4, 6, 8]
    assert calls.batches == [[0, 1], [2, 3], [4]]
    assert calls.most_running == 2


async def test_an_items_exception_is_its_own():
    coalescer = coalescer_of(Calls())
    results = await asyncio.gather(
        *map(coalescer.submit, ["a", "bad", "c"]), return_exceptions=True
    )
    assert (results[0], results[2]) == ("aa", "cc")
    assert isinstance(results[1], ValueError)


async def test_a_failed_call_fails_its_items_only():
    calls = []

    async def call(items):
        calls.append(items)
        if "a" in items:
            raise InvalidInput("no a")
        return items

    coalescer = coalescer_of(call, max_batch=2)
    results = await asyncio.gather(*map(coalescer.submit, "abcd"), return_exceptions=True)
    assert [str(result) for result in results] == ["no a", "no a", "c", "d"]
    assert isinstance(results[0], InvalidInput)


async def test_a_call_that_returns_too_little_fails_its_items():
    async def call(items):
        return items[1:]

    with pytest.raises(ServiceError, match="1 items were sent, 0 results returned"):
        await coalescer_of(call).submit("a")


async def test_cancelled_items_are_not_sent():
    calls = Calls(held=True)
    coalescer = coalescer_of(calls)
    first = await submitted(coalescer, "first")
    dropped, kept = await submitted(coalescer, "dropped", "kept")
    dropped.cancel()
    await settle()
    assert coalescer.waiting == 1
    calls.release.release()
    calls.release.release()
    assert await asyncio.gather(*first, kept) == ["firstfirst", "keptkept"]
    assert calls.batches == [["first"], ["kept"]]
    assert dropped.cancelled()


async def test_an_item_cancelled_in_the_iteration_of_the_flush_is_not_sent():
    calls = Calls()
    coalescer = coalescer_of(calls)
    tasks = [asyncio.create_task(coalescer.submit(item)) for item in "ab"]
    await asyncio.sleep(0)
    tasks[0].cancel()
    assert await tasks[1] == "bb"
    assert calls.batches == [["b"]]


async def test_cancelling_one_submitter_leaves_the_call_to_the_others():
    calls = Calls(held=True)
    coalescer = coalescer_of(calls)
    first, second = await submitted(coalescer, "a", "b")
    first.cancel()
    await settle()
    calls.release.release()
    assert await second == "bb"


async def test_too_many_waiting_items_are_refused():
    calls = Calls(held=True)
    coalescer = coalescer_of(calls, max_waiting=2)
    tasks = await submitted(coalescer, "running", "waiting", "refused")
    with pytest.raises(Overloaded, match="2 requests are waiting"):
        await tasks[2]
    tasks[2:] = await submitted(coalescer, "waiting too")
    calls.release.release()
    calls.release.release()
    assert (await asyncio.gather(*tasks))[0] == "runningrunning"


async def test_a_cancelled_call_fails_its_items_and_frees_its_slot():
    async def call(items):
        if items == ["cancel"]:
            raise asyncio.CancelledError
        return items

    coalescer = coalescer_of(call)
    with pytest.raises(NotReady, match="cancelled"):
        await coalescer.submit("cancel")
    assert await coalescer.submit("next") == "next"


async def test_a_call_runs_in_no_submitters_context():
    request = contextvars.ContextVar("request", default="none")
    seen = []

    async def call(items):
        seen.append(request.get())
        return items

    request.set("of the first")
    await coalescer_of(call).submit("a")
    assert seen == ["none"]


async def test_close_ends_running_calls_and_fails_the_rest():
    calls = Calls(held=True)
    coalescer = coalescer_of(calls)
    (running,) = await submitted(coalescer, "running")
    (waiting,) = await submitted(coalescer, "waiting")
    closing = asyncio.create_task(coalescer.close())
    await settle()
    assert not closing.done()
    with pytest.raises(NotReady):
        await waiting
    with pytest.raises(NotReady):
        await coalescer.submit("late")
    calls.release.release()
    await closing
    assert await running == "runningrunning"
    await coalescer.close()


async def test_an_error_that_nobody_waits_for_is_not_reported():
    async def call(items):
        await asyncio.sleep(0)
        raise ValueError("nobody waits")

    coalescer = coalescer_of(call)
    problems = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: problems.append(context))
    for cancel_after in range(8):
        task = asyncio.create_task(coalescer.submit("a"))
        for _ in range(cancel_after):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await settle()
    gc.collect()
    await settle()
    assert problems == []


@pytest.mark.parametrize("name", ["max_in_flight", "max_batch", "max_waiting"])
def test_limits_below_one_are_refused(name):
    with pytest.raises(ValueError, match=name):
        coalescer_of(Calls(), **{name: 0})


step = st.tuples(st.sampled_from(["submit", "cancel", "release", "yield"]), st.integers(0, 20))


@settings(max_examples=150, deadline=None)
@given(st.lists(step, max_size=40), st.integers(1, 3), st.integers(1, 4))
def test_every_interleaving_answers_every_item_once(steps, max_in_flight, max_batch):
    async def run():
        calls = Calls(held=True)
        coalescer = coalescer_of(calls, max_in_flight=max_in_flight, max_batch=max_batch)
        tasks = []
        for what, number in steps:
            if what == "submit":
                item = len(tasks) + 1
                tasks.append(asyncio.create_task(coalescer.submit(item)))
            elif what == "cancel" and tasks:
                tasks[number % len(tasks)].cancel()
            elif what == "release":
                calls.release.release()
            else:
                await asyncio.sleep(0)
        for _ in tasks:
            calls.release.release()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        for item, (task, result) in enumerate(zip(tasks, results, strict=True), start=1):
            assert task.cancelled() or result == 2 * item
        sent = [item for batch in calls.batches for item in batch]
        assert sent == sorted(set(sent))
        assert all(1 <= len(batch) <= max_batch for batch in calls.batches)
        assert calls.most_running <= max_in_flight
        await coalescer.close()
        assert coalescer.waiting == coalescer.in_flight == 0

    asyncio.run(run())


async def test_what_would_wait_too_long_at_the_speed_so_far_is_refused():
    calls = Calls(held=True)
    coalescer = Coalescer(calls, max_in_flight=1, max_batch=1, max_waiting=100, max_wait_s=0.05)
    first = asyncio.create_task(coalescer.submit(1))
    await asyncio.sleep(0.1)
    calls.release.release()
    assert await first == 2
    running = asyncio.create_task(coalescer.submit(2))
    while not coalescer.in_flight:
        await asyncio.sleep(0)
    waiting = asyncio.create_task(coalescer.submit(3))
    await asyncio.sleep(0)
    with pytest.raises(Overloaded, match="1 requests are waiting already, which takes about 0 s"):
        await coalescer.submit(4)
    for _ in range(3):
        calls.release.release()
    assert await asyncio.gather(running, waiting) == [4, 6]
    assert await coalescer.submit(5) == 10, "nothing waits any more"


async def test_one_call_that_waited_for_a_restart_does_not_close_the_door():
    calls = Calls(held=True)
    coalescer = Coalescer(calls, max_in_flight=1, max_batch=1, max_waiting=100, max_wait_s=0.05)
    calls.release.release()
    assert await coalescer.submit(1) == 2
    slow = asyncio.create_task(coalescer.submit(2))
    await asyncio.sleep(0.1)
    calls.release.release()
    assert await slow == 4
    running = asyncio.create_task(coalescer.submit(3))
    while not coalescer.in_flight:
        await asyncio.sleep(0)
    more = [asyncio.create_task(coalescer.submit(item)) for item in range(10)]
    for _ in range(11):
        calls.release.release()
    assert await asyncio.gather(running, *more) == [6, *(2 * item for item in range(10))]
