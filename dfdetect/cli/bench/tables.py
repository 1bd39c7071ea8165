"""Formats the figures of the benchmark as tables in Markdown."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from dfdetect.export import timing

Rows = Mapping[str, Sequence[Mapping[str, Any]]]


def format_graph(rows: Rows, main_batch: int) -> Iterator[str]:
    """Formats the measurements of one process of `worker`.

    Args:
        rows: Measured rows by table.
        main_batch: Batch size of stages, sizes, heads and peers.
    """
    yield from format_table(
        ["models alone, Keras tf.function", "batch", "ms an image", "at best"],
        ([*row["key"], *_format_milliseconds(row)] for row in rows["alone"]),
    )
    yield from _format_chained(rows)
    yield from _format_recommendation(rows, main_batch)
    if "widths" in rows:
        yield from format_table(
            ["images of one head", f"pixels wide, batch {main_batch}"]
            + ["ms an image", "at best"],
            ([*row["key"], *_format_milliseconds(row)] for row in rows["widths"]),
        )
    yield from _format_stages(rows, main_batch)
    if "peers" in rows:
        yield from _format_peers(rows, main_batch)


def _format_chained(rows: Rows) -> Iterator[str]:
    alone: dict[int, float] = {}
    for row in rows["alone"]:
        _, batch = row["key"]
        alone[batch] = alone.get(batch, 0) + row["median"]
    yield from format_table(
        ["bytes to verdicts", "batch", "heads", "ms an image", "at best"]
        + ["images/s", "times both models alone"],
        (
            [*row["key"], *_format_milliseconds(row), f"{1 / row['median']:.1f}"]
            # The models alone have one head an image.
            + [_format_ratio(row["median"], alone.get(batch) if heads == 1 else None)]
            for row in rows["chained"]
            for _, batch, heads in [row["key"]]
        ),
    )


def _format_recommendation(rows: Rows, main_batch: int) -> Iterator[str]:
    """Says which precision to export for this processor, if both were measured."""
    seconds = {
        row["key"][0]: row["median"]
        for row in rows["chained"]
        if row["key"][1:] == [main_batch, 1]
    }
    if len(seconds) > 1:
        lowered, plain = seconds["bfloat16"], seconds["float32"]
        faster = "bfloat16" if timing.is_clearly_faster(lowered, plain) else "float32"
        yield (
            f"Recommended: `--precision={faster}`, as bfloat16 takes "
            f"{lowered / plain:.2f} times float32 here at batch {main_batch}."
        )
        yield ""


def _format_stages(rows: Rows, main_batch: int) -> Iterator[str]:
    sums: dict[str, float] = {}
    for row in rows["stages"]:
        precision, _ = row["key"]
        sums[precision] = sums.get(precision, 0) + row["median"]
    yield from format_table(
        ["stage by itself", f"ms an image, batch {main_batch}", "at best", "share"],
        (
            [f"{name}, {precision}", *_format_milliseconds(row)]
            + [f"{row['median'] / sums[precision]:.0%}"]
            for row in rows["stages"]
            for precision, name in [row["key"]]
        ),
    )


def _format_peers(rows: Rows, main_batch: int) -> Iterator[str]:
    ours = [row for row in rows["chained"] if row["key"][1:] == [main_batch, 1]]
    columns = [f"times dfdetect {row['key'][0]}" for row in ours]
    yield from format_table(
        [f"instead, batch {main_batch}", "ms an image", "at best", *columns],
        (
            [*row["key"], *_format_milliseconds(row)]
            + [_format_ratio(row["median"], one["median"]) for one in ours]
            for row in rows["peers"]
        ),
    )


def format_processes(
    start: Mapping[str, float], runs: Mapping[int, Mapping[str, float]]
) -> Iterator[str]:
    """Formats the measurements of whole processes.

    Args:
        start: See `processes.time_cold_start`.
        runs: Results of `processes.measure_detect` by batch size.
    """
    base = start["import tensorflow"]
    yield from format_table(
        ["to the first line", "seconds", "times import tensorflow"],
        [
            ["`python -c 'import tensorflow'`", f"{base:.1f}", "1.00"],
            ["`dfdetect detect IMAGE`", f"{start['dfdetect detect']:.1f}"]
            + [f"{start['ratio']:.2f}"],
        ],
    )
    yield from format_table(
        ["`dfdetect detect FOLDER`, batch", "images", "heads", "seconds"]
        + ["images/s after the first line", "peak memory, MiB"],
        (
            [batch, run["images"], run["heads"], f"{run['seconds']:.1f}"]
            # Lines come in batches; the first one includes the start.
            + [f"{(run['images'] - batch) / (run['seconds'] - run['first']):.1f}"]
            + [f"{run['peak']:.0f}"]
            for batch, run in runs.items()
        ),
    )


def format_table(heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> Iterator[str]:
    """Formats the lines of one table, followed by an empty one."""
    yield f"| {' | '.join(heads)} |"
    yield f"|{'---|' * len(heads)}"
    for row in rows:
        yield f"| {' | '.join(map(str, row))} |"
    yield ""


def _format_milliseconds(row: Mapping[str, Any]) -> list[str]:
    return [f"{1000 * row[name]:.1f}" for name in ("median", "best")]


def _format_ratio(one: float, base: float | None) -> str:
    return f"{one / base:.2f}" if base else ""
