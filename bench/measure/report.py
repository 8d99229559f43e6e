"""From raw runs to medians and ratios, and from those to a table."""

import os
import statistics

from peers import title

BASE = "bare"
MARKS = ("<!-- measured: begin -->", "<!-- measured: end -->")


def run_record(round_number, case, peer, seen, before, after):
    """One measurement: what the clients saw, and the processor time it cost the proxy."""
    user, system = (after[i] - before[i] for i in (0, 1))
    requests = seen["requests"]
    record = {
        "round": round_number,
        "case": case.name,
        "peer": peer.name,
        "requests": requests,
        "per_second": requests / seen["seconds"],
        "cpu_us": (user + system) / requests * 1e6,
        "cpu_user_us": user / requests * 1e6,
        "cpu_system_us": system / requests * 1e6,
        "p50_us": seen["latency"]["p50"],
        "p99_us": seen["latency"]["p99"],
    }
    if case.stream:
        record |= {
            "chunks": seen["events"],
            "cpu_us_per_chunk": (user + system) / seen["events"] * 1e6,
            "first_byte_p50_us": seen["first_byte"]["p50"],
            "first_byte_p99_us": seen["first_byte"]["p99"],
            "gap_p50_us": seen["gap"]["p50"],
            "gap_p99_us": seen["gap"]["p99"],
            "gap_max_us": seen["gap"]["max"],
        }
    return record


def summarise(runs):
    """Per case and peer: median, least and most of every figure, and of its ratio to bare Pingora in the
    same round."""
    by_key = {}
    for run in runs:
        by_key.setdefault((run["case"], run["peer"]), []).append(run)
    result = {}
    for (case, peer), mine in by_key.items():
        summary = {
            figure: spread([run[figure] for run in mine])
            for figure in mine[0] if figure not in ("round", "case", "peer")
        }
        bases = {run["round"]: run for run in by_key.get((case, BASE), [])}
        pairs = [(run, bases[run["round"]]) for run in mine if run["round"] in bases]
        # Per chunk, because a proxy need not pass on as many events as another: Tollgate asks for usage.
        cpu = "cpu_us_per_chunk" if "chunks" in mine[0] else "cpu_us"
        if pairs and peer != "engine":
            summary["cpu_ratio"] = spread([run[cpu] / base[cpu] for run, base in pairs])
            summary["throughput_ratio"] = spread([run["per_second"] / base["per_second"] for run, base in pairs])
        result.setdefault(case, {})[peer] = summary
    return result


def spread(values):
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def table(cases, result, memory, versions):
    """The results in Markdown, which also reads well in a terminal."""
    parts = []
    for case in cases:
        if case.name not in result:
            continue
        columns = stream_columns() if case.stream else plain_columns()
        rows = [[header for header, _ in columns]]
        for peer, summary in result[case.name].items():
            named = f"{title(peer)} {versions.get(peer, '')}".strip()
            rows.append([named if cell is None else cell(summary) for _, cell in columns])
        clients = "streams at a time" if case.stream else "connections"
        parts.append(f"**{case.title}**, {case.connections} {clients}\n\n{aligned(rows)}")
    if memory:
        rows = [["peak memory", "MiB"]] + [[title(peer), f"{size / (1 << 20):.1f}"] for peer, size in memory.items()]
        parts.append(f"Over the whole run:\n\n{aligned(rows)}")
    return "\n\n".join(parts)


def plain_columns():
    return [
        ("proxy", None),
        ("requests/s", lambda s: f"{s['per_second']['median']:,.0f}"),
        ("CPU µs/request", lambda s: ranged(s, "cpu_us", 1)),
        ("CPU ÷ bare", lambda s: ranged(s, "cpu_ratio", 2)),
        ("p50 ms", lambda s: f"{s['p50_us']['median'] / 1e3:.2f}"),
        ("p99 ms", lambda s: f"{s['p99_us']['median'] / 1e3:.2f}"),
    ]


def stream_columns():
    return [
        ("proxy", None),
        ("streams/s", lambda s: f"{s['per_second']['median']:,.0f}"),
        ("CPU µs/stream", lambda s: ranged(s, "cpu_us", 0)),
        ("CPU µs/chunk", lambda s: ranged(s, "cpu_us_per_chunk", 2)),
        ("CPU ÷ bare", lambda s: ranged(s, "cpu_ratio", 2)),
        ("first byte p50, p99 ms", lambda s: f"{s['first_byte_p50_us']['median'] / 1e3:.2f}, "
                                             f"{s['first_byte_p99_us']['median'] / 1e3:.2f}"),
        ("gap p99 ms", lambda s: f"{s['gap_p99_us']['median'] / 1e3:.2f}"),
    ]


def ranged(summary, figure, digits):
    if figure not in summary:
        return ""
    value = summary[figure]
    if not value["median"]:
        return ""
    one = lambda key: f"{value[key]:,.{digits}f}"
    return f"{one('median')} ({one('min')}–{one('max')})"


def aligned(rows):
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    line = lambda row: "| " + " | ".join(
        cell.ljust(width) if i == 0 else cell.rjust(width) for i, (cell, width) in enumerate(zip(row, widths))) + " |"
    rules = ["-" * (width + 2) if i == 0 else "-" * (width + 1) + ":" for i, width in enumerate(widths)]
    rule = "|" + "|".join(rules) + "|"
    return "\n".join([line(rows[0]), rule, *map(line, rows[1:])])


def setting(machine, rounds, seconds, pinning, built, others):
    """One sentence on where the numbers come from."""
    return (
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB, Linux {machine['kernel']}, "
        f"{machine['system']}; loopback; {pinning}; {rounds} interleaved rounds of {seconds} s each, medians with the "
        f"least and the most; ratios are medians of the ratios of each round; {built}; "
        f"other processes had {others:.0%} of the machine meanwhile.")


def over_budget(result, limit, names):
    """Cases in which a peer's processor time per request exceeds its part of bare Pingora's."""
    over = []
    for case, peers in result.items():
        for name in names:
            ratio = peers.get(name, {}).get("cpu_ratio", {}).get("median")
            if ratio is not None and ratio > limit:
                over.append(f"{title(name)}, {case}: {ratio:.2f} × bare Pingora, the limit is {limit:.2f}")
    return over


def write_readme(path, text):
    """Puts the table between its two marks."""
    with open(path, encoding="utf-8") as file:
        before, begin, rest = file.read().partition(MARKS[0])
    _, end, after = rest.partition(MARKS[1])
    if not begin or not end:
        raise ValueError(f"{os.path.basename(path)} lacks the marks {MARKS[0]} and {MARKS[1]}")
    with open(path, "w", encoding="utf-8") as file:
        file.write(f"{before}{MARKS[0]}\n{text}\n{MARKS[1]}{after}")
