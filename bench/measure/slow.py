#!/usr/bin/env python3
"""`make bench-slow`: 1,000 slow clients, and what others notice: their 99th percentile beside what it is without them.

`slowhttptest` sends heads slowly, sends bodies slowly or reads slowly, each way with as many connections as there may be; meanwhile one client after the
other asks for a small answer. Rounds with and without alternate, so that what else the machine does hits both. Ends with status 1 if the median of the
ratios of one way is above 2 (`--bound`).
"""

import argparse
import http.client
import json
import os
import resource
import statistics
import sys
import tempfile
import time
import urllib.request

sys.dont_write_bytecode = True

import build
import system
from system import Failure, Process

CHAT = "/v1/chat/completions"
CONF = """
[server]
state = "memory"
[admin]
address = "127.0.0.1:{admin}"
[log]
level = "error"
access = "off"
[[listener]]
address = "127.0.0.1:{port}"
[[gateway]]
name = "main"
hosts = ["*"]
auth = "none"
[[service]]
name = "m"
models = ["m"]
targets = ["http://127.0.0.1:{engine}"]
[[service]]
name = "pages"
type = "http"
targets = ["http://127.0.0.1:{large}"]
[[rule]]
gateway = "main"
path = "/pages/*"
strip_path = true
services = ["pages"]
"""
BODY = json.dumps({"model": "m", "messages": [{"role": "user", "content": "Hello"}]})
# What slowhttptest is told beside the number of connections, and where it asks.
WAYS = {
    "slow heads": (["-H", "-i", "1", "-x", "24"], CHAT),
    "slow bodies": (["-B", "-i", "1", "-s", "8192", "-x", "10", "-t", "POST", "-f", "application/json"], CHAT),
    # Each reads 8 bytes a second of a list of models that is longer than what sockets hold, and that it asked for ten times.
    "slow reading": (["-X", "-w", "128", "-y", "256", "-n", "1", "-z", "8", "-k", "10"], "/pages/v1/models"),
}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5, help="of each way (default: 5)")
    parser.add_argument("--requests", type=int, default=1500, help="of a round (default: 1500)")
    parser.add_argument("--bound", type=float, default=2.0)
    parser.add_argument("--profile", default="release")
    parser.add_argument("--no-build", dest="build", action="store_false")
    return parser.parse_args()


def measure(options):
    system.install(["slowhttptest"])
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    attacker = system.find("slowhttptest")
    if attacker is None:
        raise Failure("slowhttptest is not installed")
    binaries, running = build.binaries("debug" if options.profile == "dev" else options.profile), []
    with tempfile.TemporaryDirectory() as scratch:
        path = lambda name: os.path.join(scratch, name)

        def start(name, port, *arguments):
            running.append(Process(name, [os.path.join(binaries, name), *arguments], path(f"{name}.log")))
            running[-1].wait_until_ready(port)

        try:
            engine, large, port, admin = (system.free_port() for _ in range(4))
            start("tollgate-engine", engine, "--address", f"127.0.0.1:{engine}")
            many = [f"--model=organisation/model-with-a-long-name-{number}" for number in range(1500)]
            start("tollgate-engine", large, "--address", f"127.0.0.1:{large}", *many)
            with open(path("tollgate.toml"), "w", encoding="utf-8") as file:
                file.write(CONF.format(admin=admin, port=port, engine=engine, large=large))
            start("tollgate", port, "run", "-c", path("tollgate.toml"))
            neighbours = system.Neighbours([process.child.pid for process in running])
            times(port, options.requests)
            ratios = {way: one(options, attacker, way, port, admin, running[-1].child.pid, path("attack.log")) for way in WAYS}
            print(f"others used {neighbours.share():.0%} of the machine, the slow clients among them")
        finally:
            for process in reversed(running):
                process.stop()
    return 1 if any(statistics.median(of_way) > options.bound for of_way in ratios.values()) else 0


def one(options, attacker, way, port, admin, gateway, log):
    """The ratios of a way's rounds."""
    ratios, alone, beside, most = [], [], [], 0
    arguments, place = WAYS[way]
    for _ in range(options.rounds):
        alone.append(times(port, options.requests))
        command = [attacker, "-c", str(options.connections), "-r", str(options.connections), "-l", "240", "-p", "5",
                   "-u", f"http://127.0.0.1:{port}{place}", *arguments]
        attack = Process("slowhttptest", command, log)
        try:
            end = time.monotonic() + 20
            while (now := connections(admin)) < options.connections * 0.9 and time.monotonic() < end:
                time.sleep(0.1)
            wait_for_rest(gateway)
            beside.append(times(port, options.requests))
            most = max(most, now, connections(admin))
        finally:
            attack.stop()
            settle(admin)
        ratios.append(beside[-1] / alone[-1])
    print(f"{way:13} {most:5} connections  p99 alone {statistics.median(alone):6.2f} ms  beside them {statistics.median(beside):6.2f} ms  "
          f"ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})", flush=True)
    if most < options.connections * 0.8:
        raise Failure(f"only {most} slow clients got in")
    return ratios


def times(port, count):
    """The 99th percentile of answers to one client, in ms."""
    client, took = http.client.HTTPConnection("127.0.0.1", port, timeout=30), []
    for _ in range(count):
        start = time.monotonic()
        client.request("POST", CHAT, BODY, {"Content-Type": "application/json"})
        reply = client.getresponse()
        reply.read()
        took.append(time.monotonic() - start)
        if reply.status != 200:
            raise Failure(f"another client got {reply.status}")
    client.close()
    return sorted(took)[count * 99 // 100] * 1000


def connections(admin):
    with urllib.request.urlopen(f"http://127.0.0.1:{admin}/metrics", timeout=30) as page:
        lines = page.read().decode().splitlines()
    return next(int(float(line.split()[1])) for line in lines if line.startswith("tollgate_connections "))


def wait_for_rest(gateway, patience=8):
    """What the slow clients' first requests take is over: from then on they are slow and nothing else."""
    used, end = sum(system.cpu_seconds(gateway)), time.monotonic() + patience
    while time.monotonic() < end:
        time.sleep(0.5)
        before, used = used, sum(system.cpu_seconds(gateway))
        if used - before < 0.05:
            return


def settle(admin):
    end = time.monotonic() + 30
    while connections(admin) > 2 and time.monotonic() < end:
        time.sleep(0.1)


if __name__ == "__main__":
    sys.exit(build.program("slow", arguments(), measure))
