"""The studio: one local page that looks, finds, draws, trains and learns by the same jobs as the command line.

The server imports no torch and keeps no state but files. Work runs in child processes: jobs in groups of their own
(`forks.py`, `work.py`), quick answers by one process that keeps models and features at hand (`desk.py`).
"""
