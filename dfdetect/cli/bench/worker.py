"""Measures the cases that share one process.

    python -m dfdetect.cli.bench.worker '{"threads": 2, ...}'

Prints one line of JSON: the seconds an image, median and best, of each case; or
`error`. It is a separate process because TensorFlow's threads can be set only once.
"""

import json
import sys
import tempfile
from typing import Any

from dfdetect.export import runtime


def measure(settings: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Measures the rows of each table.

    Args:
        settings: `threads`, 0 for TensorFlow's choice; `detector`, `classifier` and
            `image_size`, see `dfdetect bench`; `rounds`; `precisions`; `batch_sizes`;
            `heads` and the `widths` of the images, of which the first is used for
            everything else, each measured with the batch size `main_batch`, as are the
            stages and, with `compare`, the peers.
    """
    runtime.set_variables()
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(settings["threads"])
    tf.config.threading.set_inter_op_parallelism_threads(settings["threads"])
    from dfdetect.cli.bench import cases
    from dfdetect.export import timing
    from dfdetect.models import classifier as classifiers
    from dfdetect.models import model_directory

    classifier = settings["classifier"]
    if classifier in classifiers.NAMES:
        loaded = cases.build_random_classifier(classifier, settings["image_size"])
    else:
        loaded = model_directory.load_classifier(classifier)
    detector = model_directory.load_detector(settings["detector"])
    bench = cases.Bench(detector, loaded, settings["widths"][0], say=_say)
    main = settings["main_batch"]
    wanted: dict[tuple, cases.Case] = {}
    for batch in settings["batch_sizes"]:
        for name, case in bench.build_models_alone(batch).items():
            wanted["alone", name, batch] = case
        for precision in settings["precisions"]:
            case = bench.build_chained(precision, batch, num_heads=1)
            wanted["chained", precision, batch, 1] = case
    for precision in settings["precisions"]:
        for heads in settings["heads"]:
            case = bench.build_chained(precision, main, num_heads=heads)
            wanted.setdefault(("chained", precision, main, heads), case)
        for width in settings["widths"][1:]:
            case = bench.build_chained(precision, main, num_heads=1, width=width)
            wanted["widths", precision, width] = case
        for name, case in bench.build_stages(precision, main).items():
            wanted["stages", precision, name] = case
    with tempfile.TemporaryDirectory() as folder:
        if settings["compare"]:
            for name, case in bench.build_peers(main, folder, _say).items():
                wanted["peers", name] = case
        _say(f"{len(wanted)} cases, {settings['rounds']} rounds")
        took = timing.time_in_turns(
            {key: call for key, (call, _) in wanted.items()},
            settings["rounds"],
            say=_say,
        )
    rows: dict[str, list[dict[str, Any]]] = {}
    for key, (_, images) in wanted.items():
        table, *rest = key
        timed = took[key]
        row = {"key": rest, "median": timed.median / images}
        rows.setdefault(table, []).append({**row, "best": timed.best / images})
    return rows


def _say(message: str) -> None:
    print(f"dfdetect bench: {message}", file=sys.stderr, flush=True)


def main() -> None:
    """Prints the rows, or `error` with what the user can fix."""
    try:
        answer: dict[str, Any] = measure(json.loads(sys.argv[1]))
    except (ValueError, OSError) as error:
        answer = {"error": str(error)}
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
