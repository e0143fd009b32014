#!/usr/bin/env python3
"""The door of a checkout: `python run_pipeline.py COMMAND`, the same as the installed command `selects`."""

from cli.main import main, run_and_exit

__all__ = ["main", "run_and_exit"]

if __name__ == "__main__":
    run_and_exit()
