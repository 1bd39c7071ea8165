"""Whether an image could be judged, and the limits that decide it."""

OK, NO_HEAD, UNREADABLE, TOO_LARGE, HEAD_TOO_SMALL = range(5)
STATUS_NAMES = ("ok", "no_head", "unreadable", "too_large", "head_too_small")
MAX_PIXELS = 64_000_000  # Of an image, or of a frame of a clip.
# A head that is enlarged more than that to fill a crop is too blurred to be judged, or
# to be learnt from: the default classifier called one real head in twelve fake where it
# was enlarged by 4 to 5.6, and one in five beyond; of larger ones, one in twenty.
MOST_ENLARGED = 4
