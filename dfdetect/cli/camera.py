"""Judges the frames of a camera or a stream as they arrive."""

import functools
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator

import cv2
import numpy as np

from dfdetect import console
from dfdetect.media import drawing, image_status, shots, video
from dfdetect.metrics import calibration
from dfdetect.pipeline import clips, result_formats, result_lines

DEFAULT_EVERY = 0.5  # Seconds between the frames of a stream that are judged.

_WINDOW = "dfdetect"
_KEYS_TO_END = (27, ord("q"))
# Most frames that a camera's driver keeps while nobody reads.
_MOST_STALE = 8
_FRESH = 0.005  # Seconds; a frame that was waited for longer is new.


def judge_camera(
    judge: clips.ClipJudge,
    source: str,
    thresholds: calibration.Thresholds,
    *,
    every: float | None = None,
) -> None:
    """Prints a line of JSON for each frame that is judged, until the stream ends.

    A window shows the frames where there is a display; Escape or q in it ends the run.

    Args:
        judge: Judges frames, best in batches of one.
        source: Number of a camera, or a URL or path of a stream.
        thresholds: See `calibration.decide_verdict`.
        every: Seconds between two frames that are judged. By default `DEFAULT_EVERY` of
            a stream; of a camera, each frame that is new when the last one is judged.

    Raises:
        OSError: There is no such camera or stream, or it was lost.
    """
    frames = _open_frames(source, every)
    window = _can_show()
    told = ""
    try:
        for frame, heads in judge.find_heads(frames):
            told = _tell_warning(source, frames, told)
            line = result_lines.build_frame_line(source, frame, heads, thresholds)
            print(result_formats.json_line(line), flush=True)
            if window and not _show(frame.image, heads):
                break
        else:
            _check_end(source, frames)
        _tell_warning(source, frames, told)
    finally:
        if window:
            cv2.destroyAllWindows()


def _check_end(source: str, frames: Iterable[video.Frame]) -> None:
    """Raises an `OSError` where a stream was lost; a camera has no end."""
    if not isinstance(frames, video.Reader):
        raise OSError(f"--camera: camera {source} gives no more frames.")
    if frames.problem:
        raise OSError(f"--camera: {source}: the stream was lost: {frames.problem}.")


def _tell_warning(source: str, frames: Iterable[video.Frame], told: str) -> str:
    """Tells what is wrong with a stream if that is not what was told; returns it."""
    warning = frames.warning if isinstance(frames, video.Reader) else ""
    if warning and warning != told:
        console.say(f"{source!r}: {warning}")
    return warning


def _open_frames(source: str, every: float | None) -> Iterable[video.Frame]:
    if source.isdecimal():
        return _read_camera(int(source), every or 0.0)
    sampling = video.Sampling(every=every or DEFAULT_EVERY)
    try:
        reader = video.Reader(source, sampling)
    except ValueError as error:
        raise OSError(f"--camera: {error}") from error
    if reader.is_too_large:
        raise OSError(f"--camera: {source}: {image_status.TOO_LARGE_REASON}.")
    return reader


def _read_camera(number: int, every: float) -> Iterator[video.Frame]:
    """Yields the newest frame of a camera each time that one is requested."""
    capture = cv2.VideoCapture(number)
    if not capture.isOpened():
        raise OSError(f"--camera: there is no camera {number}.")

    def read() -> Iterator[video.Frame]:
        shot_counter, start, index = shots.ShotCounter(), time.monotonic(), 0
        try:
            while _grab_newest(capture):
                image = _retrieve(capture)
                moment = time.monotonic() - start
                if image is not None:
                    shot = shot_counter.add(image)
                    image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
                    yield video.Frame(index, moment, image, shot)
                    index += 1
                time.sleep(max(0.0, every - (time.monotonic() - start - moment)))
        finally:
            capture.release()

    return read()


def _retrieve(capture: cv2.VideoCapture) -> np.ndarray | None:
    """Decodes the grabbed frame to BGR; None where that fails.

    OpenCV may report success for memory that was never written. It is given memory of
    known content, which must have changed.
    """
    decoded, image = capture.retrieve()
    if not decoded or image is None:
        return None
    canary = _canary(image.shape)
    decoded, image = capture.retrieve(canary.copy())
    is_written = decoded and image.shape == canary.shape
    return image if is_written and not np.array_equal(image, canary) else None


@functools.lru_cache(maxsize=1)
def _canary(shape: tuple[int, ...]) -> np.ndarray:
    """Returns noise that no camera sends."""
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def _grab_newest(capture: cv2.VideoCapture) -> bool:
    for _ in range(_MOST_STALE):
        start = time.monotonic()
        if not capture.grab():
            return False
        if time.monotonic() - start > _FRESH:
            break
    return True


def _show(image: np.ndarray, heads: list[result_lines.Head]) -> bool:
    """Shows a frame; returns False when a key to end was pressed."""
    boxes = np.array([head["box"] for head in heads]).reshape(-1, 4)
    probabilities = np.array([head["fake_probability"] for head in heads], np.float64)
    notes = [f"#{head['track']}" for head in heads]
    marked = drawing.annotate(image, boxes, probabilities.tolist(), notes=notes)
    cv2.imshow(_WINDOW, cv2.cvtColor(marked, cv2.COLOR_RGB2BGR))
    return cv2.waitKey(1) not in _KEYS_TO_END


def _can_show() -> bool:
    """Checks whether a window can be opened here."""
    displays = ("DISPLAY", "WAYLAND_DISPLAY")
    if sys.platform == "linux" and not any(map(os.environ.get, displays)):
        return False
    # In another process, as Qt aborts the one that cannot open a window.
    asked = "import cv2; cv2.namedWindow('dfdetect'); cv2.waitKey(1)"
    tried = subprocess.run([sys.executable, "-c", asked], capture_output=True)
    return tried.returncode == 0
