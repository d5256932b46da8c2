"""Run `codeformer train` on a Ray cluster: each worker of Ray Train is one process of the training.

    python scripts/ray_train.py --workers 16 --gpu -- --stage 1 --config paper --data /data/ffhq -o /data/runs/one

What follows `--` are the words of `codeformer train`. The data, the settings and the output folder must have the same
paths on all machines. When a worker is lost, Ray Train starts all of them again, and they go on from the last
checkpoint in the output folder; so does the same command after its end. Needs `pip install 'ray[train]'`.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from codeformer.cli.parser import parse
from codeformer.errors import CodeFormerError
from codeformer.options import RayOptions
from codeformer.run.ray_cluster import cluster


def work(config: dict[str, list[str]]) -> None:
    """Be one process of the training, as torchrun's are; go on from a checkpoint if there is one."""
    from ray.train.torch import get_device

    args, _ = parse(["train", *config["words"]])
    if args.device == "auto":
        args.device = str(get_device())  # Ray says which GPU is this worker's
    args.resume = args.resume or (args.output_path / "checkpoint.pt").is_file()
    args.run(args)


def main(argv: Sequence[str]) -> int:
    """Train, and return the exit code."""
    cut = list(argv).index("--") if "--" in argv else len(argv)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, required=True, help="processes, over all machines")
    parser.add_argument("--gpu", action="store_true", help="give each a GPU")
    parser.add_argument("--cpus_per_worker", type=float, default=1.0, help="cores of each (default: 1)")
    parser.add_argument("--failures", type=int, default=3, help="times that workers may be lost (default: 3)")
    parser.add_argument("--ray_address", default="auto", help="of the cluster; local starts one here (default: auto)")
    args = parser.parse_args(argv[:cut])
    words = list(argv[cut + 1 :])
    train, _ = parse(["train", *words])  # what is wrong with the words is said here, before any worker starts
    if train.output_path is None:
        parser.error("name the run's folder behind --, as in -- --stage 1 --data /data/ffhq -o /data/runs/one")
    out = train.output_path.absolute()
    os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
    try:
        with cluster(RayOptions(args.ray_address, args.workers, args.cpus_per_worker)):
            from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
            from ray.train.torch import TorchTrainer

            scaling = ScalingConfig(
                num_workers=args.workers, use_gpu=args.gpu, resources_per_worker={"CPU": args.cpus_per_worker}
            )
            failures = FailureConfig(max_failures=args.failures)
            trainer = TorchTrainer(
                work,
                train_loop_config={"words": [*words, "-o", str(out)]},
                scaling_config=scaling,
                run_config=RunConfig(name="ray", storage_path=str(out), failure_config=failures),
            )
            try:
                trainer.fit()
            except TrainingFailedError as error:
                why = next(iter(getattr(error, "worker_failures", {}).values()), error)
                print(f"ray_train: error: a worker failed: {str(why).strip().splitlines()[-1]}", file=sys.stderr)
                return 1
    except CodeFormerError as error:
        print(f"ray_train: error: {error}", file=sys.stderr)
        return int(error.exit_code)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
