#!/usr/bin/env python3
"""`make storm`: changes by the admin API under traffic and open streams, and what anybody noticed of it.

Targets are registered and drained, weights changed, keys made and revoked, rules, plugins and services made and deleted, and the file
is read again, while clients ask and streams are open. No request may fail and no stream be cut; each change must be in force when it
is answered; memory and gauges must be as before in the end. Everything that is started here is stopped here.
"""

import argparse
import json
import os
import sys
import threading
import time
import urllib.request

sys.dont_write_bytecode = True

import build
import peers
import report
import system
from changes import Changes
from system import Failure

MODELS = ["kept", "split", "plugged"]
# Of each kind of traffic.
CONNECTIONS = 32
# Tokens of a stream, 25 ms apart: ten seconds.
STREAM = "tokens=400, itl=25ms"
GAUGES = ["tollgate_in_flight", "tollgate_target_in_flight", "tollgate_queue_depth", "tollgate_body_memory_bytes"]


def arguments():
    parser = argparse.ArgumentParser(description="Changes a configuration under load, and tells what anybody noticed.")
    parser.add_argument("--seconds", type=int, default=60, help="how long (default: 60)")
    parser.add_argument("--changes", type=int, default=500, help="how many changes (default: 500)")
    parser.add_argument("--rate", type=int, default=2000, help="requests a second, about (default: 2000)")
    parser.add_argument("--streams", type=int, default=24, help="streams open at any time (default: 24)")
    parser.add_argument("--profile", default="release", help="cargo's profile (default: release)")
    parser.add_argument("--no-build", dest="build", action="store_false", help="use what was built before")
    return parser.parse_args()


def storm(options):
    starter = peers.Starter(build.scratch(), build.binaries(options.profile), system.Cores(False))
    running = []
    try:
        engines = {name: engine(starter, name, running) for name in ("two", "one")}
        gateway, admin, file = start(starter)
        running.append(gateway)
        changes = Changes(gateway.port, admin, file, engines)
        changes.prepare()
        neighbours = system.Neighbours([peer.pid for peer in running])
        loads = traffic(options, starter, gateway.port)
        # What is taken for good is taken by now.
        time.sleep(3)
        memory = [("before", resident(gateway))]
        memory += run(options, changes, gateway)
        results = [load.result() for load in loads]
        others = neighbours.share()
        gauges = settled(admin)
        memory.append(("afterwards", smallest(gateway)))
    finally:
        for peer in reversed(running):
            peer.stop()
    tell(options, changes.records, results, memory, others)
    failed = [name for name, value in gauges.items() if value]
    print(f"gauges: {'all zero' if not failed else gauges}")
    return 1 if failed else 0


def engine(starter, name, running):
    """An engine that says which one it is; its URL. The last one is the file's."""
    port = system.free_port()
    running.append(starter.launch(name, port, [starter.binary("tollgate-engine"), "--address", f"127.0.0.1:{port}", "--name", name]))
    starter.engine_port = port
    return f"http://127.0.0.1:{port}"


def start(starter):
    port, admin = system.free_port(), system.free_port()
    state = os.path.join(starter.scratch, "storm.db")
    for part in ("", "-wal", "-shm"):
        if os.path.exists(state + part):
            os.remove(state + part)
    file = starter.configuration("storm.toml", "storm", port, admin=f"127.0.0.1:{admin}", state=state)
    return starter.launch("storm", port, [starter.binary("tollgate"), "run", "-c", file]), admin, file


class Load(threading.Thread):
    """Clients of one kind, until their time is over."""

    def __init__(self, options, starter, port, model, **how):
        super().__init__(daemon=True)
        body = os.path.join(starter.scratch, f"body-storm-{model}-{bool(how['stream'])}.json")
        with open(body, "w", encoding="utf-8") as file:
            json.dump({"model": model, "messages": [{"role": "user", "content": "Hello"}], "stream": how["stream"]}, file)
        # Three seconds go by before the first change.
        self.patience = options.seconds + 3
        self.command = [starter.binary("tollgate-load"), "--address", f"127.0.0.1:{port}", "--body", body, "--sim", how["sim"],
                        "--connections", str(how["connections"]), "--duration", f"{self.patience}s"]
        self.command += ["--stream", "--spread", "1s"] if how["stream"] else []
        self.done = None
        self.start()

    def run(self):
        try:
            self.done = json.loads(system.output_of(self.command, self.patience + 60).strip().splitlines()[-1])
        except Failure as failure:
            self.done = failure

    def result(self):
        self.join()
        if isinstance(self.done, Failure):
            raise self.done
        return self.done


def traffic(options, starter, port):
    """A closed loop that asks so often: each answer takes as long as that needs."""
    wait = max(1, round(len(MODELS) * CONNECTIONS / options.rate * 1000) - 3)
    loads = [Load(options, starter, port, model, stream=False, sim=f"tokens=8, ttft={wait}ms", connections=CONNECTIONS)
             for model in MODELS]
    loads.append(Load(options, starter, port, "kept", stream=True, sim=STREAM, connections=options.streams))
    return loads


def run(options, changes, gateway):
    """All changes, evenly over the time; memory six times meanwhile."""
    memory, start = [], time.monotonic()
    each = options.seconds / options.changes
    for number, _ in zip(range(1, options.changes + 1), changes.forever()):
        if number % max(1, options.changes // 6) == 0:
            memory.append((f"{time.monotonic() - start:.0f} s", resident(gateway)))
        time.sleep(max(0.0, start + number * each - time.monotonic()))
    print(f"{options.changes} changes in {time.monotonic() - start:.1f} s", flush=True)
    return memory


def resident(peer):
    with open(f"/proc/{peer.pid}/status", encoding="utf-8") as file:
        line = next(line for line in file if line.startswith("VmRSS:"))
    return int(line.split()[1]) / 1024


def smallest(peer, seconds=15):
    """What is freed goes back to the system within seconds."""
    seen = []
    for _ in range(seconds):
        time.sleep(1)
        seen.append(resident(peer))
    return min(seen)


def settled(admin, patience=10.0):
    """The gauges of load, once they are zero or patience is over."""
    end = time.monotonic() + patience
    while True:
        with urllib.request.urlopen(f"http://127.0.0.1:{admin}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        of = lambda name: sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith((name + "{", name + " ")))
        gauges = {name: of(name) for name in GAUGES}
        if not any(gauges.values()) or time.monotonic() > end:
            return gauges
        time.sleep(0.2)


def tell(options, records, results, memory, others):
    def spread(values):
        values = sorted(value * 1000 for value in values)
        return [f"{values[len(values) // 2]:.1f}", f"{values[len(values) * 99 // 100]:.1f}", f"{values[-1]:.1f}"]

    machine = system.machine()
    print(f"{machine['cpu']}, {machine['cores']} cores, others used {others:.0%} of the machine; cargo profile {options.profile}\n")
    rows = [["change (ms)", "n", "answer p50", "p99", "max", "then seen p50", "p99", "max", "requests that did not see it"]]
    for sort in [*dict.fromkeys(record.sort for record in records), "all"]:
        own = [record for record in records if sort in ("all", record.sort)]
        blind = sum(record.blind for record in own)
        rows.append([sort, str(len(own)), *spread([r.answered for r in own]), *spread([r.seen for r in own]), str(blind)])
    print(report.aligned(rows))
    plain, streams = results[:-1], results[-1]
    count = sum(result["requests"] for result in plain)
    print(f"\nrequests: {count:,}, {count / plain[0]['seconds']:,.0f} a second, {sum(r['failed'] for r in plain)} failed; "
          f"p99 {max(r['latency']['p99'] for r in plain) / 1000:.1f} ms, max {max(r['latency']['max'] for r in plain) / 1000:.1f} ms")
    print(f"streams: {streams['requests']} of {streams['latency']['p50'] / 1e6:.1f} s, {streams['failed']} cut; "
          f"between chunks p50 {streams['gap']['p50'] / 1000:.1f} ms, p99 {streams['gap']['p99'] / 1000:.1f} ms, max {streams['gap']['max'] / 1000:.1f} ms")
    print("memory (MiB): " + ", ".join(f"{when} {size:.0f}" for when, size in memory))


if __name__ == "__main__":
    sys.exit(build.program("storm", arguments(), storm))
