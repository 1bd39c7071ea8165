"""Finds packets of clips that are small and would take FFmpeg minutes to decode.

The same kinds of files are refused as images: see `jpeg_headers` and `headers`.
"""

# Progressive files of libjpeg have 10 scans, or 18 in four colors, and a thumbnail and
# a second field add some. An empty scan of 64 megapixels takes 8 ms.
_MAX_JPEG_SCANS = 64
# Each may decompress to megabytes.
_MAX_PNG_TEXTS = 32

_JPEG_CODECS = frozenset(
    ("mjpeg", "mjpegb", "ljpeg", "mxpeg", "amv", "thp", "sp5x", "smvjpeg")
)
_PNG_CODECS = frozenset(("png", "apng"))

_START_OF_SCAN = b"\xff\xda"
_PNG_TEXTS = (b"zTXt", b"iTXt")


def is_bounded(codec: str) -> bool:
    """Whether packets of a codec, by FFmpeg's name, need `takes_too_long`."""
    return codec in _JPEG_CODECS or codec in _PNG_CODECS


def takes_too_long(codec: str, packet: bytes) -> bool:
    """Whether a packet has parts that no real one has, and that take long to decode."""
    if codec in _JPEG_CODECS:
        # Entropy-coded data cannot hold the two bytes.
        return packet.count(_START_OF_SCAN) > _MAX_JPEG_SCANS
    if codec in _PNG_CODECS:
        return sum(packet.count(name) for name in _PNG_TEXTS) > _MAX_PNG_TEXTS
    return False
