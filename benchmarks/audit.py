"""Does the audit's interval hold what it promises? Seeded audits of the demo's labels, its gold as the truth.

Run `make demo` first: it labels the shop whose gold is known for every query.
"""

import sys
from pathlib import Path
from statistics import fmean
from typing import Any

from demo.reviewer import simulated_verdicts
from evals.gold import read_gold
from evals.judge import Judgement, judge
from evals.sample import Sampled, audit_sample
from flows.review import places
from flows.reviewing import last_night
from flows.settings import DEFAULT_WORK, load_settings


def run(work: str = DEFAULT_WORK, size: int = 300, repeats: int = 500) -> dict[str, Any]:
    """The share of `repeats` audits of `size` labels whose 95% interval contains the true precision, and its width."""
    night = last_night(load_settings(changes={"work": work}))
    gold = read_gold(Path(night.settings.folder) / "shop" / "gold" / "reviewer.parquet", "query", night.task)
    known = [one for one in night.labels if one.status == "accepted" and one.query in gold]
    place = places(night)
    bands = {query: band for query, (band, _) in place.items()}
    traffic = {query: events for query, (_, events) in place.items()}
    everything = [Sampled(one, "", bands[one.query], 1.0, traffic[one.query]) for one in known]
    said = {one.identity: one for one in simulated_verdicts(night.task, everything, gold)}
    right = {identity: float(one.decision == "right") for identity, one in said.items()}
    truth = fmean(right.values())
    by_traffic = sum(right[one.identity] * traffic[one.query] for one in known) / sum(
        traffic[one.query] for one in known
    )
    found = list[Judgement]()
    for seed in range(repeats):
        audit = audit_sample(known, traffic, bands, size, seed)
        judged = judge(audit, [said[one.label.identity] for one in audit.sampled], night.task)
        found += [judged] if judged else []
        sys.stderr.write(f"\r{seed + 1} of {repeats}")
    sys.stderr.write("\n")
    helped = [one.ppi for one in found if one.ppi]
    return {
        "labels": len(known),
        "precision": round(truth, 4),
        "precision_by_traffic": round(by_traffic, 4),
        "coverage": fmean(one.low <= truth <= one.high for one in found),
        "coverage_by_traffic": fmean(one.by_traffic.low <= by_traffic <= one.by_traffic.high for one in found),
        "coverage_ppi": fmean(one.low <= truth <= one.high for one in helped) if helped else None,
        "width": round(fmean(one.high - one.low for one in found), 4),
        "width_ppi": round(fmean(one.high - one.low for one in helped), 4) if helped else None,
        "repeats": len(found),
    }
