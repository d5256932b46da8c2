"""``python -m codeformer`` is the same program as the console script ``codeformer``."""

from codeformer.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
