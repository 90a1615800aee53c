"""Reads the scores of the demo's traffic, and fails unless scan and exfiltration stand out."""

import csv
import statistics
import sys

from traffic import CALL, DROP, NAMES, WEB

MARGIN = 0.05  # between medians; a forest's scores lie within -0.5 and 0.5
LEAST = 20  # vectors of each kind


def kind(port):
    if port in (WEB, NAMES, CALL):
        return "normal"
    return "exfiltration" if port == DROP else "port scan"


def main():
    scores = {"normal": [], "port scan": [], "exfiltration": []}
    for row in csv.DictReader(sys.stdin, delimiter="\t"):
        # Protocols without ports, as those of neighbours, are none of these.
        if row["dport"].isdigit() and row["dst"].startswith("10.77.0."):
            scores[kind(int(row["dport"]))].append(float(row["score"]))
    print(f"{'traffic':14}{'vectors':>8}{'median score':>14}{'90 % below':>12}")
    for name, of in scores.items():
        if len(of) < LEAST:
            sys.exit(f"{name}: only {len(of)} vectors were scored")
        print(f"{name:14}{len(of):8}{statistics.median(of):14.3f}{statistics.quantiles(of, n=10)[8]:12.3f}")
    normal = statistics.median(scores.pop("normal"))
    for name, of in scores.items():
        above = statistics.median(of) - normal
        if above < MARGIN:
            sys.exit(f"{name} scores {above:.3f} above normal traffic, and {MARGIN} were expected")
    print("port scan and exfiltration stand out")


if __name__ == "__main__":
    main()
