import asyncio

import pytest

from cache.flights import Flights, FullError

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    return "asyncio"


class Asked:
    def __init__(self):
        self.calls, self.gate, self.most, self.now = [], asyncio.Event(), 0, 0

    async def __call__(self, key):
        self.calls.append(key)
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await self.gate.wait()
        finally:
            self.now -= 1
        return f"answer to {key}"


def soon(seconds=5.0):
    return asyncio.get_running_loop().time() + seconds


def join(flights, asked, key, until=None):
    return asyncio.create_task(flights.join(key, lambda: asked(key), until or soon()))


async def settle():
    for _ in range(5):
        await asyncio.sleep(0)


async def test_however_many_wait_the_question_is_put_once():
    flights, asked = Flights(2, 0), Asked()
    waiting = [join(flights, asked, "rye") for _ in range(10_000)]
    await settle()
    asked.gate.set()
    assert set(await asyncio.gather(*waiting)) == {"answer to rye"}
    assert asked.calls == ["rye"]
    assert not flights.has("rye")
    assert await join(flights, asked, "rye") == "answer to rye"
    assert asked.calls == ["rye", "rye"]  # what has landed is no flight any more


async def test_some_are_put_at_once_some_wait_and_the_rest_is_refused():
    flights, asked = Flights(2, 3), Asked()
    waiting = [join(flights, asked, key) for key in "abcde"]
    await settle()
    assert (flights.under_way, flights.waiting, asked.calls) == (2, 3, ["a", "b"])
    with pytest.raises(FullError):
        await join(flights, asked, "f")
    joined = join(flights, asked, "e")  # what waits already may be joined
    asked.gate.set()
    assert await asyncio.gather(*waiting, joined) == [f"answer to {key}" for key in "abcdee"]
    assert (asked.most, flights.under_way, flights.waiting) == (2, 0, 0)


async def test_a_caller_that_leaves_ends_nothing_for_the_others():
    flights, asked = Flights(1, 0), Asked()
    first, second = join(flights, asked, "rye"), join(flights, asked, "rye")
    await settle()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    asked.gate.set()
    assert await second == "answer to rye"
    assert asked.calls == ["rye"]


async def test_at_its_deadline_a_question_ends_whether_it_was_put_or_waits():
    flights, asked = Flights(1, 1), Asked()
    waiting = [join(flights, asked, key, soon(0.05)) for key in "ab"]
    for one in waiting:
        with pytest.raises(TimeoutError):
            await one
    await settle()
    assert asked.calls == ["a"]  # what nobody waits for any more is not put
    assert (asked.now, flights.under_way, flights.waiting) == (0, 0, 0)


async def test_what_the_question_raises_reaches_all_who_wait():
    async def fail():
        await asyncio.sleep(0.01)
        raise ValueError("no")

    flights = Flights(1, 0)
    waiting = [asyncio.create_task(flights.join("rye", fail, soon())) for _ in range(3)]
    assert [str(error) for error in await asyncio.gather(*waiting, return_exceptions=True)] == ["no"] * 3
    assert not flights.has("rye")


async def test_closing_ends_what_is_under_way():
    flights, asked = Flights(1, 1), Asked()
    waiting = [join(flights, asked, key) for key in "ab"]
    await settle()
    await flights.aclose()
    await asyncio.wait(waiting)
    assert all(one.cancelled() for one in waiting)
