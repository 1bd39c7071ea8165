"""Tables of the heads that were cut out of a data set, and of images without one.

* `heads.csv`, one row a head: the columns of `HEAD_COLUMNS`, then those of
  `name_field_columns`.
    - `path` of the crop, from the folder on, with `/`;
    - `label` 0 or 1 (see `labels`), `split` ("train", "validation", "test"), `group`
      and `image/filename` of the image's record;
    - `head`: the head's place among those found in its image, 0 the best score;
    - `ymin`, `xmin`, `ymax`, `xmax`: the detector's box (see `boxes`), relative to the
      upright original and without margin;
    - `score` of the detector, and the `margin` of the crop (see `boxes.square_crops`);
    - each further scalar of the record under its name, or under `image/` and its name
      where that is taken: numbers as they are, flags 0 or 1, classes and texts in
      words.
* `no_head.csv`, one row an image without a crop: the columns of `MISS_COLUMNS`.
  `reason` is one of `image_status.STATUS_NAMES`: `no_head`, `unreadable`, `too_large`
  or `head_too_small`.

The tables are in the order of the data set, UTF-8, and quoted as CSV is: a text may
hold line breaks. Numbers read back as float32 are the very boxes and scores.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from dfdetect import labels, manifest, resumable

HEADS, MISSES = "heads.csv", "no_head.csv"
HEAD_COLUMNS = (
    "path",
    "label",
    "split",
    "group",
    "image/filename",
    "head",
    "ymin",
    "xmin",
    "ymax",
    "xmax",
    "score",
    "margin",
)
MISS_COLUMNS = ("image/filename", "split", "label", "group", "reason")


def name_field_columns(fields: Iterable[str]) -> list[str]:
    """Names the columns of further fields, with `image/` before taken names."""
    columns: list[str] = []
    for name in fields:
        while name in HEAD_COLUMNS or name in columns:
            name = f"image/{name}"
        columns.append(name)
    return columns


def write_tables(folder: resumable.Output, margin: float, fields: list[str]) -> None:
    """Turns the journal of a folder into the tables and the summary.

    Args:
        folder: The folder, whose journal has all images.
        margin: See `CropSettings`.
        fields: See `records.list_further_fields`.
    """
    counts: dict[str, Any] = {}
    reasons: Counter[str] = Counter()
    with folder.text(HEADS) as file:
        rows = resumable.make_csv_writer(file)
        rows.writerow([*HEAD_COLUMNS, *name_field_columns(fields)])
        for split, image in _journal(folder):
            before = [image["label"], split, image["group"], image["filename"]]
            for path, *head in image["heads"]:
                rows.writerow([path, *before, *head, margin, *image["fields"]])
    with folder.text(MISSES) as file:
        rows = resumable.make_csv_writer(file)
        rows.writerow(MISS_COLUMNS)
        for split, image in _journal(folder):
            name, status = labels.NAMES[image["label"]], image["status"]
            of_split = counts.setdefault(
                split,
                {
                    label: {"pictures": 0, "heads": 0, "without_head": 0}
                    for label in labels.NAMES
                },
            )
            of_split[name]["pictures"] += 1
            of_split[name]["heads"] += len(image["heads"])
            of_split[name]["without_head"] += not image["heads"]
            if not image["heads"]:
                reasons[status] += 1
                label, group = image["label"], image["group"]
                rows.writerow([image["filename"], split, label, group, status])
    folder.finish(
        {
            "counts": counts,
            "without_head": dict(sorted(reasons.items())),
            "versions": manifest.collect_versions(),
        }
    )


def _journal(folder: resumable.Output) -> Iterator[tuple[str, dict[str, Any]]]:
    for step in folder.steps():
        for image in step["pictures"]:
            yield step["split"], image
