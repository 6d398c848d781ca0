"""Posts events of about 1 KB, a thousand a request, until so many MiB of them were answered with 200. Prints how many events that is.

fill.py HOST:PORT MIB
"""

import base64
import http.client
import json
import os
import sys

TARGET, MIB = sys.argv[1], int(sys.argv[2])
EACH = 1000

call = http.client.HTTPConnection(TARGET, timeout=120)
sent = events = 0
while sent < MIB << 20:
    # Nothing that repeats, or it would take less on the disk.
    noise = base64.b64encode(os.urandom(750 * EACH)).decode()
    batch = [{"input": "backlog", "output": noise[n * 1000 : n * 1000 + 1000]} for n in range(EACH)]
    body = json.dumps({"batched_log_events": batch})
    call.request("POST", "/v2/log/p", body, {"Content-Type": "application/json"})
    reply = call.getresponse()
    reply.read()
    if reply.status != 200:
        sys.exit(f"{reply.status} after {events} events")
    sent += len(body)
    events += EACH
print(events)
