"""Simple methods as baselines: a network that does no better has learned little.

`sift_svm` and `sift_forest` count SIFT words of a vocabulary of 256, weighed by tf-idf
to unit length; `spectrum_logistic` and `spectrum_svm` judge by the spectrum, see
`hand_crafted_features`. Vocabulary, weights and models are made of the training split
alone.

Source: Csurka et al., Visual Categorization with Bags of Keypoints, ECCV workshop 2004.
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import cv2
import numpy as np
import sklearn.cluster
import sklearn.ensemble
import sklearn.feature_extraction.text
import sklearn.linear_model
import sklearn.metrics
import sklearn.pipeline
import sklearn.preprocessing
import sklearn.svm
import tensorflow_datasets as tfds
import threadpoolctl

from dfdetect.evaluation import hand_crafted_features
from dfdetect.metrics import classification

NUM_WORDS = 256

_POINTS_FOR_WORDS = 50  # of each image
_NUM_TREES = 500


@dataclasses.dataclass(frozen=True)
class Method:
    """One baseline.

    Attributes:
        feature: One of `hand_crafted_features.FEATURES`.
        settings: Settings that validation chooses from; the first without validation.
        build: Builds a model with `fit` and `predict` from a setting and a seed.
    """

    feature: str
    settings: tuple[dict[str, Any], ...]
    build: Callable[[dict[str, Any], int], sklearn.pipeline.Pipeline]


def measure_baselines(
    train: hand_crafted_features.FeatureTable,
    validation: hand_crafted_features.FeatureTable | None,
    test: hand_crafted_features.FeatureTable,
    names: Sequence[str],
    seed: int = 0,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Trains baselines and measures them.

    Args:
        train: Split to train on, with the features that `names` need.
        validation: Split whose AUC chooses the settings; None for the usual ones.
        test: Split to measure on.
        names: Methods of `METHODS` to measure.
        seed: Seed of vocabulary, forest and resampling.
        say: Prints which method is next, as it may take minutes.

    Returns:
        For JSON: `num_train`, `num_test`, `majority_share` (of the test), and in
        `methods` for each name `auc` and `balanced_accuracy`, their 95 % intervals by
        group (`auc_interval`, `balanced_accuracy_interval`), `accuracy`, and its
        `setting`.

    Raises:
        ValueError: SIFT finds nothing in any image that is trained on.
    """
    measured = {}
    surveys = [train, *([validation] if validation else []), test]
    # On a busy machine OpenMP's threads wait for each other for minutes.
    with threadpoolctl.threadpool_limits(1, "openmp"):
        values: dict[str, list[np.ndarray]] = {}
        for name in names:
            say(f"training {name}")
            feature = METHODS[name].feature
            if feature not in values:
                values[feature] = _vectors(feature, surveys, seed)
            measured[name] = _measure_one(METHODS[name], values[feature], surveys, seed)
    share = float(np.mean(test.labels))
    return {
        "num_train": len(train.labels),
        "num_test": len(test.labels),
        "majority_share": max(share, 1 - share),
        "methods": measured,
    }


def format_table(measured: dict[str, Any]) -> list[str]:
    """Formats the majority share and each method as lines of Markdown."""
    lines = [
        "| method | accuracy | balanced accuracy | 95 % | AUC | 95 % |",
        "|---|---|---|---|---|---|",
        f"| majority share | {measured['majority_share']:.3f} | 0.500 | | 0.500 | |",
    ]
    for name, figures in measured["methods"].items():
        balanced, auc = (
            f"{figures[key]:.3f} | {low:.3f} to {high:.3f}"
            for key in ("balanced_accuracy", "auc")
            for low, high in [figures[f"{key}_interval"]]
        )
        lines.append(f"| {name} | {figures['accuracy']:.3f} | {balanced} | {auc} |")
    return lines


def build_vocabulary(
    descriptors: Iterable[np.ndarray], seed: int = 0
) -> sklearn.cluster.MiniBatchKMeans:
    """Clusters some SIFT descriptors of each image into at most `NUM_WORDS` words.

    Raises:
        ValueError: No image has a descriptor.
    """
    generator = np.random.default_rng(seed)
    drawn = np.concatenate(
        [generator.permutation(found)[:_POINTS_FOR_WORDS] for found in descriptors]
    )
    if not len(drawn):
        raise ValueError("SIFT finds nothing in any image that is trained on.")
    distinct = len(np.unique(drawn, axis=0))
    words = sklearn.cluster.MiniBatchKMeans(
        min(NUM_WORDS, distinct), batch_size=4096, n_init=3, random_state=seed
    )
    return words.fit(drawn.astype(np.float32))


def count_words(
    words: sklearn.cluster.MiniBatchKMeans, descriptors: Sequence[np.ndarray]
) -> np.ndarray:
    """Counts the words of each image, `[N, num_words]`."""
    counts = np.zeros((len(descriptors), words.n_clusters), int)
    for place, found in enumerate(descriptors):
        if len(found):
            named = words.predict(found.astype(np.float32))
            counts[place] = np.bincount(named, minlength=words.n_clusters)
    return counts


def build_harris_description(
    builder: tfds.core.DatasetBuilder,
    seed: int = 0,
    count: Callable[[str], None] = lambda split: None,
) -> Callable[[Sequence[np.ndarray]], np.ndarray]:
    """Builds a description for `retrieval_evaluation`: tf-idf of words of Harris
    corners.

    Args:
        builder: A prepared data set of labeled images; of its split `train` are the
            vocabulary and the weights of the words.
        seed: Seed of the vocabulary.
        count: See `hand_crafted_features.build_feature_table`.

    Raises:
        ValueError: It has no such split, or no image in it has a corner.
    """
    survey = hand_crafted_features.build_feature_table(
        builder, "train", ["harris"], count
    )
    words = build_vocabulary(survey.features["harris"], seed)
    weigh = sklearn.feature_extraction.text.TfidfTransformer()
    weigh.fit(count_words(words, survey.features["harris"]))

    def describe(images: Sequence[np.ndarray]) -> np.ndarray:
        grays = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in images]
        counts = count_words(
            words, [hand_crafted_features.describe_harris(gray) for gray in grays]
        )
        return weigh.transform(counts).toarray().astype(np.float32)

    return describe


def _vectors(
    feature: str, surveys: Sequence[hand_crafted_features.FeatureTable], seed: int
) -> list[np.ndarray]:
    """`[N, D]` for each survey, the first of which is trained on."""
    found = [survey.features[feature] for survey in surveys]
    if feature != "sift":
        return [np.stack(vectors) for vectors in found]
    words = build_vocabulary(found[0], seed)
    return [count_words(words, descriptors) for descriptors in found]


def _measure_one(
    method: Method,
    values: Sequence[np.ndarray],
    surveys: Sequence[hand_crafted_features.FeatureTable],
    seed: int,
) -> dict[str, Any]:
    settings = method.settings if len(surveys) > 2 else method.settings[:1]
    models = [
        method.build(setting, seed).fit(values[0], surveys[0].labels)
        for setting in settings
    ]
    best = 0
    if len(models) > 1:
        areas = [
            sklearn.metrics.roc_auc_score(surveys[1].labels, _scores(model, values[1]))
            for model in models
        ]
        best = int(np.argmax(areas))
    test = surveys[-1]
    called = models[best].predict(values[-1])
    scores = _scores(models[best], values[-1])
    return {
        "accuracy": float(np.mean(called == test.labels)),
        **classification.measure_separation(
            test.labels, scores, called, test.groups, seed=seed
        ),
        "setting": settings[best],
    }


def _scores(model: sklearn.pipeline.Pipeline, values: np.ndarray) -> np.ndarray:
    if hasattr(model, "decision_function"):
        return model.decision_function(values)
    return model.predict_proba(values)[:, 1]


def _of_words(last: Any) -> sklearn.pipeline.Pipeline:
    weigh = sklearn.feature_extraction.text.TfidfTransformer()
    return sklearn.pipeline.make_pipeline(weigh, last)


def _of_spectra(last: Any) -> sklearn.pipeline.Pipeline:
    scale = sklearn.preprocessing.StandardScaler()
    return sklearn.pipeline.make_pipeline(scale, last)


def _svm(setting: dict[str, Any], seed: int) -> sklearn.svm.SVC:
    return sklearn.svm.SVC(**setting, random_state=seed)


def _forest(setting: dict[str, Any], seed: int) -> Any:
    return sklearn.ensemble.RandomForestClassifier(
        _NUM_TREES, **setting, random_state=seed
    )


def _logistic(setting: dict[str, Any], seed: int) -> Any:
    return sklearn.linear_model.LogisticRegression(
        **setting, max_iter=2000, random_state=seed
    )


_PENALTIES = tuple({"C": penalty} for penalty in (1.0, 0.01, 0.1, 10.0, 100.0))
_LEAVES = tuple({"min_samples_leaf": least} for least in (1, 5, 20))

METHODS = {
    "sift_svm": Method("sift", _PENALTIES, lambda s, seed: _of_words(_svm(s, seed))),
    "sift_forest": Method("sift", _LEAVES, lambda s, seed: _of_words(_forest(s, seed))),
    "spectrum_logistic": Method(
        "spectrum", _PENALTIES, lambda s, seed: _of_spectra(_logistic(s, seed))
    ),
    "spectrum_svm": Method(
        "spectrum", _PENALTIES, lambda s, seed: _of_spectra(_svm(s, seed))
    ),
}
