import pytest
from hypothesis import given
from hypothesis import strategies as st

from teacher.cost import Price, cost


def test_a_gpu_hour_is_paid_for_every_gpu_as_long_as_it_labels():
    found = cost(Price(gpu_hour=3.0, gpus=8), seconds=1800, tokens_in=10, tokens_cached=0, tokens_out=1)
    assert (found.currency, found.total) == ("USD", 12.0)
    assert found.per(24) == 0.5
    assert found.per(0) is None
    assert "8 GPU" in found.basis


def test_tokens_are_paid_by_the_million_and_cached_ones_less():
    price = Price(currency="EUR", million_in=2.0, million_cached=0.5, million_out=8.0)
    found = cost(price, 99, tokens_in=3_000_000, tokens_cached=2_000_000, tokens_out=500_000)
    assert (found.currency, found.total) == ("EUR", 2.0 + 1.0 + 4.0)
    dear = cost(Price(million_in=2.0), 99, tokens_in=3_000_000, tokens_cached=2_000_000, tokens_out=500_000)
    assert dear.total == 6.0  # without a price of their own cached tokens cost what all do


def test_without_a_price_there_is_no_cost_and_a_price_of_nothing_is_one():
    assert cost(Price(), 3600, 1, 1, 1) is None
    assert cost(Price(gpu_hour=0.0), 3600, 1, 1, 1).total == 0.0


@given(st.integers(0, 10**9), st.integers(0, 10**9), st.floats(0, 1e5))
def test_both_prices_add_up(tokens, out, seconds):
    both = cost(Price(gpu_hour=2.0, million_in=1.0, million_out=3.0), seconds, tokens, tokens // 2, out).total
    one, other = (
        cost(price, seconds, tokens, tokens // 2, out).total
        for price in (Price(gpu_hour=2.0), Price(million_in=1.0, million_out=3.0))
    )
    assert both == pytest.approx(one + other)
