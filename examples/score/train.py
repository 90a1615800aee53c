"""Makes a model of what is normal, from the vectors of captures with normal traffic.

    feature-agent replay normal.pcap --output parquet:normal.parquet
    python3 train.py --model model.onnx normal.parquet
"""

import argparse
import json
import sys

import numpy as np
import onnx
import onnxruntime
import pyarrow as pa
import pyarrow.parquet as pq
from sklearn.ensemble import IsolationForest

from forest import to_onnx
from vectors import prepare

LEAST_VECTORS = 100


def main():
    parser = argparse.ArgumentParser(description="Trains an isolation forest on Parquet files of feature-agent.")
    parser.add_argument("files", nargs="+", help="made by --output parquet:FILE")
    parser.add_argument("--model", required=True, help="the ONNX file to write")
    parser.add_argument("--trees", type=int, default=100)
    arguments = parser.parse_args()

    tables = [pq.read_table(file) for file in arguments.files]
    schemas = {table.schema.metadata[b"schema"].decode() for table in tables}
    if len(schemas) != 1:
        sys.exit(f"the files have different schemas: {', '.join(sorted(schemas))}")
    table = pa.concat_tables(tables)
    if table.num_rows < LEAST_VECTORS:
        sys.exit(f"{table.num_rows} vectors are too few to learn from: {LEAST_VECTORS} at least")

    # Totals grow with a flow's age; the window says what the flow does now. Positions are those of the array
    # `features`, which holds all that is not the envelope.
    fields = [field for field in table.schema if field.metadata[b"group"] != b"envelope"]
    chosen = [place for place, field in enumerate(fields) if field.metadata[b"group"] == b"window"]
    names = [fields[place].name for place in chosen]
    columns = [table[name].cast(pa.float64()).to_numpy(zero_copy_only=False) for name in names]
    inputs = prepare(np.column_stack(columns))

    forest = IsolationForest(n_estimators=arguments.trees, random_state=0).fit(inputs)
    model = to_onnx(forest)
    known = {"schema": schemas.pop(), "positions": json.dumps(chosen), "names": json.dumps(names)}
    onnx.helper.set_model_props(model, known)
    onnx.save(model, arguments.model)

    # What will be served must be what was learnt.
    served = onnxruntime.InferenceSession(arguments.model).run(["scores"], {"vectors": inputs})[0][:, 0]
    worst = np.abs(served + forest.decision_function(inputs)).max()
    if worst > 1e-5:
        sys.exit(f"{arguments.model} is off by {worst} from the forest that it was made of")
    print(f"{arguments.model}: {len(names)} features of {table.num_rows} vectors, {known['schema']}", file=sys.stderr)


if __name__ == "__main__":
    main()
