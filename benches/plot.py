"""Draws the samples of the churn bench: memory, disk and latency over time.

    python3 -m venv /tmp/plot && /tmp/plot/bin/pip install matplotlib
    /tmp/plot/bin/python benches/plot.py target/tmp/churn.csv docs/churn.svg

Points are medians of some seconds, about 600 over the whole run; the disk is their maximum, so that no peak is lost.
"""

import csv
import statistics
import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

POINTS = 600


def read(path):
    """The columns by name, and how many seconds a point stands for."""
    with open(path, newline="") as file:
        rows = [{name: float(text) for name, text in row.items()} for row in csv.DictReader(file)]
    step = max(1, len(rows) // POINTS)
    groups = [rows[at : at + step] for at in range(0, len(rows), step)]

    def column(name, pick=statistics.median):
        return [pick([row[name] for row in group]) for group in groups]

    return column, step


def main(source, target):
    column, step = read(source)
    minutes = [second / 60 for second in column("s")]
    # Text stays text, and the same samples give the same file.
    plt.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "churn", "font.size": 9, "path.simplify": True})
    figure, (memory, disk, latency) = plt.subplots(3, 1, figsize=(8, 7), sharex=True, layout="constrained")
    memory.plot(minutes, column("rss_mib"), linewidth=1)
    memory.set_ylabel("RSS, MiB")
    disk.plot(minutes, column("disk_mib", max), linewidth=0.8, label="queue (sawtooth: generations fill and go)")
    disk.plot(minutes, column("bound_mib"), "--", color="tab:red", linewidth=1, label="2 x live + 2 generations")
    disk.plot(minutes, column("live_mib"), color="tab:green", linewidth=1, label="live")
    disk.set_ylabel("disk, MiB")
    latency.plot(minutes, column("p99_ms"), color="tab:orange", linewidth=0.8, label="p99")
    latency.plot(minutes, column("p50_ms"), linewidth=0.8, label="p50")
    latency.set_yscale("log")
    latency.set_ylabel("latency, ms")
    latency.set_xlabel(f"minutes (a point is {step} s)")
    for panel in (memory, disk):
        panel.set_ylim(bottom=0)
    for panel in (disk, latency):
        panel.legend(loc="upper right", ncols=3, frameon=False)
    for panel in (memory, disk, latency):
        panel.grid(alpha=0.3)
        panel.margins(x=0.01)
    disk.set_ylim(top=max(column("bound_mib", max) + column("disk_mib", max)) * 1.25)
    figure.savefig(target, metadata={"Date": None})


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
