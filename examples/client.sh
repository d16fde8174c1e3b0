#!/bin/sh
# What does a query name? Usage: client.sh QUERY... (LOOKUP_URL, and LOOKUP_KEY where the service wants one)
url=${LOOKUP_URL:-http://127.0.0.1:8017}
for query; do
    # the key comes by standard input: everybody on this machine may read a command's arguments
    printf '%s' "${LOOKUP_KEY:+Authorization: Bearer $LOOKUP_KEY}" |
        curl --silent --show-error --fail-with-body --max-time 1 --header @- --get "$url/v1/lookup" \
            --data-urlencode "q=$query" || status=$?
    echo
done
exit "${status:-0}"
