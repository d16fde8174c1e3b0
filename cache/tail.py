"""What the student answered, kept in Redis beside the head, so that it is asked for a query of the tail once a day."""

from cache.answer import Found, Opener
from cache.layout import BrokenError, entry, seal, unseal


def pack_answer(student: str, value: dict[str, object], confidence: float, made: int) -> bytes:
    """A student's answer as it lies in Redis: who answered, then its entry. Two students may share a generation."""
    return seal(f"{student}\n{entry(value, confidence, 'student', made)}".encode())


def open_answer(raw: bytes, student: str, opener: Opener) -> Found | None:
    """The reverse; None for an answer of another student. Raises BrokenError where it is none."""
    by, _, text = unseal(raw).partition(b"\n")
    if not text:
        raise BrokenError("wanted a student and its entry")
    return opener.open(text, "tail-cache", 0) if by == student.encode() else None
