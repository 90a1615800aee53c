"""Prints an anomaly score for each vector: below 0 as the model was taught, above 0 strange.

    feature-agent --iface eth0 --latency low --shape array | python3 score.py --model model.onnx
    python3 score.py --model model.onnx --socket /run/feature-agent/features.sock
"""

import argparse
import json
import os
import signal
import socket
import sys
import time

import numpy as np
import onnxruntime

from vectors import prepare

# A packet itself makes these vectors, at once. All others wait for a sweep, which is no matter of speed.
AT_ONCE = {"stride", "fin", "rst"}


class Model:
    def __init__(self, path):
        options = onnxruntime.SessionOptions()
        # One vector is too little to share among threads, and threads that spin take the agent's processor.
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        known = self.session.get_modelmeta().custom_metadata_map
        self.schema = known["schema"]
        self.positions = json.loads(known["positions"])
        self.score(np.zeros((1, max(self.positions) + 1)))  # the first run is slow

    def score(self, features):
        inputs = prepare(features[:, self.positions])
        [scores] = self.session.run(["scores"], {"vectors": inputs})
        return scores[:, 0]


def batches(source):
    """Whole lines as they come: those that came together are scored together."""
    rest = b""
    while data := source(1 << 20):
        *lines, rest = (rest + data).split(b"\n")
        if lines:
            yield lines


def connect(path, patience=10.0):
    end = time.monotonic() + patience
    while True:
        try:
            consumer = socket.socket(socket.AF_UNIX)
            consumer.connect(path)
            return consumer
        except (FileNotFoundError, ConnectionRefusedError) as error:
            consumer.close()
            if time.monotonic() > end:
                sys.exit(f"{path}: {error}")
            time.sleep(0.05)


def main():
    parser = argparse.ArgumentParser(description="Scores the vectors of feature-agent, given as --shape array.")
    parser.add_argument("--model", required=True, help="an ONNX file made by train.py")
    parser.add_argument("--socket", help="connect here, as --output unix:PATH listens; else standard input")
    arguments = parser.parse_args()

    # The stream's end ends this; whoever interrupts the agent beside it should get the last scores too.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    model = Model(arguments.model)
    source = connect(arguments.socket).recv if arguments.socket else lambda size: os.read(0, size)
    out = sys.stdout
    latencies = []
    print("ts", "reason", "src", "sport", "dst", "dport", "score", sep="\t", file=out, flush=True)
    for lines in batches(source):
        vectors = [json.loads(line) for line in lines]
        for vector in vectors:
            if vector["schema"] != model.schema:
                sys.exit(f"the model was trained on {model.schema}, these vectors are {vector['schema']}")
        # A null becomes NaN.
        scores = model.score(np.array([vector["features"] for vector in vectors], dtype=np.float64))
        now = time.time()
        for vector, score in zip(vectors, scores):
            if vector["reason"] in AT_ONCE:
                latencies.append(now - vector["ts"])
            whose = [vector[name] for name in ("ts", "reason", "src", "sport", "dst", "dport")]
            print(*whose, f"{score:.4f}", sep="\t", file=out)
        out.flush()
    if latencies:
        p50, p99 = np.percentile(latencies, [50, 99]) * 1e3
        print(
            f"from last packet to score: p50 {p50:.3f} ms, p99 {p99:.3f} ms, over {len(latencies)} vectors",
            file=sys.stderr,
        )


if __name__ == "__main__":
    main()
