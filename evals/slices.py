"""How good an author is on parts of the gold: by traffic band, language, length, and what training had shown before."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evals.metrics import Interval, Pairs, Score, difference_interval, score
from labels.task import Task

LENGTHS = ((1, "1 word"), (3, "2-3 words"), (5, "4-5 words"))
LONGEST = "6+ words"
SEEN, UNSEEN = "seen in training", "unseen in training"

Item = tuple[str, str]


@dataclass(frozen=True)
class Slice:
    """The queries that share a `value` of the property `by`; `difference` is the interval of F1(student) - F1(teacher)."""

    by: str
    value: str
    student: Score
    teacher: Score | None
    difference: Interval | None

    def to_json(self) -> dict[str, Any]:
        """A dict `json.dumps` takes: of each author F1 and its interval."""
        rounded = [round(end, 4) for end in self.difference] if self.difference else None
        return {
            "by": self.by,
            "value": self.value,
            "queries": self.student.queries,
            "student": _short(self.student),
            "teacher": _short(self.teacher) if self.teacher else None,
            "difference": rounded,
        }


def slices(groups: Mapping[str, Sequence[str]], student: Pairs, teacher: Pairs | None) -> list[Slice]:
    """The slices of each property in `groups`, which gives every pair's value of it, "" for none.

    `student` and `teacher` are (answer, gold) of the same queries in the same order. The values come in the order of
    ORDER where they are there, else the commonest first.
    """
    found = []
    for by, values in groups.items():
        for value in _ordered(values):
            places = [place for place, one in enumerate(values) if one == value]
            ours = [student[place] for place in places]
            theirs = [teacher[place] for place in places] if teacher else None
            difference = difference_interval(ours, theirs) if theirs else None
            found.append(Slice(by, value, score(ours), score(theirs) if theirs else None, difference))
    return found


def length_of(query: str) -> str:
    """How long a query is, in words."""
    words = len(query.split())
    return next((name for most, name in LENGTHS if words <= most), LONGEST)


def novelty(golds: Sequence[Task], seen: Collection[Item], field: str | None = None) -> list[str]:
    """Whether all that the gold names (in `field` alone, where one is given) was among the answers the student learnt,
    `seen`; "" where it names nothing.
    """
    named = [{item for item in gold.items() if field in (None, item[0])} for gold in golds]
    known = frozenset(seen)
    return ["" if not items else SEEN if items <= known else UNSEEN for items in named]


ORDER = ("head", "torso", "tail", *(name for _, name in LENGTHS), LONGEST, SEEN, UNSEEN)


def _ordered(values: Sequence[str]) -> list[str]:
    count = Counter(value for value in values if value)
    place = {value: number for number, value in enumerate(ORDER)}
    return sorted(count, key=lambda value: (place.get(value, len(ORDER)), -count[value], value))


def _short(found: Score) -> dict[str, Any]:
    return {"f1": round(found.f1, 4), "f1_interval": [round(end, 4) for end in found.f1_interval]}
