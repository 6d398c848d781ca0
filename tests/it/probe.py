"""What a process of this user may do: prints one word, "ok" or the name of the error, and what it read.

    probe.py http|ndjson SOCKET | ask "SOCKET METHOD TARGET JSON" | list FOLDER | read FILE | memory PID | trace PID
"""
import ctypes
import errno
import os
import socket
import sys

PTRACE_SEIZE = 0x4206


def call(path, request):
    with socket.socket(socket.AF_UNIX) as stream:
        stream.connect(path)
        stream.sendall(request)
        stream.shutdown(socket.SHUT_WR)
        parts = []
        while part := stream.recv(65536):
            parts.append(part)
    return b"".join(parts)


def ask(what):
    path, method, target, body = what.split(" ", 3)
    head = f"{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return call(path, (head + body).encode())


def memory(pid):
    with open(f"/proc/{pid}/maps") as maps:
        start = next(int(line.split("-")[0], 16) for line in maps if " r" in line)
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as mem:
        mem.seek(start)
        return b"%d bytes" % len(mem.read(16))


def trace(pid):
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    if libc.ptrace(PTRACE_SEIZE, int(pid), None, None) != 0:
        raise OSError(ctypes.get_errno(), "ptrace")
    return b""


def read(path):
    with open(path, "rb") as file:
        return file.read()


WAYS = {
    "http": lambda path: call(path, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"),
    "ndjson": lambda path: call(path, b'{"input": "x", "project_id": "p"}\n'),
    "ask": ask,
    "list": lambda path: "\n".join(os.listdir(path)).encode(),
    "read": read,
    "memory": memory,
    "trace": trace,
}
try:
    seen = WAYS[sys.argv[1]](sys.argv[2])
    sys.stdout.buffer.write(b"ok " + seen)
except OSError as error:
    print(errno.errorcode[error.errno])
