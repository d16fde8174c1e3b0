"""The one normal form of a query: the log, the publisher and lookup all use this function."""

import unicodedata

NORMALISATION_VERSION = 1
MAX_QUERY_CHARS = 200


def normalise(text: str) -> str:
    """The normal form of any text: NFKC, casefolded, control characters and runs of white space as one space.

    Idempotent. Lone surrogates (from broken escapes) become U+FFFD, so that the result always encodes as UTF-8.
    """
    if not text.isascii():
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    while (folded := _fold(text)) != text:  # folding can denormalise and the reverse; two or three rounds settle it
        text = folded
    return text


def _fold(text: str) -> str:
    text = unicodedata.normalize("NFKC", text).casefold()
    if not text.isprintable():
        text = "".join(" " if unicodedata.category(char) in {"Cc", "Zl", "Zp", "Zs"} else char for char in text)
    return " ".join(text.split())
