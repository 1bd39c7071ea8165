"""Measures several classifiers, and detectors of others, on several sets each."""

from collections.abc import Callable, Sequence
from typing import Any

from dfdetect.data import classifier_input, prepared
from dfdetect.evaluation import (
    classifiers,
    evaluation_set,
    maker_evaluation,
    peer_detectors,
    robustness,
)
from dfdetect.models import model_directory

Named = tuple[str, model_directory.Loaded]


def load_each(folders: Sequence[str], steps: Sequence[int]) -> list[Named]:
    """Loads classifiers with their names, those of the first folder first.

    Args:
        folders: Model folders, see `model_directory.load_classifier`.
        steps: Kept steps to load of each folder; empty for its best weights.
    """
    loaded = []
    for folder in folders:
        for step in steps or (None,):
            name = folder if step is None else f"{folder} step {step}"
            model = model_directory.load_classifier(folder, step=step)
            loaded.append((name, model))
    return loaded


def measure_peers(
    peers: Sequence[peer_detectors.Peer],
    sets: Sequence[evaluation_set.EvaluatedSet],
    guess_missing: bool = False,
) -> list[classifiers.Result]:
    """Measures detectors of others on each set.

    To be called before `measure_each`: what is wrong with a table is found here.

    Args:
        peers: Detectors of others.
        sets: The sets.
        guess_missing: See `peer_detectors.fill_gaps`.

    Raises:
        ValueError: See `classifiers.measure_peer`.
    """
    return [
        classifiers.measure_peer(peer, judged, guess_missing)
        for peer in peers
        for judged in sets
    ]


def measure_each(
    models: Sequence[Named],
    sets: Sequence[evaluation_set.EvaluatedSet],
    *,
    say: Callable[[str], None],
    batch_size: int = 16,
    precision: str | None = None,
    with_robustness: bool = False,
    robustness_crops: int | None = None,
) -> list[classifiers.Result]:
    """Measures each model on each set.

    Args:
        models: Classifiers with their names, see `load_each`.
        sets: The sets.
        say: Prints a line.
        batch_size: Images at once.
        precision: See `classifiers.build_logits_function`.
        with_robustness: Whether to measure classifiers on altered images, too. Of a
            set for which that cannot be done, `robustness` has the `reason`.
        robustness_crops: Most crops to alter; all by default.
    """
    reasons = {}
    if with_robustness:
        reasons = _find_unaltered(sets, robustness_crops, say)
    results = [
        classifiers.measure_classifier(
            name,
            model,
            judged=judged,
            say=say,
            batch_size=batch_size,
            precision=precision,
        )
        for name, model in models
        for judged in sets
    ]
    if not with_robustness:
        return results
    pairs = [(model, place) for _, model in models for place in range(len(sets))]
    for result, (model, place) in zip(results, pairs, strict=True):
        judged = sets[place]
        if place in reasons:
            result.figures["robustness"] = {"reason": reasons[place]}
            continue
        result.figures["robustness"] = robustness.measure_robustness(
            classifiers.build_logits_function(model[0]),
            model[1],
            images=classifier_input.read_encoded_files(
                judged.builder, judged.split, judged.wanted, model[1]["crop_margin"]
            ),
            truths=judged.survey.truths,
            groups=judged.survey.groups,
            batch_size=batch_size,
            max_crops=robustness_crops,
            say=say,
        )
    return results


def _find_unaltered(
    sets: Sequence[evaluation_set.EvaluatedSet],
    max_crops: int | None,
    say: Callable[[str], None],
) -> dict[int, str]:
    """Finds and says why there are no figures of altered crops, by place of the set."""
    reasons = {}
    for place, judged in enumerate(sets):
        survey = judged.survey
        try:
            robustness.draw_groups(survey.truths, survey.groups, max_crops)
        except ValueError as error:
            reasons[place] = str(error)
            name = prepared.name_dataset(judged.builder)
            say(f"WARNING: no robustness on {name} {judged.split}: {error}")
    return reasons


def measure_makers(
    models: Sequence[Named],
    peers: Sequence[peer_detectors.Peer],
    sets: Sequence[evaluation_set.EvaluatedSet],
    results: Sequence[classifiers.Result],
    *,
    leave_out: str | None,
    say: Callable[[str], None],
    num_resamples: int,
) -> dict[str, Any]:
    """Measures all models by makers of fakes and sources of reals of all sets.

    Args:
        models: See `measure_each`.
        peers: See `measure_peers`.
        sets: See `measure_each`.
        results: Those of `measure_each`, then those of `measure_peers`.
        leave_out: See `maker_evaluation.measure_makers`.
        say: Prints a line.
        num_resamples: Resamples of the groups, for intervals.

    Returns:
        See `maker_evaluation.measure_makers`.
    """
    manifests = [described for _, (_, described) in models]
    manifests += [peer.manifest for peer in peers]
    return maker_evaluation.measure_makers(
        manifests,
        sets,
        results=results,
        leave_out=leave_out,
        say=say,
        num_resamples=num_resamples,
    )


def join_figures(
    results: Sequence[classifiers.Result],
    sets: Sequence[evaluation_set.EvaluatedSet],
    by_makers: dict[str, Any],
) -> dict[str, Any]:
    """Joins the figures for `metrics.json`: of one result, or `results` of several."""
    if len(results) == 1:
        return {**results[0].figures, **by_makers}
    return {
        "task": "classify",
        "leaky_split": any(judged.leaks for judged in sets),
        "results": [result.figures for result in results],
        **by_makers,
    }
