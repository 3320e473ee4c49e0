"""One recent result for many callers."""

import asyncio

from deployments.core.recent import Recent


async def test_those_that_wait_for_a_slow_result_share_it():
    made = 0

    async def make():
        nonlocal made
        made += 1
        await asyncio.sleep(0.05)
        return made

    recent = Recent(make, max_age_s=0.04)
    assert await asyncio.gather(*(recent.get() for _ in range(10))) == [1] * 10


async def test_an_old_result_is_made_again():
    made = 0

    async def make():
        nonlocal made
        made += 1
        return made

    recent = Recent(make, max_age_s=0.02)
    assert [await recent.get(), await recent.get()] == [1, 1]
    await asyncio.sleep(0.05)
    assert await recent.get() == 2
