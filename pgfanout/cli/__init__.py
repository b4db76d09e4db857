"""The command line: `pgfanout`, `python -m pgfanout`, `flask pgfanout` and `manage.py pgfanout`.

A framework calls `main(arguments, settings=Settings({"URL": url, ...}), prog="manage.py pgfanout")` with the settings
of its application. It returns the exit status. For arguments that make no sense it raises `SystemExit`.
"""

from .main import main

__all__ = ["main"]
