"""Posts events of about 1 KB, a thousand a request, until so many MiB of them were answered with 200. Prints how many events that is.

fill.py HOST:PORT MIB
"""

import http.client
import json
import random
import string
import sys

TARGET, MIB = sys.argv[1], int(sys.argv[2])
EACH = 1000

call = http.client.HTTPConnection(TARGET, timeout=120)
sent = events = 0
while sent < MIB << 20:
    # Nothing that repeats, or it would take less on the disk.
    noise = "".join(random.choices(string.ascii_letters + string.digits, k=1000 + EACH))
    batch = [{"input": "backlog", "output": noise[n : n + 1000]} for n in range(EACH)]
    body = json.dumps({"batched_log_events": batch})
    call.request("POST", "/v2/log/p", body, {"Content-Type": "application/json"})
    reply = call.getresponse()
    reply.read()
    if reply.status != 200:
        sys.exit(f"{reply.status} after {events} events")
    sent += len(body)
    events += EACH
print(events)
