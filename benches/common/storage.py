"""A storage that answers every upload as Cloud Storage does and keeps nothing, in a process of its own.

It can go away (connections are reset before a byte is read) and it can note when how many bytes arrived.
"""
import json
import os
import socket
import struct
import threading
import time
from multiprocessing import Pipe, Process, Value
from urllib.parse import parse_qs, unquote, urlsplit

# Where bytes would go that are dropped.
SCRATCH = memoryview(bytearray(1 << 20))
# Linux; Python has no names for them.
SO_TIMESTAMPNS = 35
SO_RCVBUFFORCE = 33


class Storage:
    """The process; it ends with the one that made it."""

    def __init__(self, notes=False):
        self.up = Value("b", True)
        self.ours, theirs = Pipe()
        self.process = Process(target=serve, args=(theirs, self.up, notes), daemon=True)
        self.process.start()
        # Not on the core that `line.py` measures on, and not later than it must be.
        if not notes and len(os.sched_getaffinity(0)) > 1:
            os.sched_setaffinity(self.process.pid, os.sched_getaffinity(0) - {0})
        try:
            os.setpriority(os.PRIO_PROCESS, self.process.pid, -10)
        except PermissionError:
            pass
        self.endpoint = f"http://127.0.0.1:{self.ours.recv()}"

    def arrivals(self):
        """`(time.time(), bytes of payload)` of all that came since the last call, in order."""
        self.ours.send("arrivals")
        return self.ours.recv()


def serve(connection, up, notes):
    """Tells its port through `connection`, and what arrived when it is asked."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    arrived = [] if notes else None
    if notes:
        # Connections inherit both. With a small window bytes wait at the sender whenever this process waits for a core.
        listener.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        try:
            listener.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 8 << 20)
        except PermissionError:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
    connection.send(listener.getsockname()[1])
    threading.Thread(target=accept, args=(listener, up, arrived), daemon=True).start()
    while True:
        try:
            connection.recv()
        except EOFError:
            return
        count = len(arrived or ())
        # Connections are read by threads of their own: what one notes may be older than what another did.
        connection.send(sorted((arrived or [])[:count]))
        if arrived:
            del arrived[:count]


def accept(listener, up, arrived):
    while True:
        client, _ = listener.accept()
        if up.value:
            threading.Thread(target=serve_one, args=(client, arrived, up), daemon=True).start()
        else:
            reset(client)


def reset(client):
    """Closes with RST, as a machine does that is not there any more."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


class Wire:
    """Reads a connection; bytes that nobody looks at are dropped in the kernel (MSG_TRUNC), uncopied."""

    def __init__(self, client, arrived, up):
        self.client = client
        self.held = b""
        self.arrived = arrived
        self.up = up
        self.stamp = time.time()

    def take(self, into, flags=0):
        """Receives what fits; how many bytes."""
        if self.arrived is None:
            count, extra = self.client.recv_into(into, len(into), flags), []
        else:
            # In small portions: each is stamped with the arrival of its last byte, by the kernel. When this process
            # gets a core to read it is another matter.
            count, extra, _, _ = self.client.recvmsg_into([into[:16384]], 64, flags)
        if not count or not self.up.value:
            raise ConnectionError("closed")
        for level, kind, value in extra:
            if (level, kind) == (socket.SOL_SOCKET, SO_TIMESTAMPNS):
                seconds, nanoseconds = struct.unpack("qq", value[:16])
                self.stamp = seconds + nanoseconds / 1e9
                self.note(self.stamp, count)
        return count

    def note(self, stamp, count):
        if self.arrived is not None:
            self.arrived.append((stamp, count))

    def fill(self):
        more = memoryview(bytearray(4096))
        self.held += more[: self.take(more)]

    def until(self, end):
        while end not in self.held:
            self.fill()
        found, self.held = self.held.split(end, 1)
        # No limit is meant for what is not payload.
        self.note(self.stamp, -len(found) - len(end))
        return found

    def drop(self, count, keep):
        """Passes `count` bytes over; returns the first of them, at most `keep`."""
        while len(self.held) < min(keep, count):
            self.fill()
        first = self.held[: min(keep, count)]
        held = min(len(self.held), count)
        self.held = self.held[held:]
        count -= held
        while count > 0:
            count -= self.take(SCRATCH[:count], socket.MSG_TRUNC)
        return first


def serve_one(client, arrived, up):
    """One connection, request after request."""
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    wire = Wire(client, arrived, up)
    try:
        while True:
            lines = wire.until(b"\r\n\r\n").decode("latin-1").split("\r\n")
            headers = {k.lower(): v.strip() for k, v in (line.split(":", 1) for line in lines[1:])}
            began = wire.stamp
            first, length = read_body(wire, headers)
            boundary = headers.get("content-type", "").partition("boundary=")[2].strip('"')
            # Two parts: metadata, media. What is not media is two heads and the closing boundary.
            heads = first.split(b"\r\n\r\n", 2)
            media = length - len(heads[0]) - len(heads[1]) - 8 - len(boundary) - 8 if len(heads) == 3 else 0
            wire.note(began, media - length)
            answer = {"kind": "storage#object", **asked(lines[0]), "generation": "1", "size": str(media)}
            body = json.dumps(answer).encode()
            head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            client.sendall(head.encode() + body)
    except (ConnectionError, OSError):
        reset(client)


def asked(line):
    """Bucket and name of the object that a request line is about; an answer about another one counts as no answer."""
    url = urlsplit(line.split(" ")[1])
    return {"bucket": unquote(url.path.split("/")[-2]), "name": parse_qs(url.query).get("name", [""])[0]}


def read_body(wire, headers):
    """The first bytes of a body, and its length."""
    if "chunked" not in headers.get("transfer-encoding", ""):
        length = int(headers.get("content-length", 0))
        return wire.drop(length, 16384), length
    first, length = b"", 0
    while True:
        size = int(wire.until(b"\r\n"), 16)
        first += wire.drop(size, max(0, min(size, 16384 - len(first))))
        length += size
        wire.until(b"\r\n")
        if size == 0:
            return first, length
