"""Who may ask: API keys, each with its caller's name."""

import hmac
from collections.abc import Iterable, Mapping
from hashlib import sha256

from labels.errors import SettingsError


class ApiKeys:
    """The keys of callers. Only digests are kept, and no message or log holds a key."""

    def __init__(self, keys: Mapping[str, str]) -> None:
        """`keys` is by the caller's name."""
        self.names = tuple(keys)
        self._digests = [sha256(key.encode()).digest() for key in keys.values()]

    def number(self, key: bytes) -> int | None:
        """Whose key it is, as an index of `names`; None for nobody's. The time taken tells nothing of any key."""
        digest = sha256(key).digest()
        found = None
        for number, known in enumerate(self._digests):  # to the end, whichever it is
            if hmac.compare_digest(digest, known):
                found = number
        return found


def parse_api_keys(text: str) -> ApiKeys | None:
    """The keys in "name:key,name:key"; None for no text. Raises SettingsError, which names no key."""
    if not text:
        return None
    pairs = [pair.strip() for pair in text.split(",") if pair.strip()]
    keys: dict[str, str] = {}
    for number, pair in enumerate(pairs, 1):
        name, colon, key = (part.strip() for part in pair.partition(":"))
        if not (name and colon and key and key.isascii() and key.isprintable()) or " " in key:
            raise SettingsError(
                f"STILLHOUSE_API_KEYS: wanted name:key,name:key in visible ASCII, got something else in place {number};"
                " set it right"
            )
        if name in keys:
            raise SettingsError(f"STILLHOUSE_API_KEYS: {name!r} has two keys; give each a name of its own")
        if key in keys.values():
            raise SettingsError(f"STILLHOUSE_API_KEYS: {name!r} has the key of another; give each a key of its own")
        keys[name] = key
    if not keys:  # somebody meant to set some: that is no leave to answer everybody
        raise SettingsError("STILLHOUSE_API_KEYS: wanted name:key,name:key, got no key; set it right or unset it")
    return ApiKeys(keys)


def key_of(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The key a request sends, as `Authorization: Bearer …` or `X-API-Key: …`; b"" for none."""
    for name, value in headers:
        if name == b"x-api-key":
            return value.strip()
        if name == b"authorization" and value[:7].lower() == b"bearer ":
            return value[7:].strip()
    return b""
