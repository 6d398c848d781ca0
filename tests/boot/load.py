"""Sends log events on new connections, one after the other on each thread, until the file that it is told appears.

load.py TARGET NAME STOP [EVENTS [FILLER [THREADS]]]: to host:port or the path of a Unix socket, EVENTS a request with FILLER bytes each.
Prints what came of it as JSON: the task ids that were answered with 200, requests refused (no connection, or one that ended without an
answer), and others (not a 200).
"""

import http.client
import json
import pathlib
import random
import socket
import string
import sys
import threading

TARGET, NAME, STOP = sys.argv[1], sys.argv[2], pathlib.Path(sys.argv[3])
EVENTS, FILLER, THREADS = (int(n) for n in (sys.argv[4:] + ["1", "0", "1"][len(sys.argv) - 4 :]))
NOISE = "".join(random.choices(string.ascii_letters, k=FILLER))


class Unix(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(TARGET)


def post(tasks):
    events = [{"input": "x", "output": NOISE, "task_id": task} for task in tasks]
    kind = Unix if TARGET.startswith("/") else http.client.HTTPConnection
    call = kind("localhost" if TARGET.startswith("/") else TARGET, timeout=120)
    try:
        body = json.dumps({"batched_log_events": events})
        call.request("POST", "/v2/log/p", body, {"Content-Type": "application/json"})
        return call.getresponse().status
    finally:
        call.close()


def client(thread, told):
    request = 0
    while not STOP.exists():
        request += 1
        tasks = [f"{NAME}-{thread}-{request}-{event}" for event in range(EVENTS)]
        try:
            status = post(tasks)
        except (OSError, http.client.HTTPException) as error:
            print(f"{tasks[0]}: {error!r}", file=sys.stderr)
            told["refused"] += 1
            continue
        if status == 200:
            told["answered"] += tasks
        else:
            told["other"] += 1


def main():
    told = [{"answered": [], "refused": 0, "other": 0} for _ in range(THREADS)]
    threads = [threading.Thread(target=client, args=(n, told[n])) for n in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps({
        "answered": [task for one in told for task in one["answered"]],
        "refused": sum(one["refused"] for one in told),
        "other": sum(one["other"] for one in told),
    }))


main()
