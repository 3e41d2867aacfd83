"""Score a Parquet or JSONL data set with Ray Data, one model on each GPU of the cluster, or on each of N CPU actors.

    python examples/ray_data_scores.py MODEL FILES OUTPUT [LENGTH] [ACTORS]

Needs Ray Data: `pip install 'ray[data]'`.
"""

from __future__ import annotations

import argparse
import sys

import ray

import ladm
from ladm.integrations.batches import LadmScore
from ladm.integrations.scoring import require_model


def main(model: str, files: str, output: str, length: int, actors: int) -> None:
    read = ray.data.read_parquet if files.endswith(".parquet") else ray.data.read_json
    gpus = int(ray.cluster_resources().get("GPU", 0))
    scored = read(files).map_batches(
        LadmScore,
        fn_constructor_args=(model,),
        fn_constructor_kwargs={"length": length},
        compute=ray.data.ActorPoolStrategy(size=gpus or actors),
        num_gpus=1 if gpus else None,
        batch_size=64,
        batch_format="pyarrow",
    )
    scored.write_parquet(output)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("model", "files", "output"):
        parser.add_argument(name)
    parser.add_argument("length", type=int, nargs="?", default=32_768)
    parser.add_argument("actors", type=int, nargs="?", default=1)
    given = parser.parse_args()
    try:
        # A wrong name would otherwise end in the traceback of an actor, after the cluster has started.
        require_model(given.model, length=given.length)
    except ladm.LadmError as error:
        sys.exit(f"{sys.argv[0]}: {error}")
    ray.init()
    main(**vars(given))
