"""`python -m dfdetect.benchmark` is `dfdetect bench`."""

import sys

from dfdetect import cli

if __name__ == "__main__":
    sys.exit(cli.main(["bench", *sys.argv[1:]]))
