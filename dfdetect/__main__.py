"""`python -m dfdetect` is `dfdetect`."""

import sys

from dfdetect.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
