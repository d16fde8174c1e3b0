"""Two workers share the tests, a file or a costly fixture to one of them; the longest begins first."""

import pytest

SHARED = {"night": ("night", "day", "real_night"), "engines": ("offline_engine", "teacher_url")}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Name each test's group, for `--dist loadgroup`."""
    groups = {item: group_of(item) for item in items}
    for item, group in groups.items():
        item.add_marker(pytest.mark.xdist_group(group))
    order = [*SHARED]
    items.sort(key=lambda item: order.index(groups[item]) if groups[item] in order else len(order))


def group_of(item: pytest.Item) -> str:
    """The costly fixture a test shares with others, else its file."""
    needed = getattr(item, "fixturenames", ())
    return next((name for name, fixtures in SHARED.items() if set(fixtures) & set(needed)), str(item.path))
