#!/usr/bin/env python3
"""`make bench-pair`: what governance costs, or one build beside another, to a percent or so.

Two processes of the same program and configuration differ by some percent for as long as they live (where their memory lies), and a
shared machine by far more from one second to the next. So everything is started anew again and again, all of it runs at
the same time, and turns of a fraction of a second go around in random order. Of each start the median of the turns' ratios to the first
peer counts; told is the mean of the starts, with the range that holds it 95 times of 100 (bootstrap). The first peer runs
twice: how far that is from 1 is what cannot be told apart here.
"""

import argparse
import math
import os
import random
import statistics
import sys

sys.dont_write_bytecode = True

import build
import cases
import peers
import report
import system
from system import Failure

AGAIN = " again"
# So many requests take 0.1 to 0.3 s.
REQUESTS = {"300": 3000, "16k": 2000, "256k": 500, "stream": 100}


def arguments():
    names = [case.name for case in cases.all_cases()]
    parser = argparse.ArgumentParser(description="Measures proxies beside each other, more exactly than `make bench`.")
    parser.add_argument("--peers", default="open,tollgate", help="the first is what the others are compared with; NAME=FILE is another build")
    parser.add_argument("--cases", default="300,16k,256k", help=f"which of {', '.join(names)}")
    parser.add_argument("--starts", type=int, default=12, help="how often everything is started (default: 12)")
    parser.add_argument("--turns", type=int, default=10, help="turns of each start (default: 10)")
    parser.add_argument("--profile", default="release", help="cargo's profile (default: release)")
    parser.add_argument("--no-build", dest="build", action="store_false", help="use what was built before")
    options = parser.parse_args()
    options.cases = [case for case in cases.all_cases() if case.name in options.cases.split(",")]
    options.peers = options.peers.split(",")
    return options


def measure(options):
    cores, binaries, scratch = system.Cores(True), build.binaries(options.profile), build.scratch()
    print(f"{options.starts} starts of {options.turns} turns; {cores.describe()}; {build.told(options.profile)}", flush=True)
    starter, load = peers.Starter(scratch, binaries, cores), cases.Load(binaries, cores, 0)
    for case in options.cases:
        print(f"\n{compare(case, options.peers, options.starts, options.turns, starter, load)}", flush=True)
    return 0


def compare(case, names, starts, turns, starter, load):
    """A case on peers, the first of them twice; a table in Markdown."""
    engine = starter.engine()
    try:
        case.write(starter.scratch)
        seen = [one_start(case, names, turns, starter, load) for _ in range(starts)]
    finally:
        engine.stop()
    return f"**{case.title}**, {case.connections} connections\n\n{table(seen)}"


def one_start(case, names, turns, starter, load):
    """All peers, started anew; of each turn the nanoseconds of processor time that each took for a request."""
    names = [*names, names[0] + AGAIN]
    running, seen = {}, []
    try:
        for name in random.sample(names, len(names)):
            peer = starter.start(name.removesuffix(AGAIN))
            if peer is None:
                raise Failure(f"{name} cannot be had")
            running[name] = peer
            peers.check_forwarding(peer, case)
        # The first turn is for warming up.
        for turn in range(turns + 1):
            took = {name: one_turn(load, case, running[name]) for name in random.sample(names, len(names))}
            seen += [{name: took[name] for name in names}] if turn else []
    finally:
        for peer in running.values():
            peer.stop(20)
    return seen


def one_turn(load, case, peer):
    before = nanoseconds(peer.pid)
    requests = REQUESTS[case.name]
    done = load.loop(case, peer.port, requests, case.connections)
    if done["failed"]:
        raise Failure(f"{peers.title(peer.name)} failed {done['failed']} requests")
    return (nanoseconds(peer.pid) - before) / requests


def nanoseconds(root):
    """Processor time of a process tree so far, as the scheduler counts it."""
    total = 0
    for pid in system.tree(root):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/schedstat", encoding="utf-8") as file:
                total += int(file.read().split()[0])
    return total


def table(starts):
    names = list(starts[0][0])
    title = lambda name: peers.title(name.partition("=")[0].removesuffix(AGAIN)) + (", once more" if name.endswith(AGAIN) else "")
    rows = [["proxy", "CPU µs/request", f"CPU ÷ {title(names[0])}"]]
    for name in names:
        times = [turn[name] / 1e3 for turns in starts for turn in turns]
        logs = [statistics.median(math.log(turn[name] / turn[names[0]]) for turn in turns) for turns in starts]
        means = sorted(statistics.mean(random.choices(logs, k=len(logs))) for _ in range(2000))
        ratio, low, high = (math.exp(value) for value in (statistics.mean(logs), means[50], means[-50]))
        shown = "1" if name == names[0] else f"{ratio:.3f} ({low:.3f}–{high:.3f})"
        rows.append([title(name), f"{statistics.median(times):.1f}", shown])
    return report.aligned(rows)


if __name__ == "__main__":
    sys.exit(build.program("pair", arguments(), measure))
