"""`python -m benchmarks NAME [--json]`: ratios measured side by side in one run."""

import argparse
import json
import sys

from benchmarks import night, shop

BENCHMARKS = {"night": night.run, "shop": shop.run}


def main() -> None:
    """Run one benchmark and print its figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "name", choices=sorted(BENCHMARKS), help="night: Prefect's share; shop: a log of 10 million rows"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    figures = BENCHMARKS[args.name]()
    if args.json:
        sys.stdout.write(json.dumps(figures) + "\n")
    else:
        for name, value in figures.items():
            sys.stdout.write(f"{name:<28} {value}\n")


if __name__ == "__main__":
    main()
