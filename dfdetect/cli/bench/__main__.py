"""`python -m dfdetect.cli.bench` is `dfdetect bench`."""

import sys

from dfdetect.cli import main

if __name__ == "__main__":
    sys.exit(main.main(["bench", *sys.argv[1:]]))
