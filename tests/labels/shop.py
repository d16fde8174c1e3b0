"""What these tests share: labels and verdicts by hand."""

from labels.records import Label, Verdict


def label(number, query=None, status="accepted", value='{"product":"milk","brand":"","attributes":[]}', **other):
    given = {
        "identity": f"id{number}", "query": query or f"query {number}", "status": status, "value": value,
        "confidence": {"product": 0.9, "brand": 1.0}, "reason": "", "raw": str(value), "facts": ("a | b", " | c"),
        "task": "semantic_roles", "task_version": "v1", "model": "m", "prompt": "p", "night": "n1", "tokens_in": 9,
        "tokens_out": 4,
    }  # fmt: skip
    return Label(**given | other)


def verdict(number, decision="right", value=None, **other):
    given = {
        "identity": f"id{number}", "query": f"query {number}", "reviewer": "ann", "decision": decision, "value": value,
        "simulated": False,
    }  # fmt: skip
    return Verdict(**given | other)
