import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labels.normalise import normalise

ANY_TEXT = st.text(st.characters(exclude_categories=()))  # lone surrogates too
CONTROL = {"Cc", "Zl", "Zp"}


@given(ANY_TEXT)
def test_the_normal_form_of_any_text_is_its_own_normal_form(text):
    once = normalise(text)
    assert normalise(once) == once


@given(ANY_TEXT)
def test_any_normal_form_has_no_control_characters_and_single_inner_spaces_and_is_utf_8(text):
    normal = normalise(text)
    assert not [char for char in normal if unicodedata.category(char) in CONTROL]
    assert normal == " ".join(normal.split())
    assert normal.encode("utf-8").decode("utf-8") == normal


@given(st.text("abcxyzäé19", min_size=1, max_size=8), st.text(" \t\u00a0\u3000\n\x00\x1f", min_size=1, max_size=4))
def test_case_and_white_space_make_no_difference(word, space):
    assert normalise(f"{space}{word.upper()}{space}milk{space}") == f"{normalise(word)} milk"


def test_every_character_by_itself_settles_and_stays_without_control_characters():
    for number in range(sys.maxunicode + 1):
        once = normalise(chr(number))
        if once != chr(number):
            assert normalise(once) == once, hex(number)
        assert once == "" or unicodedata.category(once[0]) not in CONTROL, hex(number)


@pytest.mark.parametrize(
    ("typed", "normal"),
    [
        ("ＯＡＴ　ＭＩＬＫ", "oat milk"),
        ("Straße", "strasse"),
        ("café", "caf\u00e9"),
        ("cafe\u0301", "caf\u00e9"),
        ("ﬁg jam", "fig jam"),
        ("oat\x00milk\x1b[0m", "oat milk [0m"),
        ("oat\u2028milk", "oat milk"),
        ("a\ud800b", "a\ufffdb"),
        ("\ud83d\ude00", "\N{GRINNING FACE}"),  # a pair of surrogates is one character
        ("\u1f80\u0304", "\u1f00\u1fd1"),  # takes two rounds
        (" \t\r\n", ""),
    ],
)
def test_variants_fall_together(typed, normal):
    assert normalise(typed) == normal
