import gzip
import json

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from labels.errors import InputError
from labels.tables import open_table, reading


def rows(path, columns):
    with reading("the log", path):
        return open_table(duckdb.connect(), path, columns, "the log").fetchall()


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def refused(path, **columns):
    with pytest.raises(InputError) as caught:
        rows(path, columns or {"query": "query"})
    return str(caught.value)


def test_a_missing_file_an_unknown_ending_and_a_folder_are_said_plainly(tmp_path):
    assert refused(tmp_path / "log.csv") == f"the log {tmp_path}/log.csv: there is no such file; check the path"
    wanted = "wanted .parquet, .csv, .tsv, .jsonl, .ndjson (or .gz of a text one), got "
    assert wanted + ".xlsx" in refused(write(tmp_path / "log.xlsx", "x"))
    assert wanted + "no ending" in refused(tmp_path)
    (tmp_path / "folder.csv").mkdir()
    assert "no such file" in refused(tmp_path / "folder.csv")


def test_a_wrong_column_is_named_with_the_nearest_one_and_the_flag_that_rights_it(tmp_path):
    path = write(tmp_path / "log.csv", "serch_term,when\nmilk,1\n")
    assert refused(path, query="search_term") == (
        f"the log {path} has no column 'search_term'; did you mean 'serch_term'? It has: serch_term, when. "
        "Name the right one: --set log.query=COLUMN"
    )
    assert "has no column 'query'. It has: serch_term, when." in refused(path)


@pytest.mark.parametrize("name", ["log.csv", "log.jsonl", "log.parquet"])
def test_an_empty_file_is_called_empty(tmp_path, name):
    assert f"{name} is empty; wanted at least the columns query" in refused(write(tmp_path / name, ""))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("log.csv", "query,n\nmilk,1\ncaf\xe9,2\n"),
        ("log.csv", "query\n" + "milk\n" * 40_000 + "caf\xe9\n"),  # far behind what a sniffer looks at
        ("log.tsv", "query\tn\ncaf\xe9\t1\n"),
        ("log.jsonl", '{"query": "caf\xe9"}\n'),
    ],
)
def test_bytes_that_are_not_utf_8_are_refused_with_the_way_to_convert_them(tmp_path, name, content):
    said = refused(write(tmp_path / name, content.encode("latin-1")))
    assert f"the log {tmp_path}/{name} can't be read" in said
    assert "iconv -f latin1 -t utf-8" in said


def test_a_broken_file_is_an_input_error_with_its_line(tmp_path):
    assert "can't be read" in refused(write(tmp_path / "log.parquet", "PAR1 this is not Parquet PAR1"))
    assert "can't be read" in refused(write(tmp_path / "log.csv.gz", "query\nmilk\n"))
    assert "in line" in refused(write(tmp_path / "log.jsonl", '{"query": "milk"}\n{"query": "te\n'))
    said = refused(write(tmp_path / "log.csv", "query,n\nmilk,1\n" + "x" * 3_000_000 + ",2\n"))
    assert "Maximum line size" in said
    assert len(said) < 500


def test_no_message_repeats_what_a_shopper_typed(tmp_path):
    content = "query,n\nmilk,1\nann.other@example.com caf\xe9,2\n".encode("latin-1")
    assert "ann.other" not in refused(write(tmp_path / "log.csv", content))


def test_every_kind_of_file_gives_the_same_rows(tmp_path):
    table = [
        {"Search Term": "oat, milk", "n": "1"},
        {"Search Term": 'a "b"', "n": "2"},
        {"Search Term": None, "n": "3"},
    ]
    lines = "".join(json.dumps(row) + "\n" for row in table)
    csv = 'Search Term{0}n\n"oat, milk"{0}1\n"a ""b"""{0}2\n{0}3\n'
    made = [
        write(tmp_path / "a.csv", csv.format(",")),
        write(tmp_path / "b.csv", csv.format(";")),
        write(tmp_path / "c.csv", csv.format("|")),
        write(tmp_path / "d.csv", "\ufeff" + csv.format(",").replace("\n", "\r\n")),
        write(tmp_path / "e.tsv", csv.format("\t")),
        write(tmp_path / "f.csv.gz", gzip.compress(csv.format(",").encode())),
        write(tmp_path / "g.jsonl", lines),
        write(tmp_path / "h.jsonl.gz", gzip.compress(lines.encode())),
        write(tmp_path / "i.ndjson", lines),
    ]
    pq.write_table(pa.Table.from_pylist(table), tmp_path / "j.parquet")
    for path in [*made, tmp_path / "j.parquet"]:
        found = rows(path, {"query": "Search Term", "time": None, "count": "n"})
        assert [(query or None, count) for query, count in found] == [("oat, milk", "1"), ('a "b"', "2"), (None, "3")]


def test_a_csv_of_one_column_is_read_line_by_line_whatever_its_lines_hold(tmp_path):
    typed = ["milk", "oat; milk", "red; wine", "salt|pepper", "rice, brown", '6" pipe', "a\tb"]
    path = write(tmp_path / "log.csv", "query\n" + "\n".join(typed) + "\n")
    assert [row[0] for row in rows(path, {"query": "query"})] == typed


def test_json_lines_that_mix_numbers_and_text_give_text(tmp_path):
    path = write(tmp_path / "log.jsonl", '{"query": 7}\n{"query": "milk"}\n')
    assert rows(path, {"query": "query"}) == [("7",), ("milk",)]


@pytest.mark.parametrize("name", ["l[1].csv", "l*.csv", "l?.csv", "o'clock.csv", "a {path}.csv"])
def test_a_name_is_a_name_and_no_pattern(tmp_path, name):
    write(tmp_path / "l1.csv", "query\nanother file\n")
    assert rows(write(tmp_path / name, "query\nmilk\n"), {"query": "query"}) == [("milk",)]


def test_a_columns_name_is_a_name_and_no_sql(tmp_path):
    path = write(tmp_path / "log.csv", 'id,"q"" FROM x; --"\n1,milk\n')
    assert rows(path, {"query": 'q" FROM x; --'}) == [("milk",)]


def test_a_pattern_is_every_file_it_matches_each_with_its_own_delimiter_order_and_types(tmp_path):
    write(tmp_path / "day-1.csv", "query,n\nmilk,1\n")
    write(tmp_path / "day-2.csv", "n;query\n2;tea\n")
    write(tmp_path / "day-3.csv.gz", gzip.compress(b"query|n\njam|3\n"))
    write(tmp_path / ".day-4.csv", "half written")
    columns = {"query": "query", "count": "n"}
    assert rows(tmp_path / "day-*", columns) == [("milk", "1"), ("tea", "2"), ("jam", "3")]
    assert rows(str(tmp_path / "day-[12].csv"), columns) == [("milk", "1"), ("tea", "2")]
    for name, count in (("a", 1), ("b", 2.5)):
        pq.write_table(pa.table({"n": [count], "query": [name]}), tmp_path / f"{name}.parquet")
    assert rows(tmp_path / "?.parquet", columns) == [("a", 1.0), ("b", 2.5)]  # 2.5 is not cut to the first file's type
    (tmp_path / "deep" / "er").mkdir(parents=True)
    write(tmp_path / "deep" / "er" / "log.jsonl", '{"query": "salt", "n": 4}\n')
    assert rows(tmp_path / "**" / "*.jsonl", columns) == [("salt", 4)]


def test_a_pattern_of_no_files_of_several_kinds_or_with_one_unfit_file_is_said_plainly(tmp_path):
    write(tmp_path / "a.csv", "query\nmilk\n")
    write(tmp_path / "b.csv", "qery\ntea\n")
    write(tmp_path / "a.jsonl", '{"query": "milk"}\n')
    assert refused(tmp_path / "x*.csv") == f"the log {tmp_path}/x*.csv: no file matches; check the pattern"
    assert "files of several kinds (.csv, .jsonl); wanted one kind" in refused(tmp_path / "a.*")
    assert f"the log {tmp_path}/b.csv has no column 'query'; did you mean 'qery'?" in refused(tmp_path / "*.csv")
    write(tmp_path / "b.csv", "")
    assert f"the log {tmp_path}/b.csv is empty" in refused(tmp_path / "*.csv")


def test_a_file_with_the_patterns_own_name_is_that_file(tmp_path):
    write(tmp_path / "l1.csv", "query\nanother\n")
    assert rows(write(tmp_path / "l[1].csv", "query\nmilk\n"), {"query": "query"}) == [("milk",)]
    (tmp_path / "l[1].csv").unlink()
    assert rows(tmp_path / "l[1].csv", {"query": "query"}) == [("another",)]


def test_parquet_text_that_is_not_marked_as_text_is_read_as_text(tmp_path):
    pq.write_table(pa.table({"query": pa.array(["café".encode()], pa.binary())}), tmp_path / "log.parquet")
    assert rows(tmp_path / "log.parquet", {"query": "query"}) == [("café",)]
    pq.write_table(pa.table({"query": pa.array([b"caf\xe9"], pa.binary())}), tmp_path / "log.parquet")
    assert "iconv" in refused(tmp_path / "log.parquet")


@pytest.mark.parametrize("name", ["log.csv", "log.jsonl"])
@pytest.mark.parametrize("missing", [4, 1_000])
def test_a_truncated_gzip_is_one_clear_error(tmp_path, name, missing):
    line = "{},1\n" if name == "log.csv" else '{{"query": "{}"}}\n'
    text = "query,n\n" * (name == "log.csv") + "".join(line.format(number * 7919) for number in range(5_000))
    path = write(tmp_path / f"{name}.gz", gzip.compress(text.encode())[:-missing])
    assert "can't be read: IO Error: Unexpected end of GZIP stream" in refused(path)


def test_half_a_surrogate_pair_in_json_lines_is_mended_and_all_else_left(tmp_path):
    texts = [
        "a\ud83d",
        "\N{GRINNING FACE}",
        "\\ud800",
        "\\\ud800x",
        "\ud800\N{GRINNING FACE}",
        'say "\u00e9"',
        "a/b~c",
        "\0\x1f",
    ]
    path = write(tmp_path / "log.jsonl", "".join(json.dumps({"a/b~'c": text, "n": 1}) + "\n" for text in texts) + "\n")
    assert [row for (row,) in rows(path, {"query": "a/b~'c"})] == [
        text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace") for text in texts
    ]
