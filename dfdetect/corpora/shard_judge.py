"""Judges the files of a shard, with one graph a process, as `dfdetect detect` does."""

import collections
import contextlib
import dataclasses
import logging
import threading
from collections.abc import Iterator
from typing import Any

from dfdetect.corpora import accounts, file_access, shards
from dfdetect.iterators import prefetch
from dfdetect.media import file_kinds, source_files

COPIES = ("none", "suspicious", "all")

_log = logging.getLogger("dfdetect")

# Images are read ahead in groups of so many batches, and of so many bytes but for a
# single image. There are four at once: one is read, two wait, one is judged.
_BATCHES_READ = 2
_BYTES_READ = 16 * 2**20
_GROUPS_WAITING = 2

_IMAGES, _CLIPS = "judge_images", "judge_clips"  # Stages.

# Shards that the threads of a process judge at once; more would only take memory.
_SHARDS_AT_ONCE = 2


@dataclasses.dataclass(frozen=True)
class JudgeSettings:
    """How files are judged; as the options of `dfdetect detect` of the same names.

    Attributes:
        model: Folder of an exported graph; None for the default weights.
        classifier: Its packed file or folder; None for that of the default weights.
        tile: Whether to search overlapping tiles as well.
        crops: Whether each image is a crop of one head.
        threshold: Fake probability of a fake; None for the thresholds of the model.
        frames: Frames of each clip; -1 for all.
        every: Seconds between frames instead, or None.
        aggregate: One of `aggregation.METHODS`.
        batch_size: Images, or frames of a clip, judged at once.
        copies: One of `COPIES`: of which files copies with marks are written.
    """

    model: str | None = None
    classifier: str | None = None
    tile: bool = False
    crops: bool = False
    threshold: float | None = None
    frames: int = 32
    every: float | None = None
    aggregate: str = "mean"
    batch_size: int = 8
    copies: str = "none"


@dataclasses.dataclass(frozen=True)
class JudgedShard:
    """What a shard's files gave.

    Attributes:
        lines: Result lines as JSON, by their paths.
        account: What became of the files.
    """

    lines: dict[str, str]
    account: accounts.Account


# A source, its bytes, and why it has none.
_Read = tuple[source_files.Source, bytes | None, str]


class ShardJudge:
    """Judges shards; its threads share one graph.

    Args:
        settings: How files are judged.
        output: Prefix of the files that are written, see `shards`.

    Raises:
        FileNotFoundError: A file of the model is missing.
        ValueError: The model or the classifier cannot be used.
    """

    def __init__(self, settings: JudgeSettings, output: str) -> None:
        # Here, after `process_handler` has set what TensorFlow reads when imported.
        from dfdetect.export import graph_cache
        from dfdetect.media import video
        from dfdetect.metrics import calibration
        from dfdetect.pipeline import clips, given_crops

        model = graph_cache.load(
            settings.model, _log.info, settings.tile, settings.classifier
        )
        self._settings = settings
        self._thresholds = model.manifest["classifier"]["thresholds"]
        if settings.threshold is not None:
            self._thresholds = calibration.single_threshold(settings.threshold)
        self._detect = model.detect
        if settings.crops:
            self._detect = given_crops.as_detections(model.classify_crops)
        self._clip_judge = clips.ClipJudge(
            model,
            self._thresholds,
            video.Sampling(settings.frames, settings.every),
            aggregate=settings.aggregate,
            batch_size=settings.batch_size,
        )
        self._copy_writer = None
        if settings.copies != "none":
            from dfdetect.corpora import copies

            margin = model.manifest["classifier"]["crop_margin"]
            self._copy_writer = copies.CopyWriter(
                shards.name_copies(output),
                self._thresholds,
                margin=None if settings.crops else margin,
                write_all=settings.copies == "all",
            )
        self._room = threading.Semaphore(_SHARDS_AT_ONCE)

    def judge(self, shard: shards.Shard) -> JudgedShard:
        """Judges the files of a shard; none of them keeps the others from theirs."""
        from dfdetect.pipeline import result_formats

        account = accounts.Account()
        lines: dict[str, str] = {}
        with self._room:
            for finding in self._judge_sources(shard, account):
                result = finding.result
                # First, as copies are of heads alone: a line says what was judged.
                if self._copy_writer:
                    with account.timed("copies"):
                        self._copy_writer.write(shard, finding, account)
                lines[result["path"]] = result_formats.json_line(result)
                account.count_line(result, "judged")
        return JudgedShard(lines, account)

    def _judge_sources(
        self, shard: shards.Shard, account: accounts.Account
    ) -> Iterator[Any]:
        """Yields a finding for each image, then for each clip."""
        with account.timed("find"):
            sources = list(self._select(shard, account))
        images = [source for source in sources if not source.is_clip]
        clips: Iterator[_Read] = ((x, None, "") for x in sources if x.is_clip)
        with contextlib.closing(
            prefetch(self._read_groups(images, account), _GROUPS_WAITING)
        ) as groups:
            yield from self._judge_each(_join(groups, account), account, _IMAGES)
        yield from self._judge_each(clips, account, _CLIPS)

    def _select(
        self, shard: shards.Shard, account: accounts.Account
    ) -> Iterator[source_files.Source]:
        """Selects images and clips as `source_files.find_sources` does."""
        for found in shard.files:
            kind = file_kinds.UNKNOWN
            if not found.problem:
                kind = file_access.identify_kind(found.path)
            source = source_files.select_source(
                found, kind, clips=not self._settings.crops
            )
            if source is None:
                name = file_kinds.name_passed_over(found.path, kind)
                account.tables["passed_over"][name] += 1
            else:
                yield source

    def _read_groups(
        self, images: list[source_files.Source], account: accounts.Account
    ) -> Iterator[list[_Read]]:
        """Reads images in groups of limited number and bytes."""
        group: list[_Read] = []
        size = 0
        for source in images:
            with account.timed("read"):
                content, problem = _read(source)
            size += len(content or b"")
            is_full = len(group) >= _BATCHES_READ * self._settings.batch_size
            if group and (is_full or size > _BYTES_READ):
                yield group
                group, size = [], len(content or b"")
            group.append((source, content, problem))
        if group:
            yield group

    def _judge_each(
        self, reads: Iterator[_Read], account: accounts.Account, stage: str
    ) -> Iterator[Any]:
        """Yields a finding for each file, in full batches but for the last one.

        After an exception, the files that were at work are judged one at a time.
        """
        pending: collections.deque[_Read] = collections.deque()
        is_done = False
        while not is_done:
            try:
                for finding in _timed(self._find(reads, pending), account, stage):
                    pending.popleft()
                    yield finding
                is_done = True
            # Whatever it is: the shard has other files.
            except Exception as error:
                if not pending:
                    raise
                _log.warning("%r and others: %s", pending[0][0].path, error)
                while pending:
                    yield self._judge_alone(pending.popleft(), account, stage)

    def _judge_alone(self, one: _Read, account: accounts.Account, stage: str) -> Any:
        from dfdetect.pipeline import findings, result_lines

        try:
            with account.timed(stage):
                (finding,) = self._find(iter([one]), collections.deque())
            return finding
        except Exception as error:
            source = one[0]
            problem = f"judging it failed: {_describe(error)}"
            result = (
                result_lines.build_clip_line(source.path, "unreadable")
                if source.is_clip
                else result_lines.build_image_line(source.path, {}, self._thresholds)
            )
            result["warning"] = problem
            return findings.Finding(source, b"", result, problem)

    def _find(
        self, reads: Iterator[_Read], pending: collections.deque[_Read]
    ) -> Iterator[Any]:
        """Yields findings; `pending` has the files that were begun and have none yet.

        The caller removes from `pending` what it is given.
        """
        from dfdetect.pipeline import findings

        contents: dict[str, tuple[bytes | None, str]] = {}

        def take() -> Iterator[source_files.Source]:
            for source, content, problem in reads:
                pending.append((source, content, problem))
                contents[source.path] = content, problem
                yield source

        return findings.find_in_sources(
            self._detect,
            take(),
            self._thresholds,
            batch_size=self._settings.batch_size,
            judge_clip=self._judge_clip,
            read_source=lambda source: contents.pop(source.path),
        )

    def _judge_clip(self, path: str) -> Any:
        from dfdetect.pipeline import result_lines

        try:
            with file_access.open_local(path) as local:
                line, problem = self._clip_judge(local)
        except OSError as error:
            reason = error.strerror or str(error)
            return result_lines.build_clip_line(path, "unreadable"), reason
        line["path"] = path
        return line, problem


def _read(source: source_files.Source) -> tuple[bytes | None, str]:
    """Reads an image as `findings.read` does; no error keeps others from theirs."""
    from dfdetect.pipeline import findings

    try:
        return findings.read(source, file_access.read)
    except Exception as error:
        return None, f"reading it failed: {_describe(error)}"


def _describe(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:500]


def _join(groups: Iterator[list[_Read]], account: accounts.Account) -> Iterator[_Read]:
    """Yields the images of all groups; counts the seconds that are waited for them."""
    while True:
        with account.timed("wait_for_files", within=_IMAGES):
            group = next(groups, None)
        if group is None:
            return
        yield from group


def _timed(
    items: Iterator[Any], account: accounts.Account, stage: str
) -> Iterator[Any]:
    """Yields items, and counts the seconds that each was waited for."""
    while True:
        with account.timed(stage):
            item = next(items, None)
        if item is None:
            return
        yield item
