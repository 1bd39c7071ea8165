"""Identifies the kind of a file by its first bytes, because suffixes are often wrong.

`serve/client.py`, which does not import this package, holds a shorter list of its own.
"""

import os
import re
from collections import Counter

HEAD_BYTES = 2048

# Formats that `dfdetect.media.decode` reads, by their first bytes; a dot is any byte.
_IMAGES = {
    "JPEG": rb"\xff\xd8\xff",
    "PNG": rb"\x89PNG\r\n\x1a\n",
    "GIF": rb"GIF8[79]a",
    "BMP": rb"BM.{12}[\x0c\x10\x28\x34\x38\x40\x6c\x7c]\0\0\0",
    "WebP": rb"RIFF....WEBP",
}

# A recording may begin within a packet.
_TRANSPORT_STREAM = "MPEG transport stream"
_PACKET_START = b"\x47"
_PACKET_BYTES = (188, 192, 204)  # Plain, with a time code, and with error correction.
_MIN_PACKETS = 5

# Common formats that `dfdetect.media.clip_decoding` reads.
_CLIPS = {
    "MP4 or QuickTime": rb"\0...(ftyp|moov|wide|pnot|skip|free)|....mdat",
    "Matroska or WebM": rb"\x1a\x45\xdf\xa3",
    "AVI": rb"RIFF....AVI[ X]|RIFF....AVIX",
    "ASF or WMV": rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11",
    "Flash video": rb"FLV\x01",
    "MPEG": rb"\0\0\x01[\xb3\xba]",
    # The first packet is no text, which may have a G everywhere.
    _TRANSPORT_STREAM: rb"(?=.{0,187}[\0-\x08])(.{4})?\x47"
    rb".{187}(.{4})?\x47.{187}(.{4})?\x47",
    "Ogg video": rb"OggS.{22,300}?(\x80theora|BBCD\0|OVP80)",
    "MXF": rb"\x06\x0e\x2b\x34\x02\x05\x01\x01",
    "DV": rb"\x1f\x07\0[\x3f\xbf]",
    "YUV4MPEG": rb"YUV4MPEG2",
    "IVF": rb"DKIF\0\0",
    "NUT": rb"nut/multimedia container",
    "RealMedia": rb"\.RMF",
    "GXF": rb"\0\0\0\0\x01\xbc",
    "WTV": rb"\xb7\xd8\x00\x20\x37\x49\xda\x11",
    "H.264": rb"\0?\0\0\x01[\x67\x47\x27\x09]",
    "HEVC": rb"\0?\0\0\x01[\x40\x42\x46]\x01",
    "AV1": rb"\x12\0\x0a[\x01-\x20]",
    "MPEG-4 video": rb"\0\0\x01(\xb0.\0\0\x01\xb5|[\0-\x1f]\0\0\x01[\x20-\x2f])",
}

# Formats that neither reads. The MP4 brands that are not clips come first.
_OTHERS = {
    "AVIF": rb"....ftyp(avif|avis)",
    "HEIC": rb"....ftyp(heic|heix|heim|heis|hevc|hevx|mif1|msf1)",
    "MPEG-4 audio": rb"....ftyp(M4A |M4B |M4P )",
    "Canon raw": rb"....ftypcrx ",
    "JPEG XL": rb"\xff\x0a|\0\0\0\x0cJXL ",
    "JPEG 2000": rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51",
    "TIFF": rb"II[*+]\0|MM\0[*+]",
    "Photoshop": rb"8BPS",
    "icon": rb"\0\0\x01\0[^\0]\0",
    "PDF": rb"%PDF-",
    "ZIP": rb"PK\x03\x04",
    "gzip": rb"\x1f\x8b\x08",
    "Git LFS pointer": rb"version https://git-lfs",
    "web page": rb"(?i)\s*(<!doctype html|<html|<head)",
    "SVG": rb"(?i)\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)?(<!doctype svg[^>]*>\s*)?<svg",
    "XML": rb"\s*<\?xml",
    "Ogg audio": rb"OggS",
    "MP3": rb"ID3|\xff[\xfb\xf3\xf2]",
    "WAVE": rb"RIFF....WAVE",
    "FLAC": rb"fLaC",
}

_PATTERNS = {
    name: re.compile(pattern, re.DOTALL)
    # If two patterns match, the first wins.
    for name, pattern in (*_OTHERS.items(), *_IMAGES.items(), *_CLIPS.items())
    if name != "Ogg audio"
} | {"Ogg audio": re.compile(_OTHERS["Ogg audio"])}

EMPTY, TEXT, UNKNOWN = "empty", "text", ""
# Of a format that only `dfdetect.media.clip_decoding` knows.
OTHER_CLIP = "clip of another format"

WANTED_IMAGES = "JPEG, PNG, BMP, GIF or WebP"
WANTED_CLIPS = "MP4, QuickTime, Matroska, WebM, AVI or another clip"

_NON_TEXT = bytes(set(range(32)) - set(b"\t\n\r\f\x1b"))

# Bits per pixel; a BMP of other depths or with run lengths is not read.
_BMP_DEPTHS = (8, 24, 32)


def identify_bytes(head: bytes) -> str:
    """Returns the name of the kind of a file, `EMPTY`, `TEXT` or `UNKNOWN`.

    Args:
        head: The first `HEAD_BYTES` of the file, or more.
    """
    if not head:
        return EMPTY
    head = head[:HEAD_BYTES]
    for name, pattern in _PATTERNS.items():
        if pattern.match(head):
            return name
    if head.translate(None, _NON_TEXT) == head:
        return TEXT
    return _TRANSPORT_STREAM if _is_transport_stream(head) else UNKNOWN


def describe_passed_over(kinds: Counter[str]) -> str:
    """Describes how many files of which kind were passed over; "" if none.

    Args:
        kinds: Number of files by `name_passed_over`.
    """
    number = sum(kinds.values())
    if not number:
        return ""
    listed = ", ".join(f"{n} {name}" for name, n in sorted(kinds.items()))
    return f"passed over {number} file{'s' if number > 1 else ''}: {listed}"


def name_passed_over(path: str, kind: str) -> str:
    """Returns the name under which a skipped file is counted: its kind or suffix."""
    if kind not in (TEXT, UNKNOWN):
        return kind
    return os.path.splitext(path)[1].lower() or "without ending"


def identify_file(path: str | os.PathLike) -> str:
    """Like `identify_bytes`, for a path; `UNKNOWN` unless it is a readable file."""
    if not os.path.isfile(path):  # Reading a pipe would block.
        return UNKNOWN
    try:
        with open(path, "rb") as file:
            return identify_bytes(file.read(HEAD_BYTES))
    except OSError:
        return UNKNOWN


def describe_kind(kind: str) -> str:
    """Describes a kind for messages; "" for `UNKNOWN`."""
    return {EMPTY: "an empty file", TEXT: "a text"}.get(kind, kind)


def describe_other(kind: str, wanted: str) -> str:
    """Describes a file of another kind than those that are wanted."""
    return f"{describe_kind(kind) or 'of an unknown kind'}; wanted is {wanted}"


def is_image(kind: str) -> bool:
    """Whether a kind is an image format that the decoder reads."""
    return kind in _IMAGES


def is_clip(kind: str) -> bool:
    """Whether a kind is a clip format."""
    return kind in _CLIPS or kind == OTHER_CLIP


def _is_transport_stream(head: bytes) -> bool:
    """Whether packets of MPEG begin at regular steps, the first one anywhere."""
    return any(
        len(head[start::step]) >= _MIN_PACKETS
        and not head[start::step].strip(_PACKET_START)
        for step in _PACKET_BYTES
        for start in range(step)
    )


def is_animated(content: bytes) -> bool:
    """Whether an image has more than one frame."""
    kind = identify_bytes(content)
    if kind == "GIF":
        return _has_two_frames(content)
    if kind == "WebP":
        return content[12:16] == b"VP8X" and content.count(b"ANMF") > 1
    if kind == "PNG":
        return b"acTL" in content[: content.find(b"IDAT")]
    return False


def describe_animated(content: bytes, use: str) -> str:
    """Returns the warning for an animated image, "" for others.

    Args:
        content: The bytes of the image.
        use: What was done with its first frame, such as "judged".
    """
    return f"animated: only its first frame was {use}" if is_animated(content) else ""


def _has_two_frames(gif: bytes) -> bool:
    """Whether a GIF has a second frame; walks over the blocks up to it."""

    def table_bytes(flags: int) -> int:
        return 3 * 2 ** (flags % 8 + 1) if flags >= 128 else 0

    frames = 0
    # Padding, for a GIF that is truncated.
    gif += bytes(16)
    pos = 13 + table_bytes(gif[10])
    while pos < len(gif) - 16 and gif[pos] in b"\x21\x2c":
        is_frame = gif[pos] == 0x2C
        frames += is_frame
        if frames == 2:
            return True
        pos += 11 + table_bytes(gif[pos + 9]) if is_frame else 2
        while pos < len(gif) - 16 and gif[pos]:
            pos += 1 + gif[pos]
        pos += 1
    return False


def describe_unreadable(content: bytes) -> str:
    """Returns the message for bytes that could not be decoded as an image."""
    return f"no image that can be decoded: {_describe(content)}"


def _describe(content: bytes) -> str:
    """Describes a file that could not be decoded as an image.

    Args:
        content: The file, or its beginning.
    """
    kind = identify_bytes(content)
    if kind == "BMP":
        depth = int.from_bytes(content[28:30], "little")
        if depth not in _BMP_DEPTHS:
            return f"a BMP of {depth} bits a pixel; wanted are 8, 24 or 32"
        if content[30:34] not in (bytes(4), b"\3\0\0\0"):
            return "a BMP with compressed pixels"
    if is_image(kind):
        return f"{kind}, cut short or damaged"
    return describe_other(kind, WANTED_IMAGES)
