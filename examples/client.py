"""What do queries name? Usage: client.py QUERY... (LOOKUP_URL, and LOOKUP_KEY where the service wants one)"""

import asyncio
import os
import sys
from typing import Any

import httpx

URL = os.environ.get("LOOKUP_URL", "http://127.0.0.1:8017")
KEY = os.environ.get("LOOKUP_KEY")


async def look_up(http: httpx.AsyncClient, query: str) -> dict[str, Any] | None:
    """What the query names; None where nobody knows in time: search then goes on with the words alone."""
    try:
        answer = await http.get("/v1/lookup", params={"q": query})
        answer.raise_for_status()
    except httpx.HTTPError as error:
        print(f"no lookup: {error!r}", file=sys.stderr)
        return None
    value: dict[str, Any] | None = answer.json()["value"]  # null where `source` is "none"
    return value


async def main() -> None:
    """Look each query up, all at once."""
    headers = {"Authorization": f"Bearer {KEY}"} if KEY else {}
    # One client for the whole program: it keeps its connections. The service answers within 300 ms unless told otherwise.
    async with httpx.AsyncClient(base_url=URL, headers=headers, timeout=httpx.Timeout(0.5, pool=2)) as http:
        for found in await asyncio.gather(*(look_up(http, query) for query in sys.argv[1:])):
            print(found)


if __name__ == "__main__":
    asyncio.run(main())
