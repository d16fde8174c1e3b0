"""The first stages of a demo night called as the plain functions they are, without Prefect and without a kill.

python -m tests.flows.plain_labelling WORK     # WORK/shop is there already
"""

import sys

from demo.settings import demo_settings
from flows.environment import prepare
from flows.settings import load_settings


def main(work: str) -> None:
    """Ingest, retrieve and label the shop of `work`."""
    changes = {key.replace("__", "."): value for key, value in demo_settings(work).items()}
    settings = load_settings("laptop", {"work": work, **changes})
    prepare(offline=True)
    from flows.ingest import ingest_log
    from flows.label import label_queries
    from flows.night import begin_night
    from flows.retrieve import retrieve_facts
    from flows.screen import Screen

    with begin_night(settings, Screen()) as night:
        ingest_log(night)
        retrieve_facts(night)
        label_queries(night)
    if "prefect" in sys.modules:
        raise SystemExit("a stage imported Prefect")


if __name__ == "__main__":
    main(sys.argv[1])
