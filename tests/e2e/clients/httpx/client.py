"""Follows a stream with httpx-sse, and prints the data of each message as a JSON string on a line.

The package leaves reconnecting to its user: after the time in `retry:`, with the last id.
"""

import json
import sys
import time

import httpx
from httpx_sse import connect_sse


def main(url):
    last_id, retry = "", 1000
    with httpx.Client(timeout=httpx.Timeout(10, read=75)) as client:
        while True:
            headers = {"last-event-id": last_id} if last_id else {}
            try:
                with connect_sse(client, "GET", url, headers=headers) as source:
                    for message in source.iter_sse():
                        print(json.dumps(message.data), flush=True)
                        last_id = message.id
                        retry = message.retry or retry
            except httpx.TransportError as error:
                print(repr(error), file=sys.stderr)
            time.sleep(retry / 1000)


if __name__ == "__main__":
    main(sys.argv[1])
