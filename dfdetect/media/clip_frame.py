"""A decoded frame of a clip, converted to an upright image in display geometry."""

from typing import Any

import av
import numpy as np

_MATRIX = np.dtype("<i4")
PERCEPTUAL_QUANTIZER, HYBRID_LOG_GAMMA = 16, 18  # ITU-T H.273, table 3.
_HDR_NAMES = {PERCEPTUAL_QUANTIZER: "PQ", HYBRID_LOG_GAMMA: "HLG"}


class DecodedFrame:
    """A frame as decoded by FFmpeg; `image` converts it.

    Args:
        frame: PyAV's frame.
        pixel_aspect: Width of a stored pixel divided by its height.

    Attributes:
        stamp: Stored time stamp in seconds, from any origin, or None.
    """

    def __init__(self, frame: av.VideoFrame, pixel_aspect: float) -> None:
        self._frame = frame
        self._aspect = pixel_aspect
        stamp = frame.pts if frame.pts is not None else frame.dts
        self.stamp: float | None = None
        if stamp is not None and frame.time_base:
            self.stamp = float(stamp * frame.time_base)

    @property
    def hdr(self) -> str:
        """Name of the transfer function of high dynamic range, or ""."""
        return _HDR_NAMES.get(int(self._frame.color_trc), "")

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels of the upright image in display geometry."""
        width, height = self._display_size()
        matrix = self._matrix()
        is_transposed = matrix is not None and matrix[0, 0] == 0
        return (height, width) if is_transposed else (width, height)

    def image(self) -> np.ndarray:
        """Converts to uint8 `[height, width, 3]`, BGR, upright, in display geometry.

        Raises:
            av.FFmpegError: FFmpeg cannot convert the frame.
        """
        width, height = self._display_size()
        image = self._frame.to_ndarray(
            format="bgr24",
            width=width,
            height=height,
            # Upsamples chroma as OpenCV does.
            interpolation="BICUBIC",
            threads=1,
        )
        matrix = self._matrix()
        return image if matrix is None else _rotate(image, matrix)

    def _display_size(self) -> tuple[int, int]:
        """Width and height in square pixels; neither is below the stored one."""
        width, height = self._frame.width, self._frame.height
        if self._aspect >= 1:
            return max(round(width * self._aspect), 1), height
        return width, max(round(height / self._aspect), 1)

    def _matrix(self) -> np.ndarray | None:
        """The display rotation, int `[2, 2]` of -1, 0 and 1; None for the identity."""
        data: Any = self._frame.side_data.get("DISPLAYMATRIX")
        if data is None:
            return None
        stored = np.frombuffer(memoryview(data), _MATRIX)[:9].reshape(3, 3)[:2, :2]
        # Rounds to a multiple of 90 degrees: the larger entry of each row counts.
        larger = np.abs(stored) == np.abs(stored).max(1, keepdims=True)
        matrix = np.sign(stored) * larger
        is_valid = abs(round(np.linalg.det(matrix))) == 1
        return matrix if is_valid and not (matrix == np.eye(2)).all() else None


def _rotate(image: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Rotates and mirrors an image by a display matrix of `_matrix`."""
    if matrix[0, 0] == 0:  # The new x axis is the old y axis.
        image = image.transpose(1, 0, 2)
        mirror_x, mirror_y = matrix[1, 0] < 0, matrix[0, 1] < 0
    else:
        mirror_x, mirror_y = matrix[0, 0] < 0, matrix[1, 1] < 0
    step_y, step_x = -1 if mirror_y else 1, -1 if mirror_x else 1
    return np.ascontiguousarray(image[::step_y, ::step_x])
