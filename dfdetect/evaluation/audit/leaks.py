"""Finds groups that have records in two splits."""

import tensorflow_datasets as tfds

from dfdetect.data import split_leaks
from dfdetect.evaluation.audit.survey import Survey


def find_all(builder: tfds.core.DatasetBuilder, survey: Survey) -> list[dict]:
    """Finds the leaks of a data set: those of `find_leaks`, and a random split.

    Args:
        builder: A prepared data set.
        survey: Its survey.
    """
    return [*split_leaks.find_random_split(builder), *find_leaks(survey)]


def find_leaks(survey: Survey) -> list[dict]:
    """Finds each video, actor, film or group with records in more than one split.

    Returns:
        For each `kind` (of `split_leaks.PROVENANCE`) and `name`: `splits`, the number
        of records it has in each; sorted.
    """
    found: dict[tuple[str, str], dict[str, int]] = {}
    for kind, records in survey.identities.items():
        for split, names in zip(survey.splits.tolist(), records, strict=True):
            for name in names:
                counts = found.setdefault((kind, name), {})
                counts[split] = counts.get(split, 0) + 1
    return split_leaks.list_shared(found)
