"""What the tests of the second steps share: a dataset with preference pairs, and a training cut off in the middle."""

import pyarrow.parquet as pq
import pytest

from labels.semantic_roles import SemanticRoles
from student.dataset import read_dataset
from student.preferences import pair_table
from tests.student.training import shop_dataset


def paired_dataset(root, pairs=8):
    """A dataset of the invented shop whose first rows were corrected: the teacher had left them empty."""
    dataset = shop_dataset(root)
    nothing = SemanticRoles(product="", brand="", attributes=[]).to_json()
    chosen = [(row.query, row.value, nothing) for row in read_dataset(dataset)[:pairs]]
    pq.write_table(pair_table(chosen), dataset / "preferences.parquet")
    return dataset


class Cut(Exception):
    """The training ends here, as if the machine had."""


def cut_off(train, after):
    """Run `train(progress)` until it has gone beyond step `after`; it must not come to its end."""

    def progress(step):
        if step.step > after:
            raise Cut

    with pytest.raises(Cut):
        train(progress)
