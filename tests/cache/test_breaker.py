import pytest

from cache.breaker import Breaker


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def failing(breaker, times):
    for _ in range(times):
        assert breaker.start()
        breaker.failed()


def test_it_opens_after_failures_in_a_row(clock):
    breaker = Breaker(failures=3, pause=1.0, clock=clock)
    failing(breaker, 2)
    assert breaker.start()
    breaker.succeeded()
    failing(breaker, 2)
    assert (breaker.state, breaker.blocks) == ("closed", False)
    failing(breaker, 1)
    assert (breaker.state, breaker.blocks, breaker.opened) == ("open", True, 1)
    assert not breaker.start()


def test_after_the_pause_one_question_is_a_probe(clock):
    breaker = Breaker(failures=1, pause=1.0, clock=clock)
    failing(breaker, 1)
    clock.now = 1.0
    assert breaker.state == "half-open"
    assert breaker.start()
    assert not breaker.start()
    breaker.failed()
    assert breaker.state == "open"
    clock.now = 1.9
    assert not breaker.start()
    clock.now = 2.0
    assert breaker.start()
    breaker.succeeded()
    assert breaker.state == "closed"
    assert breaker.start()
    assert breaker.start()
    assert breaker.opened == 1


def test_failures_that_come_late_open_it_no_further(clock):
    breaker = Breaker(failures=2, pause=1.0, clock=clock)
    for _ in range(4):
        assert breaker.start()
    for _ in range(4):
        breaker.failed()
    assert breaker.opened == 1
    clock.now = 1.0
    assert breaker.start()
    breaker.succeeded()
    assert breaker.state == "closed"
