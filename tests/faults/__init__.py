"""Faults on purpose, over the command line: ``python -m tests.faults`` tries them and prints what held."""
