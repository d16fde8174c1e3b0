from evals.published import published_rows

HEAD = {
    "entries": 2163,
    "people": 300,
    "ended": "share",
    "traffic_share": 0.8,
    "bytes": 2**20,
    "aliases": 0,
    "false_hits": {"share": 0.017, "interval": [0.003, 0.084], "hits": 905, "extra": 0.0138},
    "published": {"entries": 2163, "traffic_share": 0.7999, "bytes": 2**19},
}


def test_the_forecast_stands_beside_what_was_found():
    rows = dict(published_rows({"release": "r1", "published": True, "head": HEAD}))
    assert rows["Head"] == "2,163 queries, 300 of them people's answers: cut at the share of traffic wanted"
    assert rows["Forecast"] == "80.0% of the traffic, 1.0 MiB of Redis"
    assert rows["Found in Redis"] == "2,163 entries, 80.0% of the traffic, 512 KiB of Redis"
    assert rows["Aliases"] == "1.7% wrong (95%: 0.3% to 8.4%) by 905 queries; not published"
    published = dict(published_rows({"head": HEAD | {"aliases": 7}}))
    assert published["Aliases"].endswith("905 queries; 1.38% of the traffic more")


def test_a_night_that_published_nothing_has_a_forecast_alone():
    rows = dict(published_rows({"release": "r0", "head": HEAD | {"published": None, "false_hits": None}}))
    assert (rows["Release"], rows["In use"]) == ("none this night", "r0")
    assert "Forecast" in rows
    assert not {"Found in Redis", "Aliases"} & rows.keys()


def test_a_summary_without_a_head_says_so():
    assert dict(published_rows({})) == {"Release": "none this night", "In use": "no release yet", "Head": "no queries"}
    assert dict(published_rows({"head": HEAD | {"entries": 0}}))["Head"] == "no queries"
