"""Reads JPEG headers, and rejects files that would take minutes to decode."""

import tensorflow as tf

from dfdetect.media import header_fields
from dfdetect.media.header_fields import read_uint

# More segments than any real image has; bounds the time for a hostile file.
_MAX_SEGMENTS = 2000

# Limits of scans. Progressive files of libjpeg have 10, or 18 in four colors. Even an
# empty scan costs a step for each block of pixels, some 40 ms in 64 megapixels. The
# number allowed falls from the second limit to the first as images grow.
_MAX_SCANS_OF_LARGE, _MAX_SCANS_OF_SMALL = 32, 256
_MAX_SCANNED_PIXELS = 2**31
# Markers in a file, including bytes of an appended motion photo that look like one,
# which are 1 in 266 of random bytes.
_MAX_MARKERS = 2**22

_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9
_PROGRESSIVE_FRAMES = (0xC2, 0xC6, 0xCA, 0xCE)

# How the walk over a JPEG continues after a marker.
_SKIP_ONE, _SKIP_TWO, _SKIP_SEGMENT, _FRAME, _STOP = range(5)


def _marker_actions() -> list[int]:
    actions = [_SKIP_SEGMENT] * 256
    actions[0xC0:0xD0] = [_FRAME] * 16
    for marker in (0xC4, 0xC8, 0xCC):  # Tables.
        actions[marker] = _SKIP_SEGMENT
    for marker in (0x00, 0x01, *range(0xD0, 0xD8)):  # Markers without a length.
        actions[marker] = _SKIP_TWO
    for marker in (0xD8, 0xD9, 0xDA):  # Start of image, end, first scan.
        actions[marker] = _STOP
    actions[0xFF] = _SKIP_ONE  # A fill byte.
    return actions


def read(data: tf.Tensor) -> tf.Tensor:
    """Reads the header of a JPEG file: uint8 `[N]` -> int64 `[NUM_FIELDS]`.

    Walks over the markers up to the first scan, as libjpeg does.
    """
    actions = tf.constant(_marker_actions())
    exif_start = tf.constant(list(b"\xff\xe1Exif\0\0"), tf.uint8)

    def step(
        pos: tf.Tensor, action: tf.Tensor, frame: tf.Tensor, exif: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
        window = data[pos : pos + 10]
        marker, length = tf.cast(window[1], tf.int32), read_uint(window, 2, 2)
        # Bytes between the segments that are not markers are skipped.
        action = tf.where(window[0] == 0xFF, actions[marker], _SKIP_ONE)
        has_length = (action == _SKIP_SEGMENT) | (action == _FRAME)
        action = tf.where(has_length & (length < 2), _STOP, action)
        is_exif = tf.reduce_all(tf.concat([window[:2], window[4:]], 0) == exif_start)
        exif = tf.where(is_exif & (exif == 0), pos, exif)
        frame = tf.where((action == _FRAME) & (frame == 0), pos, frame)
        alone = tf.cast(action + 1, tf.int64)  # _SKIP_ONE is 0, _SKIP_TWO is 1.
        jump = tf.where(has_length, 2 + length, alone)
        return tf.where(action == _STOP, pos, pos + jump), action, frame, exif

    end = tf.size(data, tf.int64) - 16
    zero = tf.constant(0, tf.int64)
    pos, action, frame, exif = tf.while_loop(
        lambda pos, action, frame, exif: (pos < end) & (action != _STOP),
        step,
        (zero + 2, tf.constant(_SKIP_ONE), zero, zero),
        maximum_iterations=_MAX_SEGMENTS,
    )
    height, width = tf.unstack(
        read_uint(data, frame + tf.constant([5, 7], tf.int64), 2)
    )
    is_valid = (frame > 0) & ~_has_too_many_scans(data, frame, pos, height * width)
    orientation = tf.cond(
        exif > 0,
        lambda: header_fields.read_orientation(data, exif + 10),
        lambda: tf.constant(1, tf.int64),
    )
    return header_fields.pack_fields(
        height * tf.cast(is_valid, tf.int64), width, orientation
    )


def _has_too_many_scans(
    data: tf.Tensor, frame: tf.Tensor, scan: tf.Tensor, pixels: tf.Tensor
) -> tf.Tensor:
    """Whether a JPEG has more scans than any real one of its size.

    If the first scan has the whole image, later ones do not count, as libjpeg ignores
    them.

    Args:
        data: uint8 `[N]`, the file.
        frame: Offset of the frame.
        scan: Offset of the first scan.
        pixels: Height times width.
    """
    marker = read_uint(data, frame + 1, 1)
    is_progressive = tf.reduce_any(marker == tf.constant(_PROGRESSIVE_FRAMES, tf.int64))
    # Number of components in the first scan, and in all.
    is_partial = read_uint(data, scan + 4, 1) < read_uint(data, frame + 9, 1)
    most = _MAX_SCANNED_PIXELS // tf.maximum(pixels, 1)
    most = tf.clip_by_value(most, _MAX_SCANS_OF_LARGE, _MAX_SCANS_OF_SMALL)
    return tf.cond(
        is_progressive | is_partial,
        lambda: _count_scans(data, scan, most) > most,
        lambda: tf.constant(False),
    )


def _count_scans(data: tf.Tensor, scan: tf.Tensor, most: tf.Tensor) -> tf.Tensor:
    """Counts scans from the offset of the first one on, up to `most + 1`."""
    too_many = most + 1
    after = data[1:]
    # Except those inside scans: stuffed bytes and restarts.
    is_marker = (data[:-1] == 0xFF) & (after > 0x01) & (after < 0xFF)
    is_marker &= (after < 0xD0) | (after > 0xD7)

    def walk() -> tf.Tensor:
        # One more at the end, so that there is always a next marker.
        markers = tf.concat(
            [tf.where(is_marker)[:, 0], [tf.size(data, tf.int64) - 2]], 0
        )
        last = tf.size(markers, tf.int64) - 1

        def step(
            pos: tf.Tensor, count: tf.Tensor, ended: tf.Tensor
        ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            index = tf.searchsorted(markers, pos[None], out_type=tf.int64)[0]
            index = tf.minimum(index, last)
            pos = markers[index]
            marker, length = read_uint(data, pos + 1, 1), read_uint(data, pos + 2, 2)
            ended = (marker == _END_OF_IMAGE) | (index == last)
            count += tf.cast((marker == _START_OF_SCAN) & ~ended, tf.int64)
            return pos + 2 + tf.maximum(length, 2), count, ended

        _, count, ended = tf.while_loop(
            lambda pos, count, ended: ~ended & (count <= most),
            step,
            (scan, tf.constant(0, tf.int64), tf.constant(False)),
            maximum_iterations=_MAX_SEGMENTS,
        )
        # Otherwise the walk reached its limit.
        return tf.where(ended, count, too_many)

    is_short = tf.math.count_nonzero(is_marker) <= _MAX_MARKERS
    return tf.cond(is_short, walk, lambda: too_many)
