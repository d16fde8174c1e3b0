from math import inf

from hypothesis import given
from hypothesis import strategies as st

from cache.answer import Found
from cache.tier import LONGEST, Kept, Tier


def kept(query):
    return Kept(query, Found(query.encode(), "cache"), inf)


@given(
    st.integers(0, 5),
    st.lists(st.tuples(st.sampled_from(["keep", "get", "drop"]), st.sampled_from("abcdefgh"))),
)
def test_it_holds_the_last_asked_for_and_no_more(entries, moves):
    tier, model = Tier(entries, "r1"), {}
    for move, text in moves:
        if move == "drop":
            tier.drop({text})
            model.pop(text, None)
            continue
        if move == "keep":
            tier.keep(text, kept(text))
        found = tier.get(text)
        if move == "keep" or text in model:
            model.pop(text, None)
            model[text] = kept(text)
            if len(model) > entries:
                model.pop(next(iter(model)))
        assert found == model.get(text)
    assert len(tier) == len(model) <= entries


def test_a_query_is_dropped_however_it_was_typed():
    tier = Tier(10, "r1")
    for typed in ("Milk", " milk", "tea"):
        tier.keep(typed, kept(typed.strip().lower()))
    tier.drop({"milk"})
    assert [tier.get(typed) for typed in ("Milk", " milk")] == [None, None]
    assert tier.get("tea") == kept("tea")


def test_a_text_of_any_length_takes_no_more_than_so_much_memory():
    tier = Tier(10, "r1")
    tier.keep("milk" + " " * LONGEST, kept("milk"))
    assert len(tier) == 0
