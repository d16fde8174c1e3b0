"""A model that can't be written, said as Python says it."""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def as_os_error(folder: Path) -> Iterator[None]:
    """Raises OSError where safetensors raises an error of its own for what the system refused (a full disk, say)."""
    from safetensors import SafetensorError

    try:
        yield
    except SafetensorError as error:
        said = re.search(r"\(os error (\d+)\)", str(error))
        number = int(said[1]) if said else errno.EIO
        raise OSError(number, os.strerror(number), str(folder)) from error
