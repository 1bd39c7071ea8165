"""Statuses of images and heads, and the limits behind them."""

OK, NO_HEAD, UNREADABLE, TOO_LARGE, HEAD_TOO_SMALL = range(5)
STATUS_NAMES = ("ok", "no_head", "unreadable", "too_large", "head_too_small")
MAX_PIXELS = 64_000_000  # Of an image or of a frame of a clip.
TOO_LARGE_REASON = f"more than {MAX_PIXELS // 10**6} megapixels"
# Largest factor by which a head is enlarged to the size of a crop, in training and
# inference; beyond it crops are too blurred. The default classifier called 1 in 12 real
# heads fake where they were enlarged by 4 to 5.6, 1 in 5 beyond that, 1 in 20 below.
MOST_ENLARGED = 4
