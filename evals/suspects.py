"""Labels that the student and the neighbours contradict: confident learning, by the cleanlab library.

Each word of a query is a token, and its class is the field whose value holds it, or none. What other labels make of
such a word is the guess of a classifier that never saw this label; what the student answers is blended in. A label is
as good as its least likely word (Wang & Mueller 2022, "Detecting Label Errors in Token Classification Data",
arXiv:2210.03920). Values of a closed set are no words of the query: there the values of the nearest queries are the
guess (Thyagarajan et al. 2022, "Identifying Incorrect Annotations in Multi-Label Classification Data", arXiv:2211.13895).
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from rapidfuzz import fuzz

from evals.fields import fields_of
from labels.embed import NgramEmbedder, fit_idf
from labels.records import Label
from labels.task import Task

FOLDS = 5
STUDENT_SHARE = 0.5
"""How much the student's answer weighs beside the neighbours', where there is one."""
SAME_WORD = 70.0
"""From this likeness (0 to 100) on a word of the query is a value's word, mistyped or shortened."""
FEATURES = 2**16
NEIGHBOURS = 10
ROWS = 1024
"""Queries compared with all the others at a time."""

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Words = Sequence[Sequence[str]]


def suspects(task: type[Task], labels: Sequence[Label], student: Mapping[str, Task], seed: int = 0) -> dict[str, float]:
    """The quality of each accepted label, 0 (suspect) to 1, by its identity.

    `student` maps a query to the student's answer, where it was asked. Where there is nothing to compare (fewer than
    `FOLDS` labels, or fields of free text alone) it is 1. The order of `labels` does not matter. Raises InputError where
    a label's value breaks the task's schema.
    """
    given = {label.identity: label for label in labels if label.status == "accepted"}
    if len(given) < FOLDS:
        return dict.fromkeys(given, 1.0)
    ordered = [given[identity] for identity in sorted(given)]
    queries = [label.query for label in ordered]
    answers = [task.parse(label.value or "") for label in ordered]
    said = [student.get(query) for query in queries]
    quality = np.ones(len(ordered))
    fields = fields_of(task)
    if fields.worded:
        folds = np.random.default_rng(seed).permutation(len(ordered)) % FOLDS
        quality = np.minimum(quality, _word_quality(fields.worded, queries, answers, said, folds))
    if fields.closed:
        near = _nearest(queries)
        for field in fields.closed:
            quality = np.minimum(quality, _closed_quality(field, answers, said, near))
    return {label.identity: round(float(one), 6) for label, one in zip(ordered, quality, strict=True)}


def _word_quality(
    fields: Sequence[str], queries: Sequence[str], answers: Sequence[Task], said: Sequence[Task | None], folds: Ints
) -> Floats:
    from cleanlab.token_classification.rank import get_label_quality_scores

    words = [query.split() or [""] for query in queries]
    lengths = [len(own) for own in words]
    classes = [_classes(own, answer, fields) for own, answer in zip(words, answers, strict=True)]
    guesses = _guesses(words, np.concatenate(classes), np.repeat(folds, lengths), len(fields) + 1)
    each = np.split(guesses, np.cumsum(lengths)[:-1])
    for place, answer in enumerate(said):
        if answer is not None:
            told = np.eye(len(fields) + 1)[_classes(words[place], answer, fields)]
            each[place] = STUDENT_SHARE * told + (1 - STUDENT_SHARE) * each[place]
    quality, _ = get_label_quality_scores([own.tolist() for own in classes], each)
    return np.asarray(quality, np.float64)


def _classes(words: Sequence[str], answer: Task, fields: Sequence[str]) -> Ints:
    """For each word the number of the field whose value holds it, from 1, and 0 for none."""
    number = {name: place for place, name in enumerate(fields, start=1)}
    held = [(number[name], part) for name, value in answer.items() if name in number for part in value.split()]
    found = []
    for word in words:
        ratio, field = max(((_likeness(word, part), -field) for field, part in held), default=(0.0, 0))
        found.append(-field if ratio >= SAME_WORD else 0)
    return np.array(found, np.int64)


def _likeness(word: str, part: str) -> float:
    """rapidfuzz's ratio, or 90 where one begins the other: an abbreviation ("choc"), or words written as one."""
    return max(fuzz.ratio(word, part), 90.0 * (word.startswith(part) or part.startswith(word)))


def _guesses(words: Words, classes: Ints, folds: Ints, count: int) -> Floats:
    """For each word the chance of each of `count` classes, by a classifier trained on the labels of other folds."""
    from sklearn.feature_extraction.text import HashingVectorizer
    from sklearn.linear_model import SGDClassifier

    hasher = HashingVectorizer(analyzer=list, n_features=FEATURES, alternate_sign=False)
    features = hasher.transform(_features(own, place) for own in words for place in range(len(own)))
    guesses = np.zeros((len(classes), count))
    for fold in range(FOLDS):
        train, test = folds != fold, folds == fold
        seen = np.unique(classes[train])
        if len(seen) == 1:
            guesses[np.ix_(test, seen)] = 1
            continue
        # Logistic regression by averaged gradient descent: a third of lbfgs's time and better ranked.
        model = SGDClassifier(loss="log_loss", alpha=1e-5, max_iter=5, tol=None, average=True, random_state=0)
        guesses[np.ix_(test, seen)] = model.fit(features[train], classes[train]).predict_proba(features[test])
    return guesses


def _features(words: Sequence[str], place: int) -> list[str]:
    """The word, its 2- to 4-grams, and the words beside it."""
    marked = f"^{words[place]}$"
    before, after = words[place - 1] if place else "", words[place + 1] if place + 1 < len(words) else ""
    grams = [marked[start : start + size] for size in (2, 3, 4) for start in range(len(marked) - size + 1)]
    return [marked, f"< {before}", f"> {after}", *grams]


def _nearest(queries: Sequence[str]) -> Ints:
    """For each query the numbers of the `NEIGHBOURS` nearest others (all, where there are fewer)."""
    vectors = NgramEmbedder(fit_idf(queries)).embed(queries)
    count = min(NEIGHBOURS, len(queries) - 1)
    near = []
    for start in range(0, len(queries), ROWS):
        cosines = vectors[start : start + ROWS] @ vectors.T
        own = np.arange(len(cosines))
        cosines[own, start + own] = -2
        near.append(np.argpartition(-cosines, count - 1, axis=1)[:, :count])
    return np.concatenate(near).astype(np.int64)


def _closed_quality(field: str, answers: Sequence[Task], said: Sequence[Task | None], near: Ints) -> Floats:
    """A value is as likely as the share of the nearest queries that have it; none is a value too."""
    from cleanlab.multilabel_classification.rank import get_label_quality_scores_per_class

    held = [_values(answer, field) for answer in answers]
    told = [_values(answer, field) if answer is not None else () for answer in said]
    number = {value: place for place, value in enumerate(sorted({one for own in [*held, *told] for one in own}))}
    mine, students = _marked(held, number), _marked(told, number)
    guesses = np.concatenate([mine[near[start : start + ROWS]].mean(axis=1) for start in range(0, len(near), ROWS)])
    asked = [place for place, answer in enumerate(said) if answer is not None]
    guesses[asked] = STUDENT_SHARE * students[asked] + (1 - STUDENT_SHARE) * guesses[asked]
    each = get_label_quality_scores_per_class([sorted(number[one] for one in own) for own in held], guesses)
    return np.asarray(each.min(axis=1), np.float64)


def _values(answer: Task, field: str) -> tuple[str, ...]:
    return tuple(value for name, value in answer.items() if name == field) or ("",)


def _marked(values: Sequence[tuple[str, ...]], number: Mapping[str, int]) -> Floats:
    """1 where a label has a value, shape (labels, values)."""
    marked = np.zeros((len(values), len(number)))
    for place, own in enumerate(values):
        marked[place, [number[one] for one in own]] = 1
    return marked
