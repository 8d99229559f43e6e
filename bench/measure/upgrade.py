#!/usr/bin/env python3
"""`make bench-upgrade`: upgrades in a row under load, and what clients notice of them: nothing, or it ends with status 1.

wrk keeps its connections, other clients make one for every request, others stream, and one asks for readiness. Every
other upgrade is followed by a reload. Counted are requests that fail, streams that are cut, and whether usage, as the gateway tells it, is
what was answered.
"""

import argparse
import http.client
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time

sys.dont_write_bytecode = True

import build
import system
from system import Failure, Process

CONF = """
[server]
state = "state.db"
grace = "60s"
pid_file = "pid"
[admin]
address = "127.0.0.1:{admin}"
[log]
access = "off"
[[listener]]
address = "127.0.0.1:{port}"
[[gateway]]
name = "main"
hosts = ["*"]
auth = "none"
plugins = [{{ name = "budget", settings = {{ by = "global", unit = "tokens", limit = 1e12 }} }}]
[[service]]
name = "m"
models = ["m"]
targets = ["http://127.0.0.1:{engine}"]
"""
BODY = json.dumps({"model": "m", "messages": [{"role": "user", "content": "Hello"}]})
STREAM = json.dumps({"model": "m", "stream": True, "max_tokens": 60, "messages": [{"role": "user", "content": "go"}]})
LUA = "wrk.method = 'POST'\nwrk.body = '{}'\nwrk.headers['Content-Type'] = 'application/json'\n"


class Clients:
    """Threads that ask until they are stopped, and what they saw."""

    def __init__(self, port, admin):
        self.port, self.admin = port, admin
        self.over = threading.Event()
        self.lock = threading.Lock()
        self.good = {"new": 0, "stream": 0, "probe": 0}
        self.bad = []
        self.threads = []

    def start(self, kind, work, count):
        for _ in range(count):
            thread = threading.Thread(target=self.again, args=(kind, work), daemon=True)
            thread.start()
            self.threads.append(thread)

    def again(self, kind, work):
        while not self.over.is_set():
            try:
                problem = work()
            except (OSError, http.client.HTTPException) as error:
                problem = repr(error)
            with self.lock:
                if problem is None:
                    self.good[kind] += 1
                else:
                    self.bad.append(f"{kind}: {problem}")

    def ask(self, port, method, path, body=None, headers=None):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        try:
            connection.request(method, path, body, {"Content-Type": "application/json", **(headers or {})})
            reply = connection.getresponse()
            return reply.status, reply.read()
        finally:
            connection.close()

    def new(self):
        status, _ = self.ask(self.port, "POST", "/v1/chat/completions", BODY, {"Connection": "close"})
        return None if status == 200 else f"status {status}"

    def stream(self):
        status, body = self.ask(self.port, "POST", "/v1/chat/completions", STREAM, {"x-sim": "itl=50ms"})
        whole = status == 200 and body.endswith(b"data: [DONE]\n\n")
        return None if whole else f"status {status}, cut after {len(body)} bytes"

    def probe(self):
        status, _ = self.ask(self.admin, "GET", "/readyz")
        time.sleep(0.01)
        return None if status == 200 else f"status {status}"

    def stop(self):
        self.over.set()
        for thread in self.threads:
            thread.join(90)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--upgrades", type=int, default=20)
    parser.add_argument("--seconds", type=int, default=120, help="how long the load lasts")
    parser.add_argument("--connections", type=int, default=32, help="that wrk keeps")
    parser.add_argument("--profile", default="release")
    parser.add_argument("--no-build", dest="build", action="store_false")
    return parser.parse_args()


def measure(options):
    system.install(["wrk"])
    folder = "debug" if options.profile == "dev" else options.profile
    binary = os.path.join(build.binaries(folder), "tollgate")
    engine_port, port, admin = (system.free_port() for _ in range(3))
    running = []
    with tempfile.TemporaryDirectory() as scratch:
        path = lambda name: os.path.join(scratch, name)
        try:
            command = [os.path.join(build.binaries(folder), "tollgate-engine"), "--address", f"127.0.0.1:{engine_port}"]
            running.append(Process("engine", command, path("engine.log")))
            running[-1].wait_until_ready(engine_port)
            with open(path("tollgate.toml"), "w") as file:
                file.write(CONF.format(admin=admin, port=port, engine=engine_port))
            with open(path("wrk.lua"), "w") as file:
                file.write(LUA.format(BODY))
            command = ["sh", "-c", f"cd {scratch} && exec {binary} run -c tollgate.toml"]
            running.append(Process("tollgate", command, path("tollgate.log")))
            running[-1].wait_until_ready(port)
            return under_load(options, binary, port, admin, path)
        finally:
            # The last that took over is nobody's child.
            if os.path.exists(path("pid")):
                subprocess.run(["kill", "-9", open(path("pid")).read().strip()], check=False)
            for process in reversed(running):
                process.stop()


def under_load(options, binary, port, admin, path):
    clients = Clients(port, admin)
    clients.start("new", clients.new, 4)
    clients.start("stream", clients.stream, 8)
    clients.start("probe", clients.probe, 1)
    wrk = subprocess.Popen(
        [system.find("wrk"), "-t1", f"-c{options.connections}", f"-d{options.seconds}s", "--timeout", "30s",
         "-s", path("wrk.lua"), f"http://127.0.0.1:{port}/v1/chat/completions"],
        stdout=subprocess.PIPE, text=True)
    start, old = time.monotonic(), []
    environment = {**os.environ, "TOLLGATE_SERVER": f"http://127.0.0.1:{admin}"}
    try:
        for number in range(options.upgrades):
            due = start + (number + 0.5) * options.seconds / options.upgrades
            time.sleep(max(0.0, due - time.monotonic()))
            began = time.monotonic()
            told = system.output_of([binary, "upgrade"], 90, environment)
            old.append(int(re.search(r"in place of process (\d+)", told).group(1)))
            print(f"{number + 1:3} {time.monotonic() - began:5.2f} s  {told.splitlines()[0]}", flush=True)
            if number % 2:
                with open(path("tollgate.toml"), "a") as file:
                    file.write(f"# {number}\n")
                system.output_of([binary, "reload"], 30, environment)
        report = wrk.communicate(timeout=options.seconds + 60)[0]
    finally:
        wrk.kill()
        clients.stop()
    return judge(clients, report, admin, old)


def judge(clients, report, admin, old):
    wrong = [line.strip() for line in report.splitlines() if "Socket errors" in line or "Non-2xx" in line]
    asked = int(re.search(r"(\d+) requests in", report).group(1))
    answered = asked + clients.good["new"] + clients.good["stream"]
    end = time.monotonic() + 75
    while time.monotonic() < end and any(alive(pid) for pid in old):
        time.sleep(0.1)
    left = [pid for pid in old if alive(pid)]
    time.sleep(2)
    _, usage = clients.ask(admin, "GET", "/v1/usage?by=service&since=2h")
    counted = sum(item["requests"] for item in json.loads(usage)["items"])
    print(f"kept connections: {asked} requests, {'; '.join(wrong) or 'none failed'}")
    for kind, good in clients.good.items():
        bad = [problem for problem in clients.bad if problem.startswith(kind)]
        print(f"{kind}: {good} well, {len(bad)} failed{': ' + bad[0] if bad else ''}")
    # wrk drops what is under way when its time is over: as many as it has connections, at most.
    lost = answered - counted
    print(f"usage: {counted} counted of {answered} answered")
    print(f"old processes left: {left or 'none'}")
    return 1 if wrong or clients.bad or lost > 0 or left else 0


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


if __name__ == "__main__":
    sys.exit(build.program("upgrade", arguments(), measure))
