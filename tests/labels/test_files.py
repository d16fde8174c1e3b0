import subprocess
import sys
import textwrap

import duckdb
import pytest

from flows.settings import ROOT
from labels.files import digest, digest_files, fresh_folder, read_manifest, replacing, write_json, write_manifest
from labels.warehouse import Warehouse
from tests.labels.shop import label


def test_a_block_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "release.json"
    write_json(path, {"release": 1})

    def fail_half_way():
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail_half_way()
    assert path.read_text() == '{\n  "release": 1\n}\n'
    assert list(tmp_path.iterdir()) == [path]


def test_the_old_file_stands_until_the_block_ends_and_then_the_new_one(tmp_path):
    path = tmp_path / "deep" / "file.txt"
    with replacing(path) as temporary:
        temporary.write_text("old")
        assert not path.exists()
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"


def test_a_folder_without_its_manifest_is_not_there_and_a_fresh_one_is_empty(tmp_path):
    assert read_manifest(tmp_path / "never") is None
    folder = fresh_folder(tmp_path / "index")
    (folder / "vectors").write_text("half")
    assert read_manifest(folder) is None
    assert list(fresh_folder(folder).iterdir()) == []
    write_manifest(folder, rows=3)
    assert read_manifest(folder) == {"rows": 3}


def test_a_digest_changes_with_any_part_and_only_then(tmp_path):
    parts = ("task", 1, ["a", "b"], {"x": 1, "y": 2})
    assert digest(*parts) == digest("task", 1, ["a", "b"], {"y": 2, "x": 1})
    others = [("task", 1, ["ab"], parts[3]), ("task", "1", ["a", "b"], parts[3]), ("task", 1, ["b", "a"], parts[3])]
    assert len({digest(*parts), *(digest(*other) for other in others)}) == 4
    one, other = tmp_path / "1.bin", tmp_path / "2.bin"
    one.write_bytes(b"x"), other.write_bytes(b"y")
    before = digest_files([one, other])
    assert digest_files([other, one]) == before
    one.write_bytes(b"y"), other.write_bytes(b"x")
    assert digest_files([one, other]) != before


FILL = textwrap.dedent("""
    import os
    import sys
    from pathlib import Path

    from labels.warehouse import Warehouse
    from tests.labels.shop import label

    house = Warehouse(Path(sys.argv[1]))
    if sys.argv[2] != "no limit":
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
    for chunk in range(100):
        rows = [label(f"{chunk}-{n}", raw=os.urandom(2000).hex()) for n in range(20)]
        house.add_labels(rows)
        print(chunk, flush=True)
""")


def fill(folder, limit):
    """Write chunks of 20 labels in a process of its own until no more go in; the chunks it was told are durable."""
    ended = subprocess.run([sys.executable, "-c", FILL, folder, limit], cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode != 0
    assert "OSError" in ended.stderr
    return len(ended.stdout.split())


def assert_holds(folder, chunks):
    house = Warehouse(folder)
    assert len(house.identities()) == chunks * 20
    assert {path.suffix for path in (folder / "labels").iterdir()} <= {".parquet"}, "an unfinished file was left"
    rows = house.connect().execute("SELECT count(*), min(length(raw)) FROM labels").fetchone()
    assert rows == (chunks * 20, 4000 if chunks else None)


def test_a_full_disk_leaves_every_chunk_already_written_readable(tmp_path):
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", tmp_path], capture_output=True)
    if mounted.returncode:
        pytest.skip("only root may mount the tiny disk; the next test limits the file's size instead")
    try:
        kept = fill(tmp_path, "no limit")
        assert 0 < kept < 100
        assert_holds(tmp_path, kept)
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_a_chunk_that_cannot_be_written_leaves_the_warehouse_as_it_was(tmp_path):
    house = Warehouse(tmp_path)
    for chunk in range(2):
        house.add_labels([label(f"old {chunk}-{n}", raw="x" * 4000) for n in range(20)])
    assert fill(tmp_path, "10000") == 0
    assert_holds(tmp_path, 2)
    house.add_labels([label(f"again {n}", raw="x" * 4000) for n in range(20)])  # and takes more once there is room
    assert_holds(tmp_path, 3)


def test_one_torn_file_would_break_every_reader_so_the_check_above_can_fail(tmp_path):
    Warehouse(tmp_path).add_labels([label(1)])
    whole = next((tmp_path / "labels").iterdir())
    (tmp_path / "labels" / "torn.parquet").write_bytes(whole.read_bytes()[:-20])
    with pytest.raises(duckdb.Error):
        Warehouse(tmp_path).identities()
