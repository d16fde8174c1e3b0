"""What shoppers type that is about a person, masked: e-mail addresses, telephones, payment cards, house addresses."""

import re
from collections.abc import Sequence

MASKS = {kind: f"({kind})" for kind in ("email", "phone", "card", "address", "number")}

# An RE2 pattern over ASCII text as it was typed. What it does not match, `mask` leaves alone (a test proves it), so that
# SQL can tell the many queries that need no mask from the few that may.
_STREET = "st|street|ave|avenue|rd|road|blvd|boulevard|ln|lane|dr|drive|hwy|highway|pkwy|parkway"
SUSPECT = rf"@|[0-9](?:[^0-9A-Za-z]*[0-9]){{6}}|(?i:[0-9].*\b(?:{_STREET})\b)"

# A dot somewhere after the @; with blanks beside it the dot is one before letters: "milk @ 2.99" is a price.
_EMAIL = re.compile(r"(?<!\S)\S+(?:@[^\s.]*+\.\S+| ?@ ?(?:[^\s.@]++\.)+[^\W\d_]{2}\S*)")
# Digits, whatever stands between them but letters: nine and more, or seven after a plus.
_DIGITS = re.compile(r"[+(]*\d(?:[\W_]*\d){8,}|\+[\W_]*\d(?:[\W_]*\d){6,}")
# House number, one or two words, street word. A measure is no house number: "64 gb flash drive", "26 inch road bike".
_MEASURE = "gb|tb|mb|inch|in|ft|mm|cm|speed|wheel|pack|piece|volt|x"
_PART = "flash|hard|usb|pen|thumb|disk|disc|tape|optical|internal|external|dual|ssd"
_ADDRESS = re.compile(
    rf"(?<![\w.,/-])\d{{1,5}}[a-z]?[ ,]+(?!(?:{_MEASURE})\b)(?:(?!(?:{_PART})\b)(?:[^\W\d_]|['’.-])+[ ,]+){{1,2}}(?:{_STREET})\b"
)
_ZIP4 = re.compile(r"\d{5}-\d{4}")
_MAYBE = re.compile(r"[@\d]")
_ANY_MASK = re.compile("|".join(map(re.escape, MASKS.values())))
_WORD = re.compile(r"[^\W_]")

CARD_DIGITS = range(13, 20)  # ISO/IEC 7812
PHONE_DIGITS = 15  # E.164


def mask(query: str) -> tuple[str, frozenset[str]]:
    """The query (in normal form) with what is personal replaced by words such as "(email)", and the kinds found.

    Idempotent; the result is in normal form too. No nine digits in a row are left, however they are separated, and so
    no payment card.
    """
    kinds: set[str] = set()

    def put(kind: str) -> str:
        kinds.add(kind)
        return MASKS[kind]

    while _MAYBE.search(query):  # a mask can bring together what makes another; one or two rounds settle it
        masked = _EMAIL.sub(lambda _: put("email"), query)
        masked = _DIGITS.sub(lambda found: put(_kind(found[0])), masked)
        masked = _ADDRESS.sub(lambda _: put("address"), masked)
        if masked == query:
            break
        query = masked
    return query, frozenset(kinds)


def only_masks(query: str) -> bool:
    """Whether nothing but masks and punctuation is left of a query: it says what a person is, not what they look for."""
    return not _WORD.search(_ANY_MASK.sub("", query))


def luhn(digits: Sequence[int]) -> bool:
    """Whether the last digit checks the others by Luhn's formula (ISO/IEC 7812-1, annex B), as every card's does."""
    doubled = (2 * digit - 9 * (digit > 4) for digit in digits[-2::-2])
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def _kind(found: str) -> str:
    digits = [int(char) for char in found if char.isdecimal()]
    if any(luhn(digits[start : start + size]) for size in CARD_DIGITS for start in range(len(digits) - size + 1)):
        return "card"
    if _ZIP4.fullmatch(found):
        return "address"
    run = len(found) == len(digits)
    return "number" if len(digits) > PHONE_DIGITS or (run and len(digits) > 11) else "phone"
