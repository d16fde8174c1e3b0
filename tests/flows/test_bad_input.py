"""What ends a night before it begins: one message, exit code 1, and the record as it was."""

import fcntl
import hashlib
import subprocess
from contextlib import closing, suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from redis import RedisError

from cache.client import connect
from cache.release import current_release, releases
from cache.server import redis_binary
from flows.ingest import ingest_log
from flows.night import begin_night
from flows.publish import publish_release
from flows.screen import Screen
from flows.settings import PROFILES, load_settings
from labels.errors import InputError, ServiceError
from labels.services import Launch, free_port, shared_service
from labels.warehouse import Warehouse
from tests.flows.command import error_of, processes_of, stillhouse
from tests.flows.night_by_hand import head_of, write_queries
from tests.labels.shop import label

CATALOGUE = "title,brand,product\nVerdant Machine Mango Smoothie,Verdant Machine,mango smoothie\n"


@pytest.fixture
def house(tmp_path) -> Path:
    """A folder with a log, a catalogue and a work folder that holds two labels."""
    (tmp_path / "log.csv").write_text("query\noat milk\nmango smoothie\n")
    (tmp_path / "catalogue.csv").write_text(CATALOGUE)
    Warehouse(tmp_path / "work" / "warehouse").add_labels([label("1"), label("2")])
    return tmp_path


def contents(folder: Path) -> dict[str, str]:
    """Every file under the folder, by its hash."""
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def refused(house: Path, *args: object, log: str = "log.csv", catalogue: str = "catalogue.csv") -> str:
    """The message of a night that is refused, having changed nothing and started nothing."""
    before = contents(house / "work" / "warehouse")
    done = stillhouse("night", "--log", house / log, "--catalogue", house / catalogue, "--work", house / "work", *args)
    message = error_of(done)
    assert contents(house / "work" / "warehouse") == before
    assert not (house / "work" / "nights").exists()
    assert processes_of(house) == {}
    return message


def test_a_missing_log(house):
    message = refused(house, log="gone.csv")
    assert f"the log {house / 'gone.csv'}: there is no such file; check the path" in message


def test_a_missing_catalogue(house):
    assert "the catalogue" in refused(house, catalogue="gone.csv")


def test_no_log_at_all(house):
    done = stillhouse("night", "--catalogue", house / "catalogue.csv", "--work", house / "work")
    assert "no log is named; wanted --log FILE" in error_of(done)


def test_a_file_of_an_unknown_kind(house):
    (house / "log.xlsx").write_text("query\noat milk\n")
    message = refused(house, log="log.xlsx")
    assert "wanted .parquet, .csv, .tsv, .jsonl, .ndjson" in message
    assert "got .xlsx" in message


def test_a_file_that_is_not_what_its_name_says(house):
    (house / "log.parquet").write_text("query\noat milk\n")
    assert "log.parquet can't be read" in refused(house, log="log.parquet")


def test_a_wrong_column_with_the_nearest_one_and_the_setting_to_use(house):
    (house / "log.csv").write_text("when,querry\n2026-01-01,oat milk\n")
    message = refused(house)
    assert "has no column 'query'; did you mean 'querry'?" in message
    assert "It has: when, querry." in message
    assert "--set log.query=COLUMN" in message


def test_sessions_wanted_without_their_column(house):
    message = refused(house, "--set", "log.min_sessions=5")
    assert "log.min_sessions = 5 needs the sessions; name their column: --set log.session=COLUMN" in message


def test_a_pattern_that_no_log_matches(house):
    assert "the log" in refused(house, log="2026-*.csv")
    assert "no file matches; check the pattern" in refused(house, log="2026-*.csv")


def test_an_empty_log(house):
    (house / "log.csv").write_text("")
    assert "is empty; wanted at least the columns query" in refused(house)


def test_a_log_that_is_not_utf_8(house):
    (house / "log.csv").write_bytes("query\ncaf\u00e9 cr\u00e8me\n".encode("latin-1"))
    message = refused(house)
    assert "log.csv can't be read" in message
    assert "not UTF-8" in message
    assert "iconv" in message


def test_a_profile_with_a_typo(house):
    text = (PROFILES / "laptop.toml").read_text()
    (house / "mine.toml").write_text(text.replace("learning_rate", "lerning_rate"))
    message = refused(house, "--profile", house / "mine.toml")
    assert "there is no setting 'student.lerning_rate'; did you mean 'student.learning_rate'?" in message


def test_an_unknown_profile_and_an_unknown_flag_value(house):
    assert "no profile 'laptopp'; wanted one of laptop, production, single-gpu" in refused(
        house, "--profile", "laptopp"
    )
    assert "did you mean 'cache.head_share'?" in refused(house, "--set", "cache.headshare=0.5")


def test_a_second_night_while_one_holds_the_folder(house):
    with (house / "work" / "night.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        message = error_of(
            stillhouse(
                "night", "--log", house / "log.csv", "--catalogue", house / "catalogue.csv", "--work", house / "work"
            )
        )
    assert f"another night is running in {house / 'work'}, or a training; wait for it" in message
    assert "--work" in message
    assert not (house / "work" / "nights").exists()


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([], "is empty; wanted at least one row"),
        (
            ["", "  ", "a" * 300, "jo@example.com"],
            "holds no usable query: 4 rows, 2 empty, 1 longer than .* 1 nothing but personal",
        ),
    ],
)
def test_a_log_without_a_usable_query_ends_the_night_at_ingest(house, rows, says):
    pq.write_table(pa.table({"query": pa.array(rows, pa.string())}), house / "log.parquet")
    before = contents(house / "work" / "warehouse")
    changes = {"work": str(house / "work"), "log.path": str(house / "log.parquet")}
    changes |= {"catalogue.path": str(house / "catalogue.csv")}
    with begin_night(load_settings("laptop", changes), Screen()) as night, pytest.raises(InputError, match=says):
        ingest_log(night)
    assert contents(house / "work" / "warehouse") == before


def test_a_full_disk_while_labels_are_written_is_one_message_and_keeps_those_there(house):
    record = house / "small" / "warehouse" / "labels"
    record.mkdir(parents=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", record], capture_output=True)
    if mounted.returncode:
        pytest.skip("only root may mount a tiny disk; tests/labels/test_files.py limits the file's size instead")
    try:
        Warehouse(record.parent).add_labels([label("1"), label("2")])
        with suppress(OSError), (record / "filler").open("wb", buffering=0) as filler:
            while filler.write(b"x" * 4096):
                pass
        before = contents(record)
        files = ["--log", house / "log.csv", "--catalogue", house / "catalogue.csv"]
        done = stillhouse("label", *files, "--work", house / "small")
        message = error_of(done)
        assert "the disk is full" in message
        assert "what was labelled, reviewed and released is kept" in message
        assert "2 rows, 0 dropped, 2 distinct queries" in done.stderr, "it ended before it came to write labels"
        assert contents(record) == before
        assert len(Warehouse(record.parent).identities()) == 2
        assert processes_of(house) == {}
    finally:
        subprocess.run(["umount", record], check=True)


def test_redis_down_at_publish_time_keeps_the_release_that_was_served(house):
    folder, port = house / "redis", free_port()

    def launch(_: int) -> Launch:
        options = ["--port", str(port), "--dir", str(folder), "--appendonly", "yes", "--appendfsync", "always"]
        return Launch([redis_binary(), *options, "--save", ""], f"redis://127.0.0.1:{port}/0")

    def up(url: str) -> bool:
        with closing(connect(url)) as client:
            try:
                return bool(client.ping())
            except RedisError:
                return False

    changes = {
        "work": str(house / "work"),
        "log.path": str(house / "log.csv"),
        "catalogue.path": str(house / "catalogue.csv"),
        "cache.redis_url": f"redis://127.0.0.1:{port}/0",
    }
    first, second = head_of("oat milk"), head_of("mango smoothie")
    student = house / "work" / "students" / "student-1"
    with begin_night(load_settings("laptop", changes), Screen()) as night:
        write_queries(night, ["oat milk", "mango smoothie"])
        with shared_service(folder, "Redis", launch, up, 30):
            served = publish_release(night, first, student)
        with pytest.raises(
            ServiceError, match=rf"wanted Redis at redis://127\.0\.0\.1:{port}.*run the same command again"
        ):
            publish_release(night, second, student)
        with shared_service(folder, "Redis", launch, up, 30) as url, closing(connect(url)) as client:
            assert current_release(client) == served
            assert publish_release(night, second, student) != served
            assert len(releases(client)) == 2
