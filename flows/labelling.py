"""Labelling alone: the night's first three stages, what they would do, and why."""

from typing import Any

from flows.dry_run import forecast
from flows.ingest import ingest_log
from flows.label import label_queries, labelling_summary
from flows.night import begin_night, passing_night
from flows.retrieve import retrieve_facts
from flows.screen import Screen
from flows.settings import Settings
from flows.why import why


def run_labelling(settings: Settings) -> dict[str, Any]:
    """Take the log, retrieve facts, label; returns what the labelling did."""
    screen = Screen()
    with begin_night(settings, screen) as night:
        ingest_log(night)
        retrieve_facts(night)
        return {"night": night.id} | labelling_summary(label_queries(night))


def forecast_labelling(settings: Settings) -> dict[str, Any]:
    """What `run_labelling` would ask, and what that would take."""
    with passing_night(settings, Screen()) as night:
        return forecast(night).to_json()


def explain_one(settings: Settings, query: str) -> dict[str, Any]:
    """Why `run_labelling` would, or would not, ask about a query."""
    with passing_night(settings, Screen()) as night:
        return why(night, query)
