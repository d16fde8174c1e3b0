import csv
import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from labels.errors import InputError
from student.dataset import read_replay_rows
from student.replay import LONGEST, read_replay
from student.rows import Replay
from student.selection import Selection
from tests.student.rows import QUERIES, accepted, build

ROWS = [{"prompt": f"What is {n} and {n}?", "completion": f"It is {2 * n}."} for n in range(40)]
CHATS = [
    {"messages": [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row["completion"]}]}
    for row in ROWS
]
WANTED = {Replay([{"role": "user", "content": row["prompt"]}], row["completion"]).completion for row in ROWS}


def lines(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def text_csv(path, records):
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, records[0])
        table.writeheader()
        table.writerows(records)
    return path


def parquet(path, records):
    pq.write_table(pa.Table.from_pylist(records), path)
    return path


def zipped(path, records):
    path.write_bytes(gzip.compress("".join(json.dumps(record) + "\n" for record in records).encode()))
    return path


def folder(path, records):
    path.mkdir()
    lines(path / "train.jsonl", records)
    return path


@pytest.mark.parametrize(
    ("write", "name", "records"),
    [
        (lines, "a.jsonl", CHATS),
        (lines, "a.jsonl", ROWS),
        (lines, "a.jsonl", [{"prompt": chat["messages"][:1], "completion": chat["messages"][1:]} for chat in CHATS]),
        (zipped, "a.jsonl.gz", CHATS),
        (parquet, "a.parquet", CHATS),
        (text_csv, "a.csv", ROWS),
        (text_csv, "a.csv", [{"messages": json.dumps(chat["messages"])} for chat in CHATS]),
        (folder, "named", CHATS),
    ],
)
def test_rows_come_from_whatever_holds_conversations(tmp_path, write, name, records):
    found = read_replay(str(write(tmp_path / name, records)), 100, 0)
    assert {row.completion for row in found.rows} == WANTED
    assert sorted(row.prompt[0]["content"] for row in found.rows) == sorted(row["prompt"] for row in ROWS)
    assert (found.read, found.unusable, found.too_long, found.near_gold) == (40, 0, 0, 0)


def test_answers_that_are_numbers_are_texts(tmp_path):
    found = read_replay(str(text_csv(tmp_path / "a.csv", [{"prompt": "1 + 1", "completion": 2}])), 1, 0)
    assert found.rows == [Replay([{"role": "user", "content": "1 + 1"}], "2")]


def test_a_draw_is_the_same_whatever_the_order_and_another_by_another_seed(tmp_path):
    one, other = lines(tmp_path / "a.jsonl", ROWS), lines(tmp_path / "b.jsonl", ROWS[::-1])
    drawn = read_replay(str(one), 10, 0).rows
    assert len(drawn) == 10
    assert read_replay(str(other), 10, 0).rows == drawn
    assert read_replay(str(one), 10, 1).rows != drawn
    assert read_replay(str(one), 11, 0).rows[:10] == drawn


def test_what_no_template_can_hold_is_counted_and_not_drawn(tmp_path):
    def chat(*said):
        return {"messages": [{"role": role, "content": content} for role, content in said]}

    good = chat(("system", "be short"), ("user", "a"), ("assistant", "b"), ("user", "c < d"), ("assistant", "e"))
    bad = [
        chat(("user", "no answer")), chat(("user", "a"), ("assistant", "")), chat(("assistant", "unasked")),
        chat(("user", "a"), ("tool", "b"), ("assistant", "c")), chat(("user", "a<|eot_id|>"), ("assistant", "c")),
        chat(("user", "a"), ("assistant", "[INST] c")), {"messages": []}, {"messages": None},
    ]  # fmt: skip
    long = [chat(("user", "a" * LONGEST), ("assistant", "c")), chat(("user", "a" * (LONGEST - 1)), ("assistant", "c"))]
    found = read_replay(str(lines(tmp_path / "a.jsonl", [*bad, good, *long])), 100, 0)
    assert sorted(len(row.prompt) for row in found.rows) == [1, 4]
    assert (found.read, found.unusable, found.too_long) == (len(bad) + 3, len(bad), 1)


def test_what_is_near_gold_is_not_replayed_wherever_a_user_says_it(tmp_path):
    asked = [{"role": "user", "content": "Oat  milk barista"}, {"role": "assistant", "content": "yes"}]
    chats = [{"messages": asked}, {"messages": [*asked, *CHATS[0]["messages"]]}, CHATS[1]]
    for gold in ("oat milk barista", "barista oat milks"):
        found = read_replay(str(lines(tmp_path / "a.jsonl", chats)), 3, 0, [gold])
        assert ([row.completion for row in found.rows], found.near_gold) == (["It is 2."], 2)


@pytest.mark.parametrize(
    ("name", "text", "wanted"),
    [
        ("a.jsonl", '{"text": "a"}\n', "has the columns text; wanted messages"),
        ("a.jsonl", '{"prompt": "a"}\n', "has the columns prompt; wanted messages"),
        (
            "a.jsonl",
            '{"prompt": "a", "completion": ""}\n',
            "none of its 1 rows can be used .*row 1: wanted messages of",
        ),
        ("a.jsonl", "{broken\n", "can't be read"),
        ("a.parquet", "PAR1 not", "can't be read"),
        ("a.jsonl", "", "can't be read: StopIteration"),
        ("a.jsonl", "\n", "can't be read|none of its 0 rows"),
        ("a.txt", "hello", "wanted a file ending in .jsonl"),
    ],
)
def test_a_source_that_cannot_be_used_is_refused_with_what_was_wanted(tmp_path, name, text, wanted):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=wanted):
        read_replay(str(tmp_path / name), 5, 0)


def test_a_source_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"no such file; check the path"):
        read_replay(str(tmp_path / "away.jsonl"), 5, 0)
    with pytest.raises(InputError, match=r"replay nobody/has-this can't be read"):
        read_replay("nobody/has-this", 5, 0)


def test_a_dataset_holds_its_share_of_general_rows_and_is_another_without(tmp_path):
    source = lines(tmp_path / "general.jsonl", CHATS)
    labels = [accepted(query) for query in QUERIES]
    selection = Selection(replay=str(source), replay_share=0.1)
    dataset, _ = build(tmp_path / "d", labels, selection=selection)
    rows = read_replay_rows(dataset.folder)
    assert dataset.replay == len(rows) == 16
    assert rows == read_replay(str(source), 16, 0).rows
    without, _ = build(tmp_path / "d", labels)
    assert read_replay_rows(without.folder) == []
    assert without.folder != dataset.folder
