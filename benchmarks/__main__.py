"""`python -m benchmarks NAME [--json]`: ratios measured side by side in one run."""

import argparse
import inspect
import json
import sys
from collections.abc import Callable
from typing import Any

from benchmarks import (
    audit,
    faults,
    gpu,
    http,
    ingest,
    kills,
    labelling,
    lookup,
    memory,
    night,
    publish,
    retrieval,
    review,
    shop,
    switch,
    training,
)

BENCHMARKS: dict[str, Callable[..., dict[str, Any]]] = {
    "audit": audit.run,
    "faults": faults.run,
    "gpu": gpu.run,
    "http": http.run,
    "ingest": ingest.run,
    "kills": kills.run,
    "labelling": labelling.run,
    "lookup": lookup.run,
    "memory": memory.run,
    "night": night.run,
    "publish": publish.run,
    "retrieval": retrieval.run,
    "review": review.run,
    "shop": shop.run,
    "switch": switch.run,
    "training": training.run,
}


def main() -> None:
    """Run one benchmark and print its figures; a benchmark's options are its function's parameters."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    names = parser.add_subparsers(dest="name", required=True)
    for name, run in BENCHMARKS.items():
        what = (sys.modules[run.__module__].__doc__ or "").splitlines()[0]
        command = names.add_parser(name, help=what, description=what)
        command.add_argument("--json", action="store_true", help="print one JSON object")
        for option in inspect.signature(run).parameters.values():
            default = option.default
            command.add_argument(f"--{option.name}", type=type(default), default=default, help=f"default: {default}")
    options = vars(parser.parse_args())
    name, as_json = options.pop("name"), options.pop("json")
    figures = BENCHMARKS[name](**options)
    if as_json:
        sys.stdout.write(json.dumps(figures) + "\n")
    else:
        for name, value in figures.items():
            sys.stdout.write(f"{name:<28} {value}\n")


if __name__ == "__main__":
    main()
