"""The page and the API over HTTP: ``codeformer web``. Needs the extra ``web``."""
