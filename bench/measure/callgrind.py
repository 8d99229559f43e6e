#!/usr/bin/env python3
"""Instructions per request of Tollgate and of bare Pingora, and where Tollgate's own go.

Both run under valgrind's callgrind, which counts only while a closed loop of requests runs. Counts repeat within
one percent however busy the machine is, but leave out the kernel, which is half of a small request's time.
"""

import argparse
import os
import re
import sys

sys.dont_write_bytecode = True

import build
import cases
import peers
import report
import system
from system import Failure


def main(options):
    for program in ("valgrind", "callgrind_control", "callgrind_annotate"):
        if system.find(program) is None:
            raise Failure(f"{program} is missing: install valgrind")
    for case in options.cases:
        compare(options, case)
    return 0


def arguments():
    names = [case.name for case in cases.all_cases()]
    parser = argparse.ArgumentParser(description="Counts instructions per request.")
    parser.add_argument("--cases", default="300", help=f"which of {', '.join(names)} (default: 300)")
    parser.add_argument("--requests", type=int, help="requests to count (default: 2000; 200 for large ones, streams)")
    parser.add_argument("--connections", type=int, default=8, help="requests at a time (default: 8)")
    parser.add_argument("--top", type=int, default=40, help="lines of each list (default: 40)")
    parser.add_argument("--profile", default="release", help="cargo's profile (default: release)")
    parser.add_argument("--no-build", dest="build", action="store_false", help="use what was built before")
    parser.add_argument("--tollgate", metavar="FILE", help="another build of Tollgate")
    parser.add_argument("--peer", default="tollgate", help="tollgate, or open: with nothing governed")
    options = parser.parse_args()
    options.cases = [case for case in cases.all_cases() if case.name in options.cases.split(",")]
    return options


def compare(options, case):
    requests = options.requests or (200 if case.stream or len(case.body) > 1 << 16 else 2000)
    tollgate = f"{options.peer}={options.tollgate}" if options.tollgate else options.peer
    profiles = {name.partition("=")[0]: profile(options, case, name, requests) for name in ("bare", tollgate)}
    bare, ours = profiles["bare"], profiles[options.peer]
    print(f"\n## {case.title}: user-space instructions per request, {requests} requests\n")
    total = {name: one.total / requests for name, one in profiles.items()}
    rows = [["", "instructions", "÷ bare"]]
    rows += [[peers.title(name), f"{count:,.0f}", f"{count / total['bare']:.3f}"] for name, count in total.items()]
    print(report.aligned(rows))
    print("\nTollgate's own functions with what they call:\n")
    own = [(name, count) for name, count in ours.inclusive.items() if "tollgate" in name]
    print_counts(own, requests, options.top)
    print("\nFunctions in which Tollgate spends more than bare Pingora (without what they call):\n")
    more = [(name, count - bare.own.get(name, 0)) for name, count in ours.own.items()]
    print_counts(more, requests, options.top)
    less = [(name, count - ours.own.get(name, 0)) for name, count in bare.own.items()]
    print("\nAnd less:\n")
    print_counts(less, requests, 8)


def print_counts(counts, requests, top):
    counts = sorted(counts, key=lambda pair: -pair[1])[:top]
    for name, count in counts:
        if count / requests >= 10:
            print(f"{count / requests:>12,.0f}  {name[:160]}")


class Profile:
    """What callgrind counted: in all, per function alone, and per function with what it calls."""

    def __init__(self, path):
        self.own = annotate(path, "no")
        self.inclusive = annotate(path, "yes")
        self.total = sum(self.own.values())


def profile(options, case, name, requests):
    """Runs one proxy under callgrind for so many requests."""
    cores, scratch = system.Cores(True), build.scratch()
    case.write(scratch)
    binaries = build.binaries(options.profile)
    starter, load = peers.Starter(scratch, binaries, cores), cases.Load(binaries, cores, 0)
    out = os.path.join(scratch, f"callgrind.{name.partition('=')[0]}.{case.name}")
    if os.path.exists(out):
        os.remove(out)
    running = []
    try:
        running.append(starter.engine())
        # Large copies by vector moves: `rep movsb` would be counted as one instruction a byte.
        tunables = "GLIBC_TUNABLES=glibc.cpu.x86_rep_movsb_threshold=1073741824"
        wrap = ["env", tunables, "valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={out}"]
        peer = starter.start(name, wrap)
        running.append(peer)
        # Connections are made and pages touched before counting starts.
        load.loop(case, peer.port, max(requests // 4, options.connections * 4), options.connections)
        system.output_of(["callgrind_control", "-i", "on", str(peer.pid)], 30)
        load.loop(case, peer.port, requests, options.connections)
        system.output_of(["callgrind_control", "-i", "off", str(peer.pid)], 30)
    finally:
        for peer in reversed(running):
            peer.stop(patience=20)
    if not os.path.exists(out):
        raise Failure(f"callgrind left no result; its log is {peer.process.log}")
    return Profile(out)


def annotate(path, inclusive):
    """Counts by function name; parts of one function in several files are added up."""
    out = system.output_of(
        ["callgrind_annotate", f"--inclusive={inclusive}", "--threshold=100", "--auto=no", path], 120)
    counts = {}
    for line in out.splitlines():
        found = re.match(r"\s*([\d,]+) \(\s*[\d.]+%\)\s+(?:[^:]*:)?(.*)$", line)
        if not found or found[2].startswith("PROGRAM TOTALS") or "PROGRAM TOTALS" in line:
            continue
        name = re.sub(r"::h[0-9a-f]{16}|'\d+$| \[[^\]]*\]$", "", found[2])
        name = re.sub(r"::h[0-9a-f]{16}|'\d+$", "", name).strip()
        count = int(found[1].replace(",", ""))
        counts[name] = max(counts.get(name, 0), count) if inclusive == "yes" else counts.get(name, 0) + count
    return counts


if __name__ == "__main__":
    sys.exit(build.program("callgrind", arguments(), main, as_linked=True))
