#!/usr/bin/env python3
"""`make soak`: half an hour of everything at once, and whether memory, open files and threads of the gateway stay as they were.

Clients ask, stream, leave in the middle, send large bodies, show good and bad keys and hold connections that they do not use; one of two engines is
killed and started again, answers fail, are put off and break off; the file is read again and the admin API changes things. Ends with status 1 if the
last third needs more than the first one by more than the bounds below, if a gauge does not return to zero, or if a kind of load never succeeds.
"""

import argparse
import http.client
import json
import os
import random
import socket
import sys
import tempfile
import threading
import time

sys.dont_write_bytecode = True

import build
import storm
import system
from system import Failure, Process

# How much the mean of the last third may exceed that of the first: a part of it, and so many (MiB, files, threads).
BOUNDS = {"memory": (0.10, 8), "files": (0.10, 24), "threads": (0.0, 2)}
CHAT = "/v1/chat/completions"
KEY = "tg_soak_0123456789abcdef0123456789abcdef"
CONF = """
[server]
state = "{state}"
header_timeout = "5s"
[admin]
address = "127.0.0.1:{admin}"
[log]
level = "error"
access = "{access}"
[[listener]]
address = "127.0.0.1:{port}"
[[gateway]]
name = "main"
hosts = ["*"]
auth = "none"
[[gateway]]
name = "keyed"
hosts = ["keyed.example"]
[[key]]
name = "known"
gateway = "keyed"
secret = "{key}"
limits = {{ per_key = {{ limit = 1000000, window = "1m" }} }}
[[upstream]]
name = "pool"
health = {{ type = "http", path = "/health", interval = "1s", timeout = "1s" }}
targets = [{targets}]
[[service]]
name = "m"
models = ["m"]
upstream = "pool"
queue = {{ size = 50, workers = 8, max_wait = "5s" }}
"""


class Load:
    """Threads that ask until they are stopped, each in its own manner."""

    def __init__(self, port, rate):
        self.port, self.over = port, threading.Event()
        self.lock, self.counts, self.threads = threading.Lock(), {}, []
        kinds = [self.kept, self.kept, self.new, self.streamed, self.streamed, self.left, self.large, self.known, self.unknown,
                 self.failing, self.put_off, self.broken, self.unused]
        for kind in kinds:
            self.counts[kind.__name__] = [0, 0]
            thread = threading.Thread(target=self.again, args=(kind, len(kinds) / rate), daemon=True)
            self.threads.append(thread)
        for thread in self.threads:
            thread.start()

    def again(self, kind, pause):
        connection = None
        while not self.over.is_set():
            began = time.monotonic()
            try:
                connection = connection or http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
                good = kind(connection)
            except (OSError, http.client.HTTPException):
                good, connection = False, None
            with self.lock:
                self.counts[kind.__name__][0 if good else 1] += 1
            self.over.wait(max(0.0, pause * random.uniform(0.5, 1.5) - (time.monotonic() - began)))

    def ask(self, connection, sim="tokens=8, ttft=5ms", body=None, headers=None):
        body = body or {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}
        connection.request("POST", CHAT, json.dumps(body), {"Content-Type": "application/json", "X-Sim": sim, **(headers or {})})
        reply = connection.getresponse()
        return reply.status, reply.read()

    def kept(self, connection):
        return self.ask(connection)[0] == 200

    def new(self, connection):
        status, _ = self.ask(connection, headers={"Connection": "close"})
        connection.close()
        return status == 200

    def stream(self, connection, sim):
        body = {"model": "m", "stream": True, "max_tokens": 40, "messages": [{"role": "user", "content": "go"}]}
        return self.ask(connection, sim, body)

    def streamed(self, connection):
        status, body = self.stream(connection, "itl=20ms")
        return status == 200 and body.endswith(b"data: [DONE]\n\n")

    def left(self, _):
        body = json.dumps({"model": "m", "stream": True, "max_tokens": 400, "messages": []}).encode()
        with socket.create_connection(("127.0.0.1", self.port), 30) as client:
            client.sendall(b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nX-Sim: itl=20ms\r\nContent-Length: %d\r\n\r\n%s"
                           % (CHAT.encode(), len(body), body))
            return bool(client.recv(4096))

    def large(self, connection):
        content = "word " * random.randint(20_000, 400_000)
        return self.ask(connection, body={"model": "m", "messages": [{"role": "user", "content": content}]})[0] == 200

    def known(self, connection):
        return self.ask(connection, headers={"Host": "keyed.example", "Authorization": f"Bearer {KEY}"})[0] == 200

    def unknown(self, connection):
        key = f"tg_soak_{random.randrange(1 << 60):032x}"
        return self.ask(connection, headers={"Host": "keyed.example", "Authorization": f"Bearer {key}"})[0] == 401

    def failing(self, connection):
        return self.ask(connection, "status=500")[0] >= 500

    def put_off(self, connection):
        return self.ask(connection, "status=429, retry-after=1")[0] in (429, 503)

    def broken(self, connection):
        try:
            return not self.stream(connection, random.choice(["close-after=3", "reset-after=3", "garbage-after=3"]))[1].endswith(b"[DONE]\n\n")
        except http.client.HTTPException:
            connection.close()
            return True

    def unused(self, _):
        held = [socket.create_connection(("127.0.0.1", self.port), 30) for _ in range(20)]
        self.over.wait(2)
        for client in held:
            client.close()
        return True

    def stop(self):
        self.over.set()
        for thread in self.threads:
            thread.join(60)


class Changes:
    """The file and the admin API, one change a second."""

    def __init__(self, admin, conf, engine):
        self.admin, self.conf, self.engine, self.number, self.failed = admin, conf, engine, 0, 0

    def make(self):
        self.number += 1
        n = self.number
        name = f"s{n // 4}"
        try:
            if n % 4 == 0:
                self.call("POST", "/v1/services", {"name": name, "models": [name], "targets": [self.engine]})
            elif n % 4 == 1 and n > 1:
                self.call("POST", "/v1/keys", {"name": f"k{n // 4}", "gateway": "keyed"})
                self.call("DELETE", f"/v1/keys/k{n // 4}", None)
            elif n % 4 == 2 and n > 2:
                self.call("DELETE", f"/v1/services/{name}", None)
            elif n % 4 == 3:
                with open(self.conf, "a", encoding="utf-8") as file:
                    file.write(f"# {n}\n")
                self.call("POST", "/v1/reload", None)
        except (OSError, http.client.HTTPException, Failure) as error:
            self.failed += 1
            print(f"a change failed: {error}", flush=True)

    def call(self, method, path, body):
        connection = http.client.HTTPConnection("127.0.0.1", self.admin, timeout=30)
        try:
            connection.request(method, path, body and json.dumps(body), {"Content-Type": "application/json"})
            reply = connection.getresponse()
            text = reply.read()
            if reply.status not in (200, 201, 204):
                raise Failure(f"{method} {path}: {reply.status} {text[:200]}")
        finally:
            connection.close()


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--rate", type=float, default=60, help="requests a second, about (default: 60)")
    parser.add_argument("--samples", help="a file for what was sampled, as CSV")
    parser.add_argument("--profile", default="release")
    parser.add_argument("--no-build", dest="build", action="store_false")
    return parser.parse_args()


def soak(options):
    binaries, running = build.binaries("debug" if options.profile == "dev" else options.profile), {}
    with tempfile.TemporaryDirectory() as scratch:
        path = lambda name: os.path.join(scratch, name)

        def engine(port):
            command = [os.path.join(binaries, "tollgate-engine"), "--address", f"127.0.0.1:{port}"]
            running[port] = Process(f"engine {port}", command, path(f"engine-{port}.log"))
            running[port].wait_until_ready(port)

        try:
            steady, faulty, port, admin = (system.free_port() for _ in range(4))
            engine(steady), engine(faulty)
            targets = ", ".join(f'"http://127.0.0.1:{number}"' for number in (steady, faulty))
            with open(path("tollgate.toml"), "w", encoding="utf-8") as file:
                file.write(CONF.format(state=path("state.db"), access=path("access.log"), admin=admin, port=port, key=KEY, targets=targets))
            gateway = Process("tollgate", [os.path.join(binaries, "tollgate"), "run", "-c", path("tollgate.toml")], path("tollgate.log"))
            running[port] = gateway
            gateway.wait_until_ready(port)
            load, changes = Load(port, options.rate), Changes(admin, path("tollgate.toml"), f"http://127.0.0.1:{steady}")
            samples = run(options, gateway, changes, lambda: running[faulty].stop(), lambda: engine(faulty))
            load.stop()
            return judge(options, samples, load, changes, storm.settled(admin))
        finally:
            for process in reversed(running.values()):
                process.stop()


def run(options, gateway, changes, kill, revive):
    """Lets it go on; what the gateway needed, every two seconds. An engine is gone for five of thirty seconds."""
    samples, start, dead = [], time.monotonic(), False
    while (now := time.monotonic() - start) < options.minutes * 60:
        wanted = 20 <= now % 30 < 25
        if wanted != dead:
            kill() if wanted else revive()
            dead = wanted
        changes.make()
        if int(now) % 2 == 0:
            samples.append((now, *needs(gateway.child.pid)))
        time.sleep(max(0.0, start + int(now) + 1 - time.monotonic()))
    if dead:
        revive()
    return samples


def needs(pid):
    """Resident MiB, open files and threads of a process."""
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8") as status:
            fields = dict(line.split(":", 1) for line in status)
        return int(fields["VmRSS"].split()[0]) / 1024, len(os.listdir(f"/proc/{pid}/fd")), int(fields["Threads"])
    except (OSError, KeyError):
        raise Failure("the gateway is gone") from None


def judge(options, samples, load, changes, gauges):
    if options.samples:
        with open(options.samples, "w", encoding="utf-8") as file:
            file.writelines(f"{','.join(f'{value:.1f}' for value in sample)}\n" for sample in samples)
    third, worse = len(samples) // 3, []
    for column, (what, (part, some)) in enumerate(BOUNDS.items(), start=1):
        first, last = ([sample[column] for sample in part_of] for part_of in (samples[:third], samples[-third:]))
        mean = lambda values: sum(values) / max(1, len(values))
        print(f"{what:8} first third {mean(first):7.1f} (at most {max(first):.1f})  last third {mean(last):7.1f} (at most {max(last):.1f})")
        if mean(last) > mean(first) * (1 + part) + some:
            worse.append(f"{what} grew")
    for kind, (good, other) in load.counts.items():
        print(f"{kind:9} {good} as expected, {other} not")
        worse += [] if good else [f"{kind} never succeeded"]
    print(f"changes   {changes.number} made, {changes.failed} failed")
    worse += [f"{name} is {value}" for name, value in gauges.items() if value]
    print("; ".join(worse) or "flat")
    return 1 if worse or changes.failed else 0


if __name__ == "__main__":
    sys.exit(build.program("soak", arguments(), soak))
