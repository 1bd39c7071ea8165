"""FaceForensics++ and DeepFakeDetection as TFDS datasets of frames."""

import dataclasses
import functools
import itertools
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import tensorflow as tf
import tensorflow_datasets as tfds

from dfdetect import labels
from dfdetect.data.builders import base
from dfdetect.data.builders import frames as clips
from dfdetect.data.builders import rate_factors as factors
from dfdetect.data.builders.account import Account
from dfdetect.media import clip_decoding, video

_FOLDERS = {"raw": ("raw", "c0"), "c23": ("c23",), "c40": ("c40",)}
_DFD = "DeepFakeDetection"
# Where the clips of each method lie, and how many of them there are in all.
_METHODS = {
    "youtube": ("original_sequences", 1000),
    "actors": ("original_sequences", 363),
    "Deepfakes": ("manipulated_sequences", 1000),
    "Face2Face": ("manipulated_sequences", 1000),
    "FaceSwap": ("manipulated_sequences", 1000),
    "NeuralTextures": ("manipulated_sequences", 1000),
    "FaceShifter": ("manipulated_sequences", 1000),
    _DFD: ("manipulated_sequences", 3068),
}
_NAMES = {
    "youtube": re.compile(r"(?P<target>\d{3})"),
    "actors": re.compile(r"(?P<target>\d{2})__\w+"),
    _DFD: re.compile(r"(?P<target>\d{2})_(?P<source>\d{2})__\w+__\w{8}"),
}
_SWAP_NAME = re.compile(r"(?P<target>\d{3})_(?P<source>\d{3})")

# DeepFakeDetection has no official split; every seventh of its 28 actors.
_VALIDATION_ACTORS = ("05", "12", "19", "26")
_TEST_ACTORS = ("06", "13", "20", "27")

_SPLITS = ("train", "validation", "test")


@dataclasses.dataclass
class Config(tfds.core.BuilderConfig):
    """One compression; the frames of others are other images."""


class Builder(base.Builder):
    """Frames at the centers of equal parts of each clip; clips are only read.

    Args:
        frames_per_video: Frames of a clip, -1 for all.
        frame_format: "png" (lossless) or "jpeg" (quality 95).
        rate_factors: Frames are as they look once the clip was compressed by H.264 at
            these constant rate factors, in turns; the field `compression` says so.
        **kwargs: Arguments of `dfdetect.data.builders.base.Builder`.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}
    BUILDER_CONFIGS = [
        Config(name=name, description=f"Clips of {' or '.join(folders)}.")
        for name, folders in _FOLDERS.items()
    ]
    MANUAL_DOWNLOAD_INSTRUCTIONS = """
    Ask for access at https://github.com/ondyari/FaceForensics and give the folder that
    its download script filled, whole or in part: original_sequences/ and
    manipulated_sequences/ lie in it.
    """
    pkg_dir_path = tfds.core.Path(__file__).parent

    def __init__(
        self,
        *,
        frames_per_video: int = 32,
        frame_format: str = "png",
        rate_factors: Sequence[int | str] = (),
        **kwargs: Any,
    ) -> None:
        if frames_per_video == 0 or frames_per_video < -1:
            raise ValueError(
                "frames_per_video must be above 0, or -1 for all, "
                f"got {frames_per_video}."
            )
        if frame_format not in clips.ENDINGS:
            raise ValueError(
                f"frame_format must be one of {', '.join(clips.ENDINGS)}, "
                f"got {frame_format!r}."
            )
        self._frames_per_video = frames_per_video
        self._frame_format = frame_format
        self._rate_factors = factors.parse_rate_factors(rate_factors)
        super().__init__(**kwargs)

    def settings(self) -> dict[str, Any]:
        """Settings that shape the records besides the clips."""
        return {
            "frames_per_video": self._frames_per_video,
            "frame_format": self._frame_format,
            # Only where there are any: data sets of before stay what they are.
            **({"rate_factors": [*self._rate_factors]} if self._rate_factors else {}),
        }

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            features=base.build_labeled_features(
                method=tfds.features.Text(),
                compression=tfds.features.Text(),
                target_id=tfds.features.Text(),
                source_id=tfds.features.Text(),
                frame=tfds.features.Scalar(tf.int64),
                time=tfds.features.Scalar(tf.float32),
                # Most frames have none, and an image cannot be absent.
                mask=tfds.features.Scalar(tf.string),
            ),
            homepage="https://github.com/ondyari/FaceForensics",
            supervised_keys=("image", "label"),
            metadata=tfds.core.MetadataDict(),
        )

    def _split_generators(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, Any]:
        paths = _find(dl_manager.manual_dir, self.builder_config.name)
        pair_of, split_of = _official_split()
        accounts = {split: self.new_account(n_clips=0) for split in _SPLITS}
        tasks: dict[str, list[_Clip]] = {split: [] for split in _SPLITS}
        for method, path in paths:
            clip = _parse(method, path, self.builder_config.name, pair_of)
            if clip is None:
                # It belongs to no split; the first one lists it.
                accounts["train"].skip(f"{method}/{path.name}", "not a name of the set")
                continue
            splits = _splits(clip, split_of)
            if len(splits) > 1:
                accounts["train"].counts["n_crossing"] += 1
            else:
                tasks[splits.pop()].append(clip)
        process = functools.partial(
            _records,
            frames_per_video=self._frames_per_video,
            frame_format=self._frame_format,
            rate_factors=self._rate_factors,
        )
        return self.records(tasks, process, accounts)


@dataclasses.dataclass(frozen=True)
class _Clip:
    path: str
    method: str
    compression: str
    target_id: str
    source_id: str  # Empty for a real.
    group: str
    mask_path: str  # Empty where there is none.

    @property
    def label(self) -> int:
        return labels.FAKE if self.source_id else labels.REAL

    @property
    def name(self) -> str:
        return f"{self.method}/{tfds.core.Path(self.path).stem}"


def _find(root: tfds.core.Path, compression: str) -> list[tuple[str, tfds.core.Path]]:
    """All clips with their methods; says once what there is and what is not."""
    found = []
    for method, (sequences, _) in _METHODS.items():
        folders = [
            root / sequences / method / folder / "videos"
            for folder in _FOLDERS[compression]
        ]
        videos = next((folder for folder in folders if folder.exists()), folders[0])
        found += [
            (method, path) for path in sorted(videos.glob("*.mp4")) if not path.is_dir()
        ]
    counts = Counter(method for method, _ in found)
    there = ", ".join(
        f"{method} {counts[method]:,} of {_METHODS[method][1]:,}" for method in counts
    )
    absent = ", ".join(method for method in _METHODS if method not in counts)
    names = "|".join(_FOLDERS[compression])
    message = (
        f"{root} has clips of {compression}: {there or 'none'}; missing: "
        f"{absent or 'no method'}. Wanted: original_sequences/{{youtube,actors}}/"
        f"{names}/videos/*.mp4, manipulated_sequences/{{Deepfakes,Face2Face,FaceSwap,"
        f"NeuralTextures,FaceShifter,DeepFakeDetection}}/{names}/videos/*.mp4. "
        "Access: the form at https://github.com/ondyari/FaceForensics."
    )
    if not found:
        raise FileNotFoundError(message)
    if any(counts[method] < total for method, (_, total) in _METHODS.items()):
        base.warn(message)
    return found


def _official_split() -> tuple[dict[str, str], dict[str, str]]:
    """The pair of each clip of YouTube, and the split of each pair."""
    pair_of: dict[str, str] = {}
    split_of: dict[str, str] = {}
    split = ""
    text = (tfds.core.Path(__file__).parent / "official_split.txt").read_text()
    for line in text.splitlines():
        if line.startswith("["):
            split = line.strip("[]")
        elif not line.startswith("#"):
            for pair in line.split():
                split_of[pair] = split
                pair_of.update(dict.fromkeys(pair.split("_"), pair))
    return pair_of, split_of


def _parse(
    method: str, path: tfds.core.Path, compression: str, pair_of: dict[str, str]
) -> _Clip | None:
    """Parses the name of a clip; None if it is not a name of the set."""
    match = _NAMES.get(method, _SWAP_NAME).fullmatch(path.stem)
    if not match:
        return None
    target = match["target"]
    source = match.groupdict().get("source", "")
    if len(target) == 2:
        group = f"actor_{target}"
    else:
        group = pair_of[target]
        if source and group != pair_of[source]:
            return None
    mask = path.parents[2] / "masks" / "videos" / path.name
    return _Clip(
        path=str(path),
        method=method,
        compression=compression,
        target_id=target,
        source_id=source,
        group=group,
        mask_path=str(mask) if source and mask.exists() else "",
    )


def _splits(clip: _Clip, split_of: dict[str, str]) -> set[str]:
    """The splits that a clip touches; more than one where actors cross."""
    if clip.group in split_of:
        return {split_of[clip.group]}
    return {_actor_split(a) for a in (clip.target_id, clip.source_id) if a}


def _actor_split(actor: str) -> str:
    if actor in _VALIDATION_ACTORS:
        return "validation"
    return "test" if actor in _TEST_ACTORS else "train"


def _records(
    clip: _Clip,
    account: Account,
    frames_per_video: int,
    frame_format: str,
    rate_factors: Sequence[int],
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The frames of one clip: all that are wanted, or none."""
    try:
        encoded = clips.encode_frames(
            clip.path, frames_per_video, frame_format, rate_factors
        )
    except ValueError as error:
        account.skip(f"{clip.name}.mp4", str(error))
        return
    ending = clips.ENDINGS[frame_format]
    account.counts["n_clips"] += 1
    if encoded.warning:
        account.counts["n_clips_with_warning"] += 1
        base.warn(f"{clip.name}.mp4: {encoded.warning}")
    masks = _masks(clip, encoded.wanted, account)
    places = {index: place for place, index in enumerate(encoded.wanted)}
    for (index, time, image_bytes), mask in zip(encoded.frames, masks, strict=False):
        account.counts[labels.NAMES[clip.label]] += 1
        account.counts[f"method/{clip.method}"] += 1
        account.counts["n_masks"] += bool(mask)
        name = f"{clip.name}/{index:06d}{ending}"
        compression = clip.compression
        if rate_factors:
            factor = clips.choose_factor(places[index], rate_factors)
            compression += f"+crf{factor}"
        account.take(name, image_bytes, mask)
        yield (
            name,
            {
                "image": image_bytes,
                "image/filename": name,
                "label": clip.label,
                "group": clip.group,
                "method": clip.method,
                "compression": compression,
                "target_id": clip.target_id,
                "source_id": clip.source_id,
                "frame": index,
                "time": time,
                "mask": mask,
            },
        )


def _masks(clip: _Clip, wanted: list[int], account: Account) -> Iterator[bytes]:
    """The encoded masks of these frames, then nothing without end."""
    if clip.mask_path:
        try:
            for frame in video.read_frames(clip.mask_path, wanted):
                yield clips.encode_image(frame.image[..., 0], "png")
        except clip_decoding.UnreadableClipError as error:
            account.skip(f"mask of {clip.name}", error.reason)
    yield from itertools.repeat(b"")
