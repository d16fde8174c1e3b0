from hypothesis import given
from hypothesis import strategies as st

from teacher.converted import converted_fact


def rows(**weights):
    return [{"category": name, "weight": weight} for name, weight in weights.items()]


def test_what_shoppers_chose_is_said_the_commonest_first():
    assert converted_fact(rows(yogurt=2.0, milk=8.0)) == "chosen: milk 80%, yogurt 20%"
    assert converted_fact(rows(milk=30, tea=30, jam=30, bread=10)) == "chosen: jam 30%, milk 30%, tea 30%"


def test_nothing_chosen_is_no_fact():
    assert converted_fact(None) is None
    assert converted_fact([]) is None
    assert converted_fact(rows(milk=0.0)) is None
    assert converted_fact([{"category": f"c{number}", "weight": 1.0} for number in range(100)]) is None


def test_one_click_more_makes_no_other_prompt():
    assert converted_fact(rows(milk=8000.0, yogurt=2000.0)) == converted_fact(rows(milk=8001.0, yogurt=2040.0, tea=3.0))


@given(st.dictionaries(st.text(max_size=9), st.floats(0, 1e6), max_size=8))
def test_the_order_of_the_rows_does_not_matter(weights):
    given_rows = [{"category": name, "weight": weight} for name, weight in weights.items()]
    assert converted_fact(given_rows) == converted_fact(given_rows[::-1])
