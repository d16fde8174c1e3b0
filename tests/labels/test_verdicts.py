import signal
import subprocess
import sys
import textwrap

import pytest

from labels.verdicts import Verdicts, settle
from tests.labels.shop import verdict


@pytest.fixture
def said(tmp_path):
    return Verdicts(tmp_path / "deep" / "verdicts.sqlite")


def test_nothing_said_is_no_verdict_and_makes_no_file(said):
    assert (said.all(), said.settled(), said.path.exists()) == ([], [], False)


def test_what_was_said_comes_back_whole(said):
    one = verdict(1, "corrected", '{"a":"\N{GRINNING FACE}"}', note="so\nit is", seconds=2.5, draft="{}", part="active")
    said.add([one])
    assert said.all() == [one]


def test_the_same_verdict_sent_again_changes_nothing(said):
    one = verdict(1, "right", "{}")
    said.add([one])
    said.add([verdict(1, "corrected", "other", id=one.id)])
    assert said.all() == [one]


def test_of_one_reviewer_the_later_of_several_the_majority_and_of_a_tie_the_latest_counts():
    ann, bo, cy = (verdict(1, "corrected", value, reviewer=who) for who, value in zip("abc", "xyx", strict=True))
    assert settle([ann, bo]) == [bo]
    assert settle([ann, bo, cy]) == [cy]
    again = verdict(1, "corrected", "y", reviewer="a")
    assert settle([ann, bo, cy, again])[0].value == "y"


def test_a_person_outranks_any_number_of_simulated_verdicts():
    people = verdict(1, "corrected", "x")
    simulated = [verdict(1, "right", "y", reviewer=f"s{n}", simulated=True) for n in range(3)]
    assert settle([people, *simulated]) == [people]
    assert settle(simulated) == [simulated[-1]]


def test_a_writer_killed_before_its_transaction_ends_leaves_nothing_and_blocks_nobody(said):
    said.add([verdict(1, "right", "{}")])
    script = f"""
        import os, signal
        from pathlib import Path
        from labels.records import Verdict
        from labels.verdicts import Verdicts, add_verdict
        with Verdicts(Path({str(said.path)!r})).transaction() as con:
            add_verdict(con, Verdict("id2", "query 2", "ann", "right", "{{}}"))
            os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert [one.identity for one in said.all()] == ["id1"]
    said.add([verdict(3, "right", "{}")])
    assert [one.identity for one in said.all()] == ["id1", "id3"]


def test_a_full_disk_is_an_os_error_and_loses_nothing_said_before(said):
    said.add([verdict(1, "right", "{}")])
    script = f"""
        import resource, signal
        from pathlib import Path
        from labels.records import Verdict
        from labels.verdicts import Verdicts
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
        try:
            Verdicts(Path({str(said.path)!r})).add(
                [Verdict(f"big{{n}}", "q" * 1000, "ann", "right", "{{}}") for n in range(1000)])
        except OSError as error:
            print("os error", error.errno)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=False)
    assert done.stdout == "os error 28\n", done.stderr
    assert [one.identity for one in said.all()] == ["id1"]


def test_every_commit_is_synced_to_the_disk(said):
    with said.transaction() as con:
        assert con.execute("PRAGMA synchronous").fetchone()[0] == 2  # FULL
        assert con.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
