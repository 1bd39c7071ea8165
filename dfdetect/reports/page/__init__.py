"""The page of `dfdetect detect --report`: one file for many images and clips.

It opens without a network, prints, and may be sent: images, style and script are
inside. Its own policy lets nothing else run and nothing be fetched, whatever the names
of the files are.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from dfdetect.metrics import calibration
from dfdetect.reports.page.page import Report
from dfdetect.reports.page.thumbnails import Explainer, Thumbnails

__all__ = ["Report", "Thumbnails", "opened"]


def opened(
    path: str,
    described: Mapping[str, Any],
    thresholds: calibration.Thresholds,
    command: Sequence[str],
    num_files: int,
    explainer: Explainer | None = None,
    index_manifest: Mapping[str, Any] | None = None,
    index: Any = None,
    given_crops: bool = False,
) -> Report:
    """The report of a run, to be used as a context.

    Args:
        path: Of the page, see `page.Report`.
        described: The graph's manifest, of kind "pipeline".
        thresholds: Those of this run; see `calibration.decide_verdict`.
        command: The arguments of `dfdetect`.
        num_files: How many will come.
        explainer: What makes heat maps of heads, or None for none.
        index_manifest: Of the index that heads are looked up in, or None.
        index: That index, its entries with their thumbnails.
        given_crops: Whether each image is one head, see `given_crops`.
    """
    # Here, as whoever wants no report shall not wait for it.
    from dfdetect.reports.page import about

    thumbnails = None
    if index is not None:
        thumbnails = {entry.id: entry.thumbnail for entry in index.snapshot()[1]}
    told = about.html(
        described,
        thresholds,
        command,
        explainer is not None,
        index_manifest,
        given_crops,
    )
    margin = None if given_crops else described["classifier"]["crop_margin"]
    return Report(path, thresholds, margin, told, num_files, thumbnails, explainer)
