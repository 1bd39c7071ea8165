"""Writes frames of clips as image files, for tools that read files.

    python datasets/extract_frames.py -i CLIPS -o FRAMES -f 32

Every clip below CLIPS gives a folder below FRAMES of the same path without the ending,
with the frames at the centers of equal parts of the clip: `000123.png` is frame 123. A
clip's folder appears when it is complete, so that an interrupted run is simply started
again, and a later run adds the clips that are new. Files that say the labels and splits
of clips (labels.csv, List_of_testing_videos.txt, train.json, val.json, test.json) are
copied, so that `prepare.py --dataset=labeled_faces --manual_dir=FRAMES` reads them.

A clip with something wrong, such as a frame that cannot be decoded, is named, too.

The exit code is 3 when some clips could not be read, or their frames not written (each
is named), 2 for a usage error, 1 when the command failed.
"""

import collections
import concurrent.futures
import json
import os
import pathlib
import shutil
import sys

if __name__ == "__main__":
    from dfdetect import console

    # Before TensorFlow is imported: its notes would bury the messages.
    console.capture()

from absl import app, flags

from dfdetect import console, files, script
from dfdetect.data.builders import frames as clips
from dfdetect.data.builders import rate_factors
from dfdetect.media import file_kinds, source_files

_INPUT = flags.DEFINE_string(
    "input", None, "Folder of clips; only read.", short_name="i", required=True
)
_OUTPUT = flags.DEFINE_string(
    "output", None, "Folder of the frames.", short_name="o", required=True
)
_FRAMES = flags.DEFINE_integer(
    "frames_per_video", 32, "Frames of a clip; -1 for all.", short_name="f"
)
_FORMAT = flags.DEFINE_enum(
    "frame_format", "png", list(clips.ENDINGS), "Lossless, or of quality 95."
)
_RATE_FACTORS = flags.DEFINE_list(
    "rate_factors",
    [],
    "Compress each clip by H.264 at these constant rate factors, such as 18,23,30,40, "
    "a frame at each in turn: 000123.crf30.png. By default frames are as they are.",
)
_THREADS = flags.DEFINE_integer(
    "num_threads", os.cpu_count(), "Clips at once.", lower_bound=1
)

_SETTINGS = "extract_frames.json"
# Which clips are real, and in which split: read by `labeled_faces`.
_LABELS = (
    "labels.csv",
    "List_of_testing_videos.txt",
    "train.json",
    "val.json",
    "test.json",
)


def folders_of(
    root: pathlib.Path, passed_over: collections.Counter[str]
) -> dict[pathlib.Path, pathlib.Path]:
    """Lists the clips below a folder, and the output folder of each.

    Args:
        root: The folder.
        passed_over: Counts, by kind, the files that are not clips; added to.
    """
    sources, _ = source_files.find_sources(
        [str(root)], clips=True, passed_over=passed_over
    )
    passed_over.update({"image": sum(not source.is_clip for source in sources)})
    found = sorted(pathlib.Path(source.path) for source in sources if source.is_clip)
    relative = [path.relative_to(root) for path in found]
    taken = collections.Counter(path.with_suffix("") for path in relative)
    # A folder that has the name of a clip will hold those of the clips in it.
    taken.update({folder for path in relative for folder in path.parents})
    return {
        path: name if taken[name.with_suffix("")] > 1 else name.with_suffix("")
        for path, name in zip(found, relative, strict=True)
    }


def extract(clip: pathlib.Path, folder: pathlib.Path) -> str:
    """Writes the frames of a clip into a folder that appears when it is complete.

    Returns:
        What is wrong with the clip, or "".

    Raises:
        ValueError: The clip cannot be decoded, or is cut short.
        OSError: A frame cannot be written; what was written is gone.
    """
    factors = rate_factors.parse_rate_factors(_RATE_FACTORS.value)
    encoded = clips.encode_frames(clip, _FRAMES.value, _FORMAT.value, factors)
    places = {index: place for place, index in enumerate(encoded.wanted)}
    aside = folder.with_name(f".{folder.name}.unfinished")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        aside.mkdir(parents=True)
        for index, _, image_bytes in encoded.frames:
            factor = clips.choose_factor(places[index], factors) if factors else None
            middle = "" if factor is None else f".crf{factor}"
            name = f"{index:06d}{middle}{clips.ENDINGS[_FORMAT.value]}"
            with files.name_errors(aside / name):
                (aside / name).write_bytes(image_bytes)
        aside.rename(folder)
    except OSError:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    return encoded.warning


def _check_settings(output: pathlib.Path) -> None:
    """Refuses a folder with other content, or with other frames of the clips."""
    settings = {
        "frames_per_video": _FRAMES.value,
        "frame_format": _FORMAT.value,
    }
    if _RATE_FACTORS.value:
        settings["rate_factors"] = [
            *rate_factors.parse_rate_factors(_RATE_FACTORS.value)
        ]
    path = output / _SETTINGS
    if path.exists():
        before = json.loads(path.read_text())
        if before != settings:
            raise app.UsageError(
                f"{output} was made with {before}, not with {settings}; name a new "
                "folder."
            )
    elif output.exists() and any(output.iterdir()):
        raise app.UsageError(f"{output} holds other files; name a new folder.")
    else:
        files.write(str(path), f"{json.dumps(settings)}\n".encode())


def _copy_labels(root: pathlib.Path, output: pathlib.Path) -> None:
    """Copies the tables and lists of the clips, also those of a data set within."""
    for name in _LABELS:
        # Listed first, and without those written, if the output lies among the clips.
        found = [
            path
            for path in root.rglob(name)
            if not path.resolve().is_relative_to(output.resolve())
        ]
        for path in found:
            target = output / path.relative_to(root)
            target.parent.mkdir(parents=True, exist_ok=True)
            files.write(str(target), path.read_bytes())


def main(argv: list[str]) -> None:
    """Extracts what is not there yet."""
    if _FRAMES.value == 0 or _FRAMES.value < -1:
        raise app.UsageError(f"-f must be above 0, or -1 for all, got {_FRAMES.value}.")
    try:
        rate_factors.parse_rate_factors(_RATE_FACTORS.value)
    except ValueError as error:
        raise app.UsageError(f"--{error}") from error
    root = pathlib.Path(_INPUT.value).expanduser()
    output = pathlib.Path(_OUTPUT.value).expanduser()
    kinds: collections.Counter[str] = collections.Counter()
    wanted = folders_of(root, kinds)
    passed_over = file_kinds.describe_passed_over(+kinds)
    if not wanted:
        told = f" ({passed_over})" if passed_over else ""
        raise app.UsageError(f"there is no clip in {root}{told}.")
    _check_settings(output)
    _copy_labels(root, output)
    todo = {clip: output / name for clip, name in wanted.items()}
    todo = {clip: folder for clip, folder in todo.items() if not folder.exists()}
    not_done = 0
    with (
        console.Progress(
            len(wanted),
            script.say,
            noun="clip",
            done=len(wanted) - len(todo),
            note=passed_over,
        ) as bar,
        concurrent.futures.ThreadPoolExecutor(_THREADS.value) as pool,
    ):
        futures = {pool.submit(extract, *pair): pair[0] for pair in todo.items()}
        try:
            for future in concurrent.futures.as_completed(futures):
                try:
                    if warning := future.result():
                        with bar.paused():
                            script.say(f"{futures[future]}: {warning}")
                    bar.count("extracted with a warning" if warning else "extracted")
                except ValueError as error:
                    with bar.paused():
                        script.say(f"{futures[future]}: {error}")
                    bar.count("unreadable")
                    not_done += 1
                except OSError as error:
                    with bar.paused():
                        script.say(f"{futures[future]}: no frames are written: {error}")
                    bar.count("not written")
                    not_done += 1
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    sys.exit(3 if not_done else 0)


if __name__ == "__main__":
    script.run_main(main)
