"""What the dataset's tests share: distinct queries of invented words, their labels, and the dataset built from them."""

from labels.records import Label
from labels.semantic_roles import SemanticRoles
from student.dataset import MINIMUM_ROWS, build_dataset, read_dataset
from tests.labels.shop import label

WORDS = [
    f"{a}{b}" for a in ("quin", "zork", "plov", "mux", "brid") for b in ("tal", "dop", "ger", "wisk", "lum", "fent")
]
QUERIES = [f"{one} {other}" for one in WORDS for other in WORDS if one < other][: MINIMUM_ROWS + 60]


def value(product):
    return SemanticRoles(product=product, brand="", attributes=[]).to_json()


def accepted(query, sure=0.9, answer=None, **other) -> Label:
    given = {"query": query, "value": value(answer or query), "confidence": {"product": sure, "brand": 1.0}}
    return label(query, **given | other)


def build(tmp_path, labels, verdicts=(), gold=(), **how):
    dataset = build_dataset(SemanticRoles, labels, verdicts, gold, tmp_path, **how)
    return dataset, {row.query: row.value for row in read_dataset(dataset.folder)}
