"""The invented shop at the size benchmarks need: a log of 10 million rows."""

import time

from demo.shop import make_log, make_shop

ROWS = 10_000_000


def run() -> dict[str, float]:
    """Seconds for the shop and for its log, and rows a second."""
    start = time.perf_counter()
    shop = make_shop()
    made = time.perf_counter()
    rows = make_log(shop, ROWS).num_rows
    done = time.perf_counter()
    return {"shop_s": round(made - start, 2), "log_s": round(done - made, 2), "rows_per_s": round(rows / (done - made))}
