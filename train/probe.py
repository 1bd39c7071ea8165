"""Compares inputs and backbones by linear probes, on makers that they have not seen.

    python train/probe.py --data_dir=DATA --dataset=A,B --snapshot=lite0.pth \
        --features=stages,stages+spectrum --image_size=192,224 --self_blended=0,.15

A training of each would take hours. Here a logistic regression is fitted to features of
a network that stays as it is: for each maker (`source`) of fakes one without it, on
crops of `train` changed as trainings change them. The fakes of that maker are then told
from the reals of each source: those of `--split` as they are stored, and those of
`train`, changed, by folds of groups. It needs only `pip install dfdetect`.
"""

import dataclasses
import itertools
import os
from collections.abc import Iterator
from typing import Any

if __name__ == "__main__":
    from dfdetect import console

    # Before TensorFlow is imported: its notes would bury the messages.
    console.capture()

import absl.logging
import keras
import tensorflow_datasets as tfds
from absl import app, flags

from dfdetect import console, files, labels, manifest, script
from dfdetect.data import prepared, records
from dfdetect.evaluation import linear_probe, probe_features
from dfdetect.evaluation.figures import to_json
from dfdetect.models import classifier, model_directory, weights

_DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "Folder of prepared data sets.", required=True
)
_DATASET = flags.DEFINE_list(
    "dataset", None, "Prepared data sets; NAME or NAME/CONFIG each.", required=True
)
_SPLIT = flags.DEFINE_string("split", "validation", "The split to measure on.")
flags.register_validator(
    "split", lambda split: split != "train", "must not be train, which is fitted to."
)
_MODEL = flags.DEFINE_list(
    "model", ["efficientnet_lite0"], "Networks, see train/classifier.py."
)
_SNAPSHOT = flags.DEFINE_list(
    "snapshot",
    None,
    "Weights of each network, see train/classifier.py; `default` for those that ship, "
    "whatever --model says. They may have seen the makers.",
)
_FEATURES = flags.DEFINE_list(
    "features",
    ["stages"],
    f"Each some of {', '.join(probe_features.FEATURES)}, joined by +.",
)
flags.register_validator(
    "features",
    lambda given: (
        given and all(set(x.split("+")) <= set(probe_features.FEATURES) for x in given)
    ),
    f"must be some of {', '.join(probe_features.FEATURES)}, joined by + and commas.",
)
_IMAGE_SIZE = flags.DEFINE_list("image_size", ["224"], "Sides of the crops in pixels.")
_SELF_BLENDED = flags.DEFINE_list(
    "self_blended", ["0"], "Shares of the fakes that are made out of reals."
)
_CROPS = flags.DEFINE_integer("crops", 3200, "Crops of train to draw.", 64)
_MOST_CROPS = flags.DEFINE_integer(
    "most_crops", 0, "Most measured crops of each maker and source; 0 for all.", 0
)
_LEAST_CROPS = flags.DEFINE_integer(
    "least_crops", 10, "Makers and sources of fewer crops are left out of figures.", 1
)
_TOGETHER = flags.DEFINE_list(
    "together", [], "Makers that are left out together: A|B|C,D|E."
)
_ALTERING_MAKERS = flags.DEFINE_list(
    "altering_makers",
    [],
    "Makers who alter faces rather than generate them: each row stands also with one "
    "logit for these and one for the others, of which the larger counts.",
)
_PENALTY = flags.DEFINE_float(
    "penalty", linear_probe.PENALTY, "Inverse strength of the penalty on weights.", 1e-6
)
_RESAMPLES = flags.DEFINE_integer("resamples", 200, "Resamples of the groups.", 1)
_SEED = flags.DEFINE_integer("seed", 0, "Seed of crops and intervals.")
_OUTPUT = flags.DEFINE_string("output", None, "A .json file for all figures.")

# Crops that are made out of reals, for each of --crops.
_BLENDED_CROPS = 1 / 6


def main(argv: list[str]) -> None:
    absl.logging.set_verbosity(absl.logging.ERROR)  # TFDS warns about its internals.
    sizes = _parse_numbers("image_size", _IMAGE_SIZE.value, int, 32, 1024)
    shares = _parse_numbers("self_blended", _SELF_BLENDED.value, float, 0, 1)
    folder = os.path.expanduser(_DATA_DIR.value)
    builders = [prepared.open_builder(folder, name) for name in _DATASET.value]
    for builder in builders:
        records.check_labeled(builder)
    protocols = _list_protocols()
    rows: list[dict[str, Any]] = []
    first: dict[str, linear_probe.Figures] = {}
    for network, snapshot, size, names in _list_inputs(sizes):
        script.say(f"describing crops of {size} px {network and f'for {snapshot}'}")
        model = _load(network, snapshot, size) if network else None
        needed = sorted({part for one in names for part in one.split("+")})
        train, test = _describe(builders, model, size, needed, max(shares))
        for features, share, (kinds, protocol) in itertools.product(
            names, shares, protocols.items()
        ):
            name = f"{_name(network, snapshot, features)}, {size}"
            name += f", {share:g} blended" if len(shares) > 1 or share else ""
            name += kinds
            parts = features.split("+")
            figures = {
                "stored": linear_probe.measure(train, test, parts, share, protocol),
                "altered": linear_probe.measure_folds(train, parts, share, protocol),
            }
            first = first or figures
            seen = _find_seen(snapshot) if _uses_network(features) else ()
            described = {
                kind: one.describe(first[kind], seen) for kind, one in figures.items()
            }
            rows.append({"name": name, **described})
            script.say(f"{name}: {figures['stored'].mean_least:.3f}")
    print("\n".join(linear_probe.format_table(rows)))
    if _OUTPUT.value:
        _write(_OUTPUT.value, builders, rows)


def _list_protocols() -> dict[str, linear_probe.Protocol]:
    """How to measure, by what each adds to the name of a row."""
    protocol = linear_probe.Protocol(
        least_crops=_LEAST_CROPS.value,
        families=tuple(frozenset(one.split("|")) for one in _TOGETHER.value),
        penalty=_PENALTY.value,
        num_resamples=_RESAMPLES.value,
        seed=_SEED.value,
    )
    if not _ALTERING_MAKERS.value:
        return {"": protocol}
    makers = frozenset(_ALTERING_MAKERS.value)
    two = dataclasses.replace(protocol, altering_makers=makers)
    return {"": protocol, ", two logits": two}


def _write(
    path: str, builders: list[tfds.core.DatasetBuilder], rows: list[dict[str, Any]]
) -> None:
    names = ["crops", "most_crops", "least_crops", "together", "altering_makers"]
    names += ["penalty", "seed"]
    found = {
        "split": _SPLIT.value,
        "data": [prepared.describe_dataset(builder) for builder in builders],
        "flags": {name: flags.FLAGS[name].value for name in names},
        "rows": rows,
    }
    files.write(path, f"{to_json(found)}\n".encode())


def _parse_numbers(
    flag: str, texts: list[str], kind: type, least: float, most: float
) -> list[Any]:
    """Reads the numbers of a flag.

    Raises:
        app.UsageError: One is none, or out of range.
    """
    try:
        numbers = [kind(text) for text in texts]
    except ValueError:
        numbers = []
    if not numbers or not all(least <= number <= most for number in numbers):
        raise app.UsageError(
            f"--{flag} must be numbers from {least} to {most}, got {','.join(texts)}."
        )
    return numbers


def _uses_network(features: str) -> bool:
    return bool({*features.split("+")} & {*probe_features.NETWORK_FEATURES})


def _list_inputs(sizes: list[int]) -> Iterator[tuple[str, str, int, list[str]]]:
    """Yields network, weights, size and features, those without a network once.

    Raises:
        app.UsageError: Networks lack weights.
    """
    wanted = list(dict.fromkeys(_FEATURES.value))
    by_network = list(filter(_uses_network, wanted))
    alone = [one for one in wanted if one not in by_network]
    if not by_network:
        yield from (("", "", size, alone) for size in sizes)
        return
    snapshots = _SNAPSHOT.value or []
    models = _MODEL.value * (len(snapshots) if len(_MODEL.value) == 1 else 1)
    if len(models) != len(snapshots) or not snapshots:
        raise app.UsageError(
            "--snapshot must name weights of each of --model, got "
            f"{len(snapshots)} for {len(_MODEL.value)}."
        )
    for place, size in itertools.product(range(len(snapshots)), sizes):
        features = by_network if place else wanted
        yield models[place], snapshots[place], size, features


def _name(network: str, snapshot: str, features: str) -> str:
    if not _uses_network(features):
        return features
    folder = model_directory.is_default(snapshot) or os.path.isdir(snapshot)
    name = os.path.basename(os.path.normpath(snapshot)) if folder else network
    return f"{name} {features}"


def _load(network: str, snapshot: str, size: int) -> keras.Model:
    if model_directory.is_default(snapshot):
        return model_directory.load_classifier(snapshot, image_size=size)[0]
    model = classifier.build(network, size)
    script.say(f"{snapshot}: {weights.load_snapshot(model, snapshot)}")
    return model


def _find_seen(snapshot: str) -> list[str]:
    """The makers whose fakes a run was trained on; none of weights of others."""
    if model_directory.is_default(snapshot):
        snapshot = os.path.join(model_directory.DEFAULT_WEIGHTS, "classifier")
    if not os.path.isdir(snapshot):
        return []
    origins = manifest.read(snapshot, "classifier").get("origins", {})
    return origins.get("source", {}).get(labels.NAMES[labels.FAKE], [])


def _describe(
    builders: list[tfds.core.DatasetBuilder],
    model: keras.Model | None,
    size: int,
    names: list[str],
    most_blended: float,
) -> tuple[probe_features.Table, probe_features.Table]:
    """Describes crops to fit to and crops to measure."""
    describe = probe_features.build_describe(names, model)
    draws = [_CROPS.value]
    if most_blended:
        draws.append(round(_BLENDED_CROPS * _CROPS.value))
    total = sum(draws) + sum(
        int(probe_features.choose_some(b, _SPLIT.value, _MOST_CROPS.value).sum())
        for b in builders
    )
    with console.Progress(total, script.say, noun="crop") as bar:
        drawn = [
            probe_features.describe_training(
                builders,
                describe,
                image_size=size,
                num_crops=number,
                blended=bool(place),
                seed=_SEED.value + place,
                count=bar.count,
            )
            for place, number in enumerate(draws)
        ]
        measured = probe_features.describe_split(
            builders,
            _SPLIT.value,
            describe,
            image_size=size,
            most_crops=_MOST_CROPS.value,
            count=bar.count,
        )
    return probe_features.join(drawn), measured


if __name__ == "__main__":
    script.run_main(main)
