"""Labels that the student and the neighbours contradict: confident learning, by the cleanlab library.

Each word of a query is a token, and its class is the field whose value holds it, or none. What the other labels make
of such a word is a classifier's guess that never saw the label; what the student answers is blended in. The label's
quality is that of its least likely word (Wang & Mueller 2022, "Detecting Label Errors in Token Classification Data",
arXiv:2210.03920). Values of a closed set are no words of the query: there the nearest queries' values are the guess.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from rapidfuzz import fuzz

from labels.guardrails import InTaxonomy, Similar, guardrails_of
from labels.records import Label
from labels.task import Task

FOLDS = 5
STUDENT_SHARE = 0.5
"""How much the student's answer weighs beside the neighbours', where there is one."""
SAME_WORD = 70.0
"""From this rapidfuzz ratio on, a word of the query is a value's word, mistyped."""
FEATURES = 2**16
NEIGHBOURS = 10
ROWS = 1024
"""Labels compared with all the others at a time."""

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def suspects(
    task: type[Task], labels: Sequence[Label], student: Mapping[str, Task], seed: int = 0
) -> dict[str, float]:
    """The quality of each accepted label, 0 (suspect) to 1, by its identity.

    `student` maps a query to the student's answer, where it was asked. A label with nothing to compare it with has 1.
    The order of `labels` does not matter. Raises InputError where a label's value breaks the task's schema.
    """
    given = {label.identity: label for label in labels if label.status == "accepted"}
    ordered = [given[identity] for identity in sorted(given)]
    queries = [label.query for label in ordered]
    answers = [task.parse(label.value or "") for label in ordered]
    said = [student.get(query) for query in queries]
    folds = np.random.default_rng(seed).permutation(len(ordered)) % FOLDS
    quality = np.ones(len(ordered))
    worded, closed = _fields(task)
    if len(ordered) >= FOLDS:
        if worded:
            quality = np.minimum(quality, _word_quality(worded, queries, answers, said, folds))
        for field in closed:
            quality = np.minimum(quality, _closed_quality(field, queries, answers, said))
    return {label.identity: round(float(one), 6) for label, one in zip(ordered, quality, strict=True)}


def _fields(task: type[Task]) -> tuple[list[str], list[str]]:
    """The fields whose values are words of the query, and those of a closed set; a rewrite, free text, is neither."""
    rails = guardrails_of(task)
    closed = [name for name, held in rails.items() if any(isinstance(rail, InTaxonomy) for rail in held)]
    free = [name for name, held in rails.items() if any(isinstance(rail, Similar) for rail in held)]
    return [name for name in rails if name not in {*closed, *free}], closed


def _word_quality(
    fields: Sequence[str],
    queries: Sequence[str],
    answers: Sequence[Task],
    said: Sequence[Task | None],
    folds: Ints,
) -> Floats:
    from cleanlab.token_classification.rank import get_label_quality_scores

    words = [query.split() for query in queries]
    lengths = [len(own) for own in words]
    classes = [_classes(own, answer, fields) for own, answer in zip(words, answers, strict=True)]
    guesses = _guesses(words, np.concatenate(classes), np.repeat(folds, lengths), len(fields) + 1)
    blended = []
    for own, answer, guess in zip(words, said, np.split(guesses, np.cumsum(lengths)[:-1]), strict=True):
        if answer is not None:
            told = np.eye(len(fields) + 1)[_classes(own, answer, fields)]
            guess = STUDENT_SHARE * told + (1 - STUDENT_SHARE) * guess
        blended.append(guess)
    quality, _ = get_label_quality_scores([own.tolist() for own in classes], blended)
    return np.asarray(quality, np.float64)


def _classes(words: Sequence[str], answer: Task, fields: Sequence[str]) -> Ints:
    """For each word the number of the field whose value holds it, from 1; 0 for none."""
    held = [(fields.index(name) + 1, word) for name, value in answer.items() if name in fields for word in value.split()]
    held.sort()
    found = []
    for word in words:
        nearest = max(held, key=lambda one: fuzz.ratio(word, one[1]), default=(0, ""))
        found.append(nearest[0] if fuzz.ratio(word, nearest[1]) >= SAME_WORD else 0)
    return np.array(found, np.int64)


def _guesses(words: Sequence[Sequence[str]], classes: Ints, folds: Ints, count: int) -> Floats:
    """For each word the chance of each class, by a classifier trained on the other folds' labels."""
    from sklearn.feature_extraction.text import HashingVectorizer
    from sklearn.linear_model import LogisticRegression

    hasher = HashingVectorizer(analyzer=list, n_features=FEATURES, alternate_sign=False)
    features = hasher.transform(_features(own, place) for own in words for place in range(len(own)))
    guesses = np.zeros((len(classes), count))
    for fold in range(FOLDS):
        train, test = folds != fold, folds == fold
        seen = np.unique(classes[train])
        if len(seen) == 1:
            guesses[np.ix_(test, seen)] = 1
        else:
            fitted = LogisticRegression(C=10, max_iter=100, tol=1e-3).fit(features[train], classes[train])
            guesses[np.ix_(test, seen)] = fitted.predict_proba(features[test])
    return guesses


def _features(words: Sequence[str], place: int) -> list[str]:
    """The word, its 2- to 4-grams, and the words beside it."""
    marked = f"^{words[place]}$"
    before, after = words[place - 1] if place else "", words[place + 1] if place + 1 < len(words) else ""
    grams = [marked[start : start + size] for size in (2, 3, 4) for start in range(len(marked) - size + 1)]
    return [marked, f"< {before}", f"> {after}", *grams]
