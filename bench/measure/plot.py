#!/usr/bin/env python3
"""Draws what `replay.py` kept: for each rate, how many requests have their first token within which time; and the means.

    plot.py replay.json figure.png
"""

import json
import sys

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

NAMES = {"sglang": "sglang-router", "sglang_cache_aware": "SGLang's rule in Tollgate"}
COLOURS = {"round_robin": "#b0b0b0", "random": "#d0d0d0", "least_connections": "#7a8ca3", "power_of_two": "#a3b18a",
           "sglang_cache_aware": "#d98c3f", "sglang": "#b5512f", "cache_aware": "#1f6f54"}


def main():
    source, target = sys.argv[1:]
    with open(source, encoding="utf-8") as file:
        kept = json.load(file)
    runs = kept["runs"]
    rates = list(dict.fromkeys(run["rate"] for run in runs))
    names = list(dict.fromkeys(run["policy"] for run in runs))
    figure, all_axes = pyplot.subplots(1, len(rates) + 1, figsize=(4 * (len(rates) + 1), 3.4), layout="constrained", squeeze=False)
    *curves, bars = all_axes[0]
    for axes, rate in zip(curves, rates):
        draw_curves(axes, [run for run in runs if run["rate"] == rate], rate)
    draw_means(bars, runs, names, rates)
    figure.savefig(target, dpi=110, metadata={"Software": None})


def draw_curves(axes, runs, rate):
    for name in dict.fromkeys(run["policy"] for run in runs):
        run = next(run for run in runs if run["policy"] == name)
        axes.plot([max(value, 0.01) for value in run["curve"]], range(len(run["curve"])), color=COLOURS.get(name), label=NAMES.get(name, name))
    axes.set(xscale="log", xlabel="time to first token, s", ylabel="% of requests within it", title=f"rate {rate:g}", ylim=(0, 100))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7, loc="lower right")


def draw_means(axes, runs, names, rates):
    width = 0.8 / len(names)
    for at, name in enumerate(names):
        own = [[run["ttft"]["mean"] for run in runs if (run["policy"], run["rate"]) == (name, rate)] for rate in rates]
        means = [sum(values) / max(1, len(values)) for values in own]
        places = [number + (at - (len(names) - 1) / 2) * width for number in range(len(rates))]
        axes.bar_label(axes.bar(places, means, width, color=COLOURS.get(name)), fmt="%.1f", fontsize=7)
    axes.set(ylabel="mean time to first token, s", title="means", xticks=range(len(rates)), xticklabels=[f"rate {rate:g}" for rate in rates])


if __name__ == "__main__":
    sys.exit(main())
