"""Runs the `dfdetect` command as `python -m dfdetect`."""

import sys

from dfdetect.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
