#!/bin/sh
# What does a query name? Usage: client.sh QUERY... (STILLHOUSE_URL, and STILLHOUSE_KEY where the service wants one)
url=${STILLHOUSE_URL:-http://127.0.0.1:8017}
for query; do
    curl --silent --show-error --fail-with-body --max-time 1 --get "$url/v1/lookup" --data-urlencode "q=$query" \
        ${STILLHOUSE_KEY:+--header "Authorization: Bearer $STILLHOUSE_KEY"} || status=$?
    echo
done
exit "${status:-0}"
