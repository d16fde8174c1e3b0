"""A deployment of a night's beginning: it samples labels made by hand, waits for people, and says that it went on.

python -m tests.flows.waiting_deployment WORK
"""

import sys
from pathlib import Path

from flows.environment import prepare, prepare_prefect
from flows.settings import Settings, load_settings


def settings_in(work: str) -> Settings:
    """A night that waits for people, and asks them about twenty labels."""
    changes = {"work": work, "review.sample": 20, "review.overlap": 0.0, "review.wait_for_people": "1h"}
    return load_settings(changes=changes, environment={})


if __name__ == "__main__":
    prepare(offline=True)
    prepare_prefect(Path(sys.argv[1]))
    from prefect import flow

    from flows.review import sample_labels
    from flows.server import prefect_server
    from flows.waiting import resuming, suspend, waiting_night
    from tests.flows import night_by_hand

    @flow(name="waits")
    def waits(work: str) -> None:
        """As a night does it: what is done is found done when the flow is run again."""
        again = waiting_night(settings_in(work))
        labels = [night_by_hand.label(number) for number in range(60)]
        changes = {"review__sample": 20, "review__overlap": 0.0, "review__wait_for_people": "1h"}
        night = night_by_hand.begin(Path(work), labels, night=again or "n1", **changes)
        suspend(night, sample_labels(night))
        (Path(work) / "went_on.txt").write_text(night.id)

    settings = settings_in(sys.argv[1])
    with prefect_server(settings.folder), resuming(settings):
        waits.serve(name="waits", parameters={"work": sys.argv[1]}, print_starting_message=False)
