import threading

import pyarrow as pa
import pytest

from labels.files import write_parquet
from labels.records import label_identity, now
from labels.semantic_roles import SemanticRoles
from labels.warehouse import QUERIES, Warehouse
from tests.labels.shop import label, verdict
from tests.labels.test_task import Outfit


@pytest.fixture
def house(tmp_path):
    return Warehouse(tmp_path / "it's a house")


def test_what_goes_in_comes_out_whole_and_in_the_order_asked(house):
    accepted = label(1, query="crème brûlée \N{GRINNING FACE}")
    failed = label(2, status="failed", value=None, confidence={}, reason="truncated after 64 tokens", facts=())
    rejected = label(3, status="rejected", reason="grounded: brand 'x' scores 0.10, needs 0.60")
    house.add_labels([accepted, failed])
    house.add_labels([rejected])
    assert house.labels(["id3", "nobody", "id1", "id2"]) == [rejected, accepted, failed]
    assert house.identities() == {"id1", "id2", "id3"}


def test_an_empty_warehouse_answers_every_question(house):
    assert house.identities() == set()
    assert house.labels(["id1"]) == []
    assert house.verdicts() == []
    for view in ("labels", "verdicts", "queries"):
        assert house.connect().execute(f"SELECT count(*) FROM {view}").fetchone() == (0,)
    house.add_labels([])
    assert not house.folder.exists()


def test_an_unfinished_file_of_a_killed_writer_is_not_read(house):
    house.add_labels([label(1)])
    chunk = next((house.folder / "labels").iterdir())
    (house.folder / "labels" / f".{chunk.name}.0123abcd.tmp").write_bytes(chunk.read_bytes()[:-9])
    house.add_labels([label(2)])
    assert house.identities() == {"id1", "id2"}


def test_the_latest_verdict_on_a_label_counts_and_none_is_lost(house):
    right, better = verdict(1, "right", "{}"), verdict(1, "corrected", '{"product":"oat milk"}')
    other = verdict(2, "cant_tell", created="2026-01-01T00:00:00+00:00")
    house.add_verdicts([other, right])
    house.add_verdicts([better])  # in the same second
    assert house.verdicts() == [other, better]
    assert house.connect().execute("SELECT count(*) FROM verdicts").fetchone() == (3,)


def test_a_correction_in_the_same_breath_is_later(house):
    for number in range(20):
        house.add_verdicts([verdict(1, "corrected", str(number), reviewer=f"r{number}")])
    assert house.verdicts()[0].value == "19"
    moments = [now() for _ in range(100)]
    assert moments == sorted(moments)
    assert len(set(moments)) > 1


def test_the_queries_of_all_nights_are_one_view_and_those_of_an_earlier_version_have_no_conversions(house):
    columns = {"query": ["milk", "tea"], "traffic": [2.0, 1.0], "night": ["n1", "n1"], "band": ["head", "tail"]}
    write_parquet(house.queries_file("n1"), pa.table(columns))
    bought = [[{"category": "dairy", "weight": 2.0}], None]
    later = pa.table(columns | {"night": ["n2", "n2"], "converted": bought})
    write_parquet(house.queries_file("n2"), later.select(QUERIES.names).cast(QUERIES))
    rows = house.connect().execute("SELECT night, sum(traffic) FROM queries GROUP BY night ORDER BY night").fetchall()
    assert rows == [("n1", 3.0), ("n2", 3.0)]
    kept = (
        house.connect().execute("SELECT night, converted FROM queries WHERE query = 'milk' ORDER BY night").fetchall()
    )
    assert kept == [("n1", None), ("n2", bought[0])]


def test_readers_see_whole_chunks_only_while_a_writer_adds(house):
    done, seen, errors = threading.Event(), [], []

    def read():
        while not done.is_set():
            try:
                seen.append(len(house.identities()))
            except Exception as error:
                errors.append(error)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for chunk in range(40):
        house.add_labels([label(f"{chunk}-{number}") for number in range(50)])
    done.set()
    for reader in readers:
        reader.join()
    assert not errors
    assert len(set(seen)) > 2, "the readers never overlapped the writer"
    assert all(count % 50 == 0 for count in seen)
    assert len(house.identities()) == 2000


def test_a_labels_identity_is_its_content():
    given = (SemanticRoles, "milk", "teacher-1", "prompt-1")
    others = [
        (Outfit, *given[1:]), (SemanticRoles, "milks", *given[2:]), (*given[:2], "teacher-2", given[3]),
        (*given[:3], "prompt-2"),
    ]  # fmt: skip
    assert label_identity(*given) == label_identity(*given)
    assert len({label_identity(*each) for each in [given, *others]}) == 5
