"""Measures verdicts on whole images, and how much accuracy the detector costs.

An image goes through the whole graph, as `dfdetect detect` sends it. Beside that
stands what the same graph's classifier says of the heads that the data set gives, as
`classify_crops` judges them. What is lost between the two is the detector's fault.

An image without a judged head has no answer. It counts as a guess, see
`metrics.paired`, so that a head that is missed is not hidden; `answered` has the
figures of the images that have an answer.
"""

import dataclasses
import datetime
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dfdetect import labels as label_names
from dfdetect.evaluation import chain_answers
from dfdetect.evaluation.chain_answers import Answers
from dfdetect.evaluation.evaluation_set import EvaluatedSet
from dfdetect.media import image_status
from dfdetect.metrics import bootstrap, calibration, paired
from dfdetect.pipeline import interfaces

SIZE_NAMES = ("<1/16", "1/16-1/8", "1/8-1/4", "1/4-1/2", "1/2-1", "none found")
VERDICTS = (
    label_names.NAMES[label_names.FAKE],
    calibration.UNCERTAIN,
    label_names.NAMES[label_names.REAL],
    *(
        name
        for name in image_status.STATUS_NAMES
        if name != image_status.STATUS_NAMES[image_status.OK]
    ),
)

_SIZE_EDGES = (1 / 16, 1 / 8, 1 / 4, 1 / 2)
_MOST_SOURCES = 40  # A field with more values names no kinds.

_WARN_ABOVE = 0.05  # Share of images without an answer, or with several heads for one.
_WARN_GAP = 0.01  # In AUC.


@dataclasses.dataclass(frozen=True)
class ChainResult:
    """A graph on one data set, or on several together.

    Attributes:
        title: Data set, split and conditions in a few words.
        figures: Figures of `measure`, and where they come from.
        answers: Answers that the figures are computed from.
        thresholds: Thresholds of the graph's verdicts.
    """

    title: str
    figures: dict[str, Any]
    answers: Answers
    thresholds: calibration.Thresholds


def evaluate_graph(
    name: str,
    graph: interfaces.Pipeline,
    sets: Sequence[EvaluatedSet],
    say: Callable[[str], None],
    batch_size: int = 16,
) -> tuple[ChainResult, list[ChainResult]]:
    """Measures a graph on sets.

    Args:
        name: Name of the graph in the figures.
        graph: See `graph_cache.load`.
        sets: At least one.
        say: Prints a line.
        batch_size: Images at once.

    Returns:
        The result of all images together, and that of each set; of one set, the same.
        The figures of a set are `task`, `model`, `split`, what `EvaluatedSet.describe`
        gives, `warnings`, `date`, `thresholds`, and those of `measure`. Those of
        several together lack what is said of one set's records; `datasets` names the
        sets, and `results` are their figures.
    """
    results = [_evaluate_set(name, graph, one, say, batch_size) for one in sets]
    return (_pool(results) if len(results) > 1 else results[0]), results


def measure(
    answers: Answers,
    thresholds: calibration.Thresholds,
    num_resamples: int = bootstrap.NUM_RESAMPLES,
) -> dict[str, Any]:
    """Measures some images, over all and by kind, with intervals by group.

    Returns:
        `num_images`, `num_real`, `num_fake`, `num_groups`.

        `heads`: of all images `counts` with `none`, `one` and `several` found; and of
        the `num_one_head` images that hold one head by the data set, the shares `one`,
        `none` and `several`, each again with `_interval`; NaN where there are none.

        `verdicts`: for `chain` and `crops`, and for each label, how many images have
        each of `VERDICTS`.

        `chain`, `crops` and `gap`, the first less the second, see
        `paired.compare_methods`; `answered`: `num_images` with an answer, and the same
        three of those.

        `strata`: `dataset` and `source` where there are several, `head_size` by the
        share of the image's longer side that the deciding head has, and
        `given_head_size` where the data set has boxes. For each value the above, but
        `strata`, and `against`: "all reals" where fakes of one source alone are told
        from all reals of the same data sets, else "its own".
    """
    figures = _measure_some(answers, answers, thresholds, num_resamples)
    strata = {
        name: {
            value: _measure_stratum(answers, values == value, name, *settings)
            for value in _values(name, values)
        }
        for settings in [(thresholds, num_resamples)]
        for name, values in _columns(answers).items()
    }
    return {**figures, "strata": strata}


def find_warnings(measured: dict[str, Any]) -> list[str]:
    """Lists what a reader of the figures of `measure` must know."""
    found = []
    total = measured["num_images"]
    unanswered = total - measured["answered"]["num_images"]
    if unanswered > _WARN_ABOVE * total:
        found.append(
            f"NO ANSWER: {unanswered:,} of {total:,} images ({unanswered / total:.1%}) "
            "have no judged head; each counts as a guess."
        )
    several = measured["heads"]["several"]
    if several > _WARN_ABOVE:
        found.append(
            f"SEVERAL HEADS: in {several:.1%} of the images that hold one head more "
            "are found; the most suspicious decides."
        )
    unread = sum(
        counts[image_status.STATUS_NAMES[status]]
        for counts in measured["verdicts"]["chain"].values()
        for status in (image_status.UNREADABLE, image_status.TOO_LARGE)
    )
    if unread:
        found.append(f"UNREADABLE: {unread:,} of {total:,} images cannot be read.")
    gap, ends = measured["gap"]["auc"], measured["gap"]["auc_interval"]
    if gap < -_WARN_GAP and ends[1] < 0:
        found.append(
            f"GAP: the AUC of whole images is {-gap:.3f} [{-ends[1]:.3f}, "
            f"{-ends[0]:.3f}] below that on the given heads of the same images: that "
            "is lost in finding heads, not in judging them."
        )
    return found


def _evaluate_set(
    name: str,
    graph: interfaces.Pipeline,
    judged: EvaluatedSet,
    say: Callable[[str], None],
    batch_size: int,
) -> ChainResult:
    thresholds = graph.manifest["classifier"]["thresholds"]
    answers = chain_answers.judge_set(graph, judged, say, batch_size)
    measured = measure(answers, thresholds, judged.num_resamples)
    warnings = judged.warnings({"data": _trained_on(graph)}) + find_warnings(measured)
    figures = {
        **_about(name, thresholds),
        "split": judged.split,
        **judged.describe(),
        "warnings": warnings,
        **measured,
    }
    conditions = [f"where {condition}" for condition in judged.where]
    title = ", ".join([str(answers.datasets[0]), judged.split, *conditions])
    return ChainResult(title, figures, answers, thresholds)


def _pool(results: Sequence[ChainResult]) -> ChainResult:
    """The result of the images of several sets together."""
    first = results[0]
    answers = chain_answers.concatenate([result.answers for result in results])
    num_resamples = first.figures["num_resamples"]
    measured = measure(answers, first.thresholds, num_resamples)
    of_sets = [f"{r.title}: {text}" for r in results for text in r.figures["warnings"]]
    figures = {
        **_about(first.figures["model"], first.thresholds),
        "split": first.figures["split"],
        "datasets": [result.title for result in results],
        "num_resamples": num_resamples,
        "leaky_split": any(result.figures["leaky_split"] for result in results),
        "warnings": [*of_sets, *find_warnings(measured)],
        **measured,
        "results": [result.figures for result in results],
    }
    return ChainResult("all sets together", figures, answers, first.thresholds)


def _measure_stratum(
    answers: Answers,
    members: np.ndarray,
    name: str,
    thresholds: calibration.Thresholds,
    num_resamples: int,
) -> dict[str, Any]:
    is_real = answers.labels == label_names.REAL
    borrows = name == "source" and not is_real[members].any()
    compared = members
    if borrows:
        own = np.isin(answers.datasets, answers.datasets[members])
        compared = members | (is_real & own)
    return {
        "against": "all reals" if borrows else "its own",
        **_measure_some(
            answers.take(members), answers.take(compared), thresholds, num_resamples
        ),
    }


def _measure_some(
    answers: Answers,
    compared: Answers,
    thresholds: calibration.Thresholds,
    num_resamples: int,
) -> dict[str, Any]:
    """Measures some images without strata; AUCs are computed on `compared`."""
    with_answer = compared.take(compared.answered)
    return {
        "num_images": len(answers.labels),
        "num_real": int((answers.labels == label_names.REAL).sum()),
        "num_fake": int((answers.labels == label_names.FAKE).sum()),
        "num_groups": len(np.unique(answers.groups)),
        "heads": _measure_heads(answers, num_resamples),
        "verdicts": {
            "chain": _count_verdicts(answers, answers.verdicts(thresholds)),
            "crops": _count_verdicts(answers, answers.crop_verdicts(thresholds)),
        },
        **_compare(compared, num_resamples),
        "answered": {
            "num_images": int(answers.answered.sum()),
            **_compare(with_answer, num_resamples),
        },
    }


def _compare(answers: Answers, num_resamples: int) -> dict[str, dict[str, Any]]:
    chain, crops, gap = paired.compare_methods(
        answers.labels,
        answers.probabilities,
        answers.crop_probabilities,
        answers.groups,
        num_resamples=num_resamples,
    )
    return {"chain": chain, "crops": crops, "gap": gap}


def _measure_heads(answers: Answers, num_resamples: int) -> dict[str, Any]:
    found = {
        "none": answers.num_heads == 0,
        "one": answers.num_heads == 1,
        "several": answers.num_heads > 1,
    }
    hold_one = answers.given_counts == 1
    figures: dict[str, Any] = {
        "counts": {name: int(flags.sum()) for name, flags in found.items()},
        "num_one_head": int(hold_one.sum()),
    }
    for name, flags in found.items():
        chosen = flags[hold_one].astype(np.int64)
        ends = bootstrap.compute_intervals(
            chosen,
            chosen,
            answers.groups[hold_one],
            ["prevalence"],
            num_resamples=num_resamples,
        )
        figures[name] = float(chosen.mean()) if len(chosen) else np.nan
        figures[f"{name}_interval"] = list(ends["prevalence"])
    return figures


def _count_verdicts(
    answers: Answers, verdicts: np.ndarray
) -> dict[str, dict[str, int]]:
    return {
        name: {v: int((verdicts[answers.labels == label] == v).sum()) for v in VERDICTS}
        for label, name in enumerate(label_names.NAMES)
    }


def _columns(answers: Answers) -> dict[str, np.ndarray]:
    """The values `[N]` of what images are told apart by."""
    columns = {"dataset": answers.datasets, "source": answers.sources}
    columns = {
        name: values
        for name, values in columns.items()
        if 1 < len(np.unique(values)) <= _MOST_SOURCES
    }
    if np.array_equal(answers.sources, answers.datasets):
        columns.pop("source", None)  # It would tell the same twice.
    columns["head_size"] = _size_names(answers.head_shares)
    if not np.isnan(answers.given_shares).all():
        columns["given_head_size"] = _size_names(answers.given_shares)
    return columns


def _values(name: str, values: np.ndarray) -> list[str]:
    found = np.unique(values).tolist()
    return sorted(found, key=SIZE_NAMES.index) if name.endswith("size") else found


def _size_names(shares: np.ndarray) -> np.ndarray:
    places = np.searchsorted(_SIZE_EDGES, np.nan_to_num(shares), "right")
    return np.array(SIZE_NAMES)[np.where(np.isnan(shares), -1, places)]


def _about(name: str, thresholds: calibration.Thresholds) -> dict[str, Any]:
    return {
        "task": "chain",
        "model": name,
        "date": datetime.date.today().isoformat(),
        "thresholds": {key: thresholds[key] for key in ("real_below", "fake_from")},
    }


def _trained_on(graph: interfaces.Pipeline) -> list[dict[str, Any]]:
    """The data sets that its two models were trained on, by their manifests."""
    found: list[dict[str, Any]] = []
    for part in ("detector", "classifier"):
        described = graph.manifest[part].get("data", [])
        found += [described] if isinstance(described, dict) else described
    return found
