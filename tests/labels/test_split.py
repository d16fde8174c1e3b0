from collections import Counter

from labels.split import split_of


def test_a_tenth_tests_a_tenth_is_for_development_and_the_rest_trains():
    found = Counter(split_of(f"query {number}") for number in range(5000))
    assert set(found) == {"train", "dev", "test"}
    assert abs(found["test"] - 500) < 80
    assert abs(found["dev"] - 500) < 80


def test_the_split_of_a_query_never_changes():
    """Were it to, queries that measured yesterday's student would train today's."""
    queries = ["oat milk", "crème brûlée", "red tea 1 l", "日本茶", "milk"]
    assert [split_of(query) for query in queries] == ["train", "train", "test", "train", "test"]
