#!/usr/bin/env python3
"""`make bench-idle`: what connections cost that wait for a request: the gateway's memory before and with 10,000 of them, in MiB.

Each way has a gateway of its own. The connections are opened one after the other and then left alone: in the clear and with TLS, before their first
request and after one, with HTTP/2 after its settings, and with a request that waits for room at its target. With status 1 if one of HTTP/1 without a request
costs more than 100 MiB (`--bound`).
"""

import argparse
import os
import resource
import socket
import ssl
import sys
import tempfile
import time
import urllib.request

sys.dont_write_bytecode = True

import build
import system
from system import Failure, Process

CONF = """
[server]
state = "memory"
threads = 2
max_connections = {most}
header_timeout = "60s"
[admin]
address = "127.0.0.1:{admin}"
[log]
access = "off"
[[listener]]
address = "127.0.0.1:{port}"
[[listener]]
address = "127.0.0.1:{secure}"
tls = {{ certificate = "{cert}", key = "{key}" }}
[[gateway]]
name = "main"
hosts = ["*"]
auth = "none"
[[service]]
name = "m"
models = ["m"]
targets = ["http://127.0.0.1:{engine}"]
[[service]]
name = "full"
models = ["full"]
upstream = "full"
queue = {{ size = 100000, max_wait = "600s" }}
[[service]]
name = "later"
models = ["later"]
targets = ["http://127.0.0.1:{engine}"]
retry = "off"
queue = {{ size = 100000, max_wait = "600s", initial_delay = "300s", max_delay = "300s" }}
[[upstream]]
name = "full"
targets = ["http://127.0.0.1:{engine}"]
max_in_flight = 1
"""


def request(model, header=b""):
    body = b'{"model":"%s","messages":[{"role":"user","content":"Hello"}]}' % model
    return (b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"%sContent-Length: %d\r\n\r\n%s" % (header, len(body), body))


REQUEST = request(b"m")
# The first of them has the only place for as long as it likes.
WAITS = request(b"full", b"x-sim: delay=600s\r\n")
# Told to come back.
LATER = request(b"later", b"x-sim: status=429\r\n")
# The preface, and settings that say nothing.
H2_BEGIN = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=10_000)
    parser.add_argument("--bound", type=float, default=100, help="MiB for 10,000 of HTTP/1 without a request (default: 100)")
    parser.add_argument("--ways", default="", help="only these, by the beginning of their names, with commas between")
    parser.add_argument("--binary", help="another gateway than the one that is built")
    parser.add_argument("--profile", default="release")
    parser.add_argument("--no-build", dest="build", action="store_false")
    return parser.parse_args()


class Gateway:
    """One that has served a few requests, so that what is taken once is taken."""

    def __init__(self, options, binaries, engine, scratch):
        self.port, self.secure, self.admin = (system.free_port() for _ in range(3))
        cert, key = system.certificate(scratch)
        conf = os.path.join(scratch, "tollgate.toml")
        with open(conf, "w", encoding="utf-8") as file:
            file.write(CONF.format(most=options.connections + 100, admin=self.admin, port=self.port, secure=self.secure,
                                   engine=engine, cert=cert, key=key))
        binary = options.binary or os.path.join(binaries, "tollgate")
        self.process = Process("tollgate", [binary, "run", "-c", conf], os.path.join(scratch, "tollgate.log"))
        self.process.wait_until_ready(self.port)
        self.process.wait_until_ready(self.secure)
        self.context = ssl.create_default_context(cafile=cert)
        self.h2 = ssl.create_default_context(cafile=cert)
        self.h2.set_alpn_protocols(["h2"])
        for way in WAYS.values():
            for _ in range(20):
                way(self).close()

    def plain(self):
        return socket.create_connection(("127.0.0.1", self.port), 30)

    def encrypted(self, context=None):
        return (context or self.context).wrap_socket(
            socket.create_connection(("127.0.0.1", self.secure), 30), server_hostname="localhost")

    def resident(self):
        with open(f"/proc/{self.process.child.pid}/status", encoding="utf-8") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("VmRSS:")) / 1024

    def open_connections(self):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/metrics", timeout=30) as page:
            lines = page.read().decode().splitlines()
        return next(int(float(line.split()[1])) for line in lines if line.startswith("tollgate_connections "))

    def settle(self, connections):
        """Memory once so many are open and it has stopped changing."""
        end = time.monotonic() + 60
        while self.open_connections() != connections:
            if time.monotonic() > end:
                raise Failure(f"{self.open_connections()} connections are open, not {connections}")
            time.sleep(0.1)
        last = self.resident()
        while time.monotonic() < end:
            time.sleep(2)
            now = self.resident()
            if abs(now - last) < 0.2:
                return now
            last = now
        return last


def asked(connection):
    connection.sendall(REQUEST)
    answer = b""
    while b"\r\n\r\n" not in answer or not answer.endswith(b"}"):
        piece = connection.recv(65536)
        if not piece:
            raise Failure(f"no answer: {answer[:200]}")
        answer += piece
    if not answer.startswith(b"HTTP/1.1 200"):
        raise Failure(f"it was answered {answer[:200]}")
    return connection


def waiting(connection, request):
    connection.sendall(request)
    return connection


def greeted(connection):
    connection.sendall(H2_BEGIN)
    if not connection.recv(4096):
        raise Failure("HTTP/2 is not spoken")
    return connection


WAYS = {
    "plain, unused": lambda gateway: gateway.plain(),
    "plain, after a request": lambda gateway: asked(gateway.plain()),
    "plain, waiting for room": lambda gateway: waiting(gateway.plain(), WAITS),
    "plain, waiting after 429": lambda gateway: waiting(gateway.plain(), LATER),
    "plain, HTTP/2": lambda gateway: greeted(gateway.plain()),
    "TLS, unused": lambda gateway: gateway.encrypted(),
    "TLS, after a request": lambda gateway: asked(gateway.encrypted()),
    "TLS, HTTP/2": lambda gateway: greeted(gateway.encrypted(gateway.h2)),
}


def measure(options):
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard < options.connections + 200:
        raise Failure(f"only {hard} open files are allowed (ulimit -Hn)")
    binaries, dear = build.binaries("debug" if options.profile == "dev" else options.profile), []
    with tempfile.TemporaryDirectory() as scratch:
        engine_port = system.free_port()
        engine = Process("engine", [os.path.join(binaries, "tollgate-engine"), "--address", f"127.0.0.1:{engine_port}"],
                         os.path.join(scratch, "engine.log"))
        try:
            engine.wait_until_ready(engine_port)
            for name, way in WAYS.items():
                if not name.startswith(tuple(options.ways.split(","))):
                    continue
                cost = cost_of(way, options, binaries, engine_port, scratch)
                each = cost * 1024 / options.connections
                print(f"{name:24} {cost:7.1f} MiB for {options.connections}, {each:5.1f} KiB each", flush=True)
                if "HTTP/2" not in name and "waiting" not in name and each * 10_000 / 1024 > options.bound:
                    dear.append(name)
        finally:
            engine.stop()
    return 1 if dear else 0


def cost_of(way, options, binaries, engine, scratch):
    gateway, held = Gateway(options, binaries, engine, scratch), []
    try:
        before = gateway.settle(0)
        for _ in range(options.connections):
            held.append(way(gateway))
        return gateway.settle(options.connections) - before
    finally:
        for connection in held:
            connection.close()
        gateway.process.stop()


if __name__ == "__main__":
    sys.exit(build.program("idle", arguments(), measure))
