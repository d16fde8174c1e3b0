import re
from dataclasses import replace

import pytest

from student.kept import compare
from student.rows import Row
from student.selection import Selection, chance

ROWS = [Row(f"query {n}", "x", difficulty=n / 1000, band=("head", "torso", "tail")[n % 3]) for n in range(1000)]


def without(reason, share, of=ROWS):
    """The reasons where `share` of the hardest fifth is left out, the hardest first."""
    dropped = sorted(of, key=lambda row: -row.difficulty)[: int(share * len(of) / 5)]
    return [reason if row in dropped else None for row in of]


def test_the_kept_set_stands_beside_the_whole_by_fifths_and_bands():
    found = compare(ROWS, without("rejected", 0.3), Selection())
    assert [(one.whole, one.kept) for one in found.by_difficulty] == [(200, 200)] * 4 + [(200, 140)]
    assert [(one.low, one.high) for one in found.by_difficulty][0::4] == [(0.0, 0.199), (0.8, 0.999)]
    assert [(one.band, one.whole, one.kept) for one in found.by_band] == [
        ("head", 334, 314), ("torso", 333, 313), ("tail", 333, 313),
    ]  # fmt: skip
    assert found.warnings == []


@pytest.mark.parametrize(
    ("reason", "advice"),
    [
        ("unsure", r"lower student.data.min_confidence \(0.9\)"),
        ("rejected", "stillhouse labels"),
        ("collapsed", r"raise student.data.near \(0.8\)"),
        ("not_drawn", r"lower student.data.temper \(0.5\) or raise student.data.rows \(700\)"),
    ],
)
def test_a_filter_that_removes_the_hard_part_is_warned_of_with_what_to_do(reason, advice):
    selection = Selection(min_confidence=0.9, near=0.8, rows=700)
    (warning,) = compare(ROWS, without(reason, 0.8), selection).warnings
    figures = rf"difficulty 0.80 to 1.00\) 40 of 200 train \(20%\), of all labels 84%; left out of it: 160 {reason[:3]}"
    assert re.search(f"{figures}.*{advice}", warning)


def test_what_is_left_out_evenly_however_much_is_no_reason_to_warn():
    reasons = ["not_drawn" if n % 10 else None for n in range(1000)]
    assert compare(ROWS, reasons, Selection(rows=100)).warnings == []


def test_labels_equally_hard_share_the_fifths_by_chance_whatever_the_draw_took():
    rows = [replace(row, difficulty=0.0) for row in ROWS]
    taken = {row.query for row in sorted(rows, key=lambda row: chance(0, row.query))[-300:]}  # as a draw of seed 0 does
    found = compare(rows, [None if row.query in taken else "not_drawn" for row in rows], Selection(rows=300))
    assert all(30 <= one.kept <= 90 for one in found.by_difficulty)
    assert found.warnings == []


def test_nothing_to_compare_is_nothing():
    assert compare([], [], Selection()).by_difficulty == []
    few = compare(ROWS[:3], ["rejected"] * 3, Selection())
    assert [one.whole for one in few.by_difficulty] == [1, 1, 1]
    assert few.warnings == []
