"""Base class of the TFDS builders, which streams and accounts for its files.

A builder lists its tasks (clips to decode, handfuls of images to read) by split, and
names the function that turns one task into records. The rest is done here.
"""

import functools
import hashlib
import json
import logging
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import tensorflow as tf
import tensorflow_datasets as tfds

from dfdetect import labels
from dfdetect.data.builders import streams
from dfdetect.data.builders.account import Account
from dfdetect.media import decode, file_kinds, headers, image_status

_log = logging.getLogger(__name__)

_SIGNATURES = {
    "JPEG": b"\xff\xd8\xff",
    "PNG": b"\x89PNG",
    "GIF": b"GIF8",
    "BMP": b"BM",
    "WEBP": b"RIFF",
}

_ACCOUNTS = "accounts-"  # Files in which Beam workers leave their accounts.


class Builder(tfds.core.GeneratorBasedBuilder):
    """A TFDS builder that streams, in threads or on Beam, and accounts for its files.

    The metadata of a prepared data set holds `counts` and `skipped` by split (of many
    skipped files the first, see `Account`; `n_skipped` counts all), `totals` over the
    splits, the `settings` that shape the records, and a `fingerprint`, the
    SHA-256 of the splits' fingerprints.

    Args:
        strict: Stop at the first file that cannot be used, instead of skipping it.
        num_threads: Tasks at once where Beam does not decide; the cores by default.
        **kwargs: Arguments of the TFDS builder.

    Attributes:
        any_config: Whether `config` may be any name (of letters, digits, "_" and "-",
            beginning with a letter): one for each source folder, side by side.
        needs_config: Whether such a name must be given.
    """

    any_config = False
    needs_config = True

    def __init__(
        self, *, strict: bool = False, num_threads: int | None = None, **kwargs: Any
    ) -> None:
        if self.any_config and (self.needs_config or kwargs.get("config")):
            kwargs["config"] = _named_config(self.name, kwargs.get("config"))
        super().__init__(**kwargs)
        self._strict = strict
        self._num_threads = num_threads or os.cpu_count() or 1
        self._on_beam = False
        self._accounts: dict[str, Account] = {}

    def settings(self) -> dict[str, Any]:
        """Settings that shape the records besides the files; kept in the metadata."""
        return {}

    def new_account(self, **counts: int) -> Account:
        """Returns an account that begins with these counts."""
        return Account(self._strict, Counter({"n_skipped": 0, **counts}))

    def records(
        self,
        tasks: Mapping[str, Sequence[Any]],
        process: streams.Process,
        accounts: Mapping[str, Account] | None = None,
    ) -> dict[str, Any]:
        """Returns the splits, for `_split_generators` to return.

        Args:
            tasks: Tasks by split; empty splits are left out: TFDS cannot write them.
            process: Makes the records of a task. On Beam it is sent to other
                processes, with a builder's module inside.
            accounts: Accounts to begin with, by split.

        Raises:
            ValueError: There are no tasks at all.
        """
        self._accounts = {
            split: (accounts or {}).get(split) or self.new_account() for split in tasks
        }
        if not any(tasks.values()):
            raise ValueError(_nothing("data set", *self._accounts.values()))
        return {
            split: self._generate_examples(split, listed, process)
            for split, listed in tasks.items()
            if listed
        }

    def _generate_examples(
        self, split: str, tasks: Sequence[Any], process: streams.Process
    ) -> Any:
        if self._on_beam:
            # The workers cannot import a builder, which lies in no package.
            path = os.path.join(os.fspath(self.data_path), f"{_ACCOUNTS}{split}.json")
            module = sys.modules[type(self).__module__]
            return streams.build_beam_transform(
                tasks, process, strict=self._strict, account_path=path, module=module
            )
        return self._in_threads(split, tasks, process)

    def _in_threads(
        self, split: str, tasks: Sequence[Any], process: streams.Process
    ) -> Iterator[streams.Record]:
        account = self._accounts[split]
        some = False
        for record in streams.run_in_threads(
            split,
            tasks,
            process=process,
            account=account,
            num_threads=self._num_threads,
        ):
            some = True
            yield record
        if not some:
            raise ValueError(_nothing(f"split {split}", account))

    def _generate_splits(
        self,
        dl_manager: tfds.download.DownloadManager,
        download_config: tfds.download.DownloadConfig,
    ) -> Sequence[tfds.core.SplitInfo]:
        self._on_beam = download_config.beam_runner is not None
        self.info.metadata.clear()
        splits = super()._generate_splits(dl_manager, download_config)
        for path in self.data_path.glob(f"{_ACCOUNTS}*.json"):
            split = path.stem.removeprefix(_ACCOUNTS)
            self._accounts[split].add(Account.from_json(path.read_text()))
            path.unlink()
        self._note_accounts()
        return splits

    def _note_accounts(self) -> None:
        accounts = self._accounts
        prints = {split: f"{a.fingerprint:064x}" for split, a in accounts.items()}
        fingerprint = json.dumps(prints, sort_keys=True)
        totals: Counter[str] = Counter()
        for account in accounts.values():
            totals.update(account.counts)
        self.info.metadata.update(
            counts={split: _sorted(a.counts) for split, a in accounts.items()},
            skipped={split: a.skipped for split, a in accounts.items()},
            totals=_sorted(totals),
            fingerprint=hashlib.sha256(fingerprint.encode()).hexdigest(),
            settings=self.settings(),
        )


def _named_config(dataset: str, config: Any) -> tfds.core.BuilderConfig:
    """Returns the config of a name that is free to choose."""
    name = getattr(config, "name", config)
    if not name or not re.fullmatch(r"[A-Za-z][\w-]*", name, re.ASCII):
        raise ValueError(
            f"{dataset} needs a config, {dataset}/NAME, where NAME is free: letters, "
            f"digits, _ and - after a letter; got {name!r}."
        )
    if isinstance(config, tfds.core.BuilderConfig):
        return config
    return tfds.core.BuilderConfig(name=name, description=f"The folder {name}.")


def _sorted(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items()))


def _nothing(what: str, *accounts: Account) -> str:
    skipped = [line for account in accounts for line in account.skipped]
    return (
        f"No file of the {what} gives a record; the first that was skipped: "
        f"{skipped[0] if skipped else 'none'}."
    )


def build_labeled_features(
    **further: tfds.features.FeatureConnector,
) -> tfds.features.FeaturesDict:
    """Returns the fields of a labeled image and further ones."""
    return tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=(None, None, 3)),
            "image/filename": tfds.features.Text(),
            "label": tfds.features.ClassLabel(names=labels.NAMES),
            "group": tfds.features.Text(),
            **further,
        }
    )


def warn(message: str) -> None:
    """Logs a warning for the person who prepares a data set."""
    _log.warning("%s", message)


@functools.lru_cache
def open_prepared(name: str, data_dir: str) -> tfds.core.DatasetBuilder:
    """Opens a prepared data set once; a cache in a builder could not be pickled."""
    return tfds.builder(name, data_dir=data_dir)


def split_by_hash(group: str, validation: int = 10, test: int = 10) -> str:
    """Chooses the split of a group by its name alone, the same at any time and place.

    Args:
        group: Name of the group.
        validation: Percent of the groups that go to validation.
        test: Percent of the groups that go to the test; the rest is for training.
    """
    percent = int.from_bytes(hashlib.sha256(group.encode()).digest()[:8], "big") % 100
    if percent < 100 - validation - test:
        return "train"
    return "validation" if percent < 100 - test else "test"


def cut_into_chunks(items: Sequence[Any], size: int = 64) -> list[Sequence[Any]]:
    """Cuts a list into tasks of at most `size` items."""
    return [items[start : start + size] for start in range(0, len(items), size)]


def measure_extent(image_bytes: bytes) -> tuple[int, int]:
    """Measures height and width of the upright image as training will decode it.

    Raises:
        ValueError: The image cannot be decoded or is too large for a record.
    """
    stored = headers.read(image_bytes).numpy()
    pixels = int(stored[headers.HEIGHT]) * int(stored[headers.WIDTH])
    if pixels > image_status.MAX_PIXELS:
        raise ValueError(
            f"{pixels // 10**6} megapixels; at most "
            f"{image_status.MAX_PIXELS // 10**6} are "
            "read"
        )
    try:
        height, width = _decoder()(image_bytes).shape[:2]
    except tf.errors.InvalidArgumentError as error:
        raise ValueError(file_kinds.describe_unreadable(image_bytes)) from error
    return height, width


def tell_animated(name: str, image_bytes: bytes, account: Account) -> None:
    """Tells and counts an image of which training will see the first frame only."""
    if warning := file_kinds.describe_animated(image_bytes, "taken"):
        account.counts["n_animated"] += 1
        warn(f"{name}: {warning}")


def identify_format(image_bytes: bytes) -> str:
    """Tells JPEG, PNG, GIF, BMP or WEBP by the first bytes; "" for anything else."""
    for name, signature in _SIGNATURES.items():
        if image_bytes.startswith(signature):
            return name
    return ""


@functools.cache
def _decoder() -> Callable:
    return tf.function(
        decode.decode_image, input_signature=[tf.TensorSpec([], tf.string)]
    )
