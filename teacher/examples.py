"""Few-shots: queries whose answer people verified, shown beside a query that is like them."""

from collections.abc import Container, Sequence

from labels.embed import Embedder
from labels.records import Example, Fact, Verdict
from teacher.index import TIE, Found, Index


class ExampleFinder:
    """Finds verified examples for queries. Verdicts are few: the index is flat and in memory."""

    def __init__(self, verdicts: Sequence[Verdict], held_out: Container[str], embedder: Embedder, least: float) -> None:
        """Examples are the queries whose latest verdict is right or corrected; never one in `held_out` (invariant 6).

        `least`: the cosine below which an example is not like the query, and not shown.
        """
        latest = {verdict.query: verdict for verdict in sorted(verdicts, key=lambda verdict: verdict.created)}
        self._answers = {
            query: verdict.value
            for query, verdict in sorted(latest.items())
            if verdict.decision != "cant_tell" and verdict.value is not None and query not in held_out
        }
        self._index = Index.of([Fact(line=query, indexed=query) for query in self._answers], embedder)
        self._least = least

    def __len__(self) -> int:
        """Examples that can be found."""
        return len(self._answers)

    def find(self, queries: Sequence[str], k: int) -> list[list[Example]]:
        """For each query up to `k` examples, best first, of equally near ones the first by text.

        Never the query itself: its verdict would judge the very answer that it gave.
        """
        if k < 1:
            return [[] for _ in queries]
        near = self._index.search(queries, 2 * k + 1)  # so that who is shown of equals depends on the text alone
        return [self._best(query, found, k) for query, found in zip(queries, near, strict=True)]

    def _best(self, query: str, found: Sequence[Found], k: int) -> list[Example]:
        fit = [it for it in found if it.text != query and it.score >= self._least]
        fit.sort(key=lambda it: (-round(it.score / TIE), it.text))
        return [Example(it.text, self._answers[it.text], it.score) for it in fit[:k]]
