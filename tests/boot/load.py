"""Sends events one by one, each on a connection of its own, until the file "stop" appears beside it.

Prints what came of it as JSON: answered, refused (no connection, or one that ended without an answer), other (not a 200).
"""

import http.client
import json
import pathlib
import socket
import sys

TARGET, NAME, STOP = sys.argv[1], sys.argv[2], pathlib.Path(sys.argv[3])


class Unix(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(TARGET)


def connection():
    if TARGET.startswith("/"):
        return Unix("localhost", timeout=60)
    return http.client.HTTPConnection(TARGET, timeout=60)


answered, refused, other = [], 0, 0
while not STOP.exists():
    task = f"{NAME}-{len(answered) + refused + other}"
    event = {"input": "x", "task_id": task}
    try:
        call = connection()
        call.request("POST", "/v2/log/p", json.dumps({"batched_log_events": [event]}), {"Content-Type": "application/json"})
        status = call.getresponse().status
        call.close()
    except (OSError, http.client.HTTPException) as error:
        print(f"{task}: {error!r}", file=sys.stderr)
        refused += 1
        continue
    if status == 200:
        answered.append(task)
    else:
        other += 1
print(json.dumps({"answered": answered, "refused": refused, "other": other}))
