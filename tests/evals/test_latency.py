import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.latency import latency_of
from labels.errors import InputError


@given(st.lists(st.floats(0.001, 10), min_size=1, max_size=300))
def test_percentiles_are_times_that_were_measured(seconds):
    found = latency_of(1, seconds, 10, 2.0)
    times = {round(1000 * value, 2) for value in seconds}
    assert {found.p50_ms, found.p99_ms} <= times
    assert found.p50_ms <= found.p99_ms
    if len(seconds) < 100:
        assert found.p99_ms == max(times)


def test_rates_are_by_the_wall_clock():
    found = latency_of(8, [0.1] * 40, 800, 0.5)
    assert (found.per_second, found.tokens_per_second, found.requests, found.at_once) == (80, 1600, 40, 8)


def test_no_answer_at_all_is_no_latency():
    with pytest.raises(InputError, match="no request was answered"):
        latency_of(1, [], 0, 1.0)
