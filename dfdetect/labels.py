"""What a label means: 0 is real, 1 is fake, everywhere in dfdetect."""

REAL = 0
FAKE = 1
NAMES = ("real", "fake")
