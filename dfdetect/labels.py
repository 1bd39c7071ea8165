"""Label values, used everywhere in dfdetect: 0 is real, 1 is fake."""

REAL = 0
FAKE = 1
NAMES = ("real", "fake")
