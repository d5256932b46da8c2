"""A program of its own that starts a Ray cluster on this machine, and ends it when its stdin ends.

It is run as a file, by :mod:`codeformer.run.ray_cluster`, and imports nothing of the package. It answers with one line:
``at HOST:PORT``, or ``no`` and why the cluster did not start.
"""

from __future__ import annotations

import logging
import sys


def main() -> int:
    """Start the cluster with as many cores as the first word says, and keep it."""
    import ray

    logging.getLogger("ray").setLevel(logging.CRITICAL)
    try:
        ray.init(
            address="local",
            num_cpus=int(sys.argv[1]),
            include_dashboard=False,
            _node_ip_address="127.0.0.1",
            log_to_driver=False,
            logging_level=logging.CRITICAL,
            configure_logging=False,
        )
    except Exception as error:  # Ray raises that class itself where a machine is too busy to start it
        print("no", " ".join(str(error).split()), flush=True)
        return 1
    print("at", ray.get_runtime_context().gcs_address, flush=True)
    sys.stdin.read()
    ray.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
