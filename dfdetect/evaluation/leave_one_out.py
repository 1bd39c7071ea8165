"""Figures of classifiers on makers that they have, and have not, been trained on.

A figure for makers that were seen says little of the next one. Each row is one maker by
one run, against every source of reals; the least of a row is what one can count on.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dfdetect import labels
from dfdetect.data import conditions
from dfdetect.evaluation import source_pairs


def is_seen(manifest: Mapping[str, Any], pooled: source_pairs.Pool, maker: str) -> bool:
    """Whether a classifier was trained on fakes of a maker.

    Its manifest says so by `origins`. Older manifests lack these: then a maker is
    seen where one of its data sets was trained on, by fingerprint or by name.
    """
    origins = manifest.get("origins", {}).get(pooled.field)
    if origins is not None:
        return maker in origins[labels.NAMES[labels.FAKE]]
    of_maker = (pooled.origins == maker) & (pooled.truths == labels.FAKE)
    sets = [pooled.sets[place] for place in np.unique(pooled.places[of_maker])]
    return any(
        one["fingerprint"] == other["fingerprint"]
        or (one["name"], one["config"]) == (other["name"], other.get("config", ""))
        for one in sets
        for other in manifest.get("data", [])
    )


def measure_left_out(
    pooled: source_pairs.Pool,
    runs: Sequence[tuple[str, Mapping[str, Any], Sequence[Mapping[str, Any]]]],
) -> dict[str, Any]:
    """The matrix of makers and sources of reals, unseen and seen makers apart.

    Args:
        pooled: The images.
        runs: Name, manifest and `source_pairs.measure_pairs` of each classifier.

    Returns:
        `field`; `left_out`, by run; and for `unseen` and `seen` each `rows` (`model`,
        `maker`, `against` each source, and the `least` of these with its `source`) and
        `mean_least` over the rows, NaN without any.
    """
    rows: dict[str, list[dict[str, Any]]] = {"unseen": [], "seen": []}
    for name, manifest, pairs in runs:
        for maker in pooled.names(labels.FAKE):
            against = {p["source"]: dict(p) for p in pairs if p["maker"] == maker}
            least = min(against.values(), key=lambda pair: pair["auc"])
            seen = "seen" if is_seen(manifest, pooled, maker) else "unseen"
            rows[seen].append(
                {
                    "model": name,
                    "maker": maker,
                    "against": {s: _figures(pair) for s, pair in against.items()},
                    "least": {"source": least["source"], **_figures(least)},
                }
            )
    return {
        "field": pooled.field,
        "left_out": {
            name: conditions.list_excluded_values(
                manifest.get("where", []), pooled.field
            )
            for name, manifest, _ in runs
        },
        **{
            kind: {
                "rows": of_kind,
                "mean_least": float(np.mean([row["least"]["auc"] for row in of_kind]))
                if of_kind
                else float("nan"),
            }
            for kind, of_kind in rows.items()
        },
    }


def _figures(pair: Mapping[str, Any]) -> dict[str, Any]:
    return {name: pair[name] for name in ("auc", "auc_interval")}
