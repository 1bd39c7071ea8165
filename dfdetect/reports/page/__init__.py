"""The page of `dfdetect detect --report`: one file for many images and clips.

It opens without a network, prints, and can be sent: images, style and script are
embedded. Its content security policy lets nothing else run and nothing be fetched,
whatever the names of the files are.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from dfdetect.metrics import calibration
from dfdetect.reports.page.page import ReportPage
from dfdetect.reports.page.thumbnails import Explainer, Thumbnails

__all__ = ["ReportPage", "Thumbnails", "open_page"]


def open_page(
    path: str,
    pipeline_manifest: Mapping[str, Any],
    thresholds: calibration.Thresholds,
    *,
    command: Sequence[str],
    num_files: int,
    explainer: Explainer | None = None,
    index_manifest: Mapping[str, Any] | None = None,
    index: Any = None,
    given_crops: bool = False,
) -> ReportPage:
    """Opens the report of a run, to be used as a context.

    Args:
        path: File of the page, see `page.ReportPage`.
        pipeline_manifest: The graph's manifest, of kind "pipeline".
        thresholds: Thresholds of this run; see `calibration.decide_verdict`.
        command: The arguments of `dfdetect`.
        num_files: Expected number of files.
        explainer: Makes heat maps of heads; None for none.
        index_manifest: Manifest of the index that heads are looked up in, or None.
        index: That index; its entries have thumbnails.
        given_crops: Whether each image is one head, see `given_crops`.
    """
    # Imported here, as it is slow and only needed for a report.
    from dfdetect.reports.page import about

    thumbnails = None
    if index is not None:
        thumbnails = {entry.id: entry.thumbnail for entry in index.snapshot()[1]}
    return ReportPage(
        path,
        thresholds,
        crop_margin=None
        if given_crops
        else pipeline_manifest["classifier"]["crop_margin"],
        about=about.render(
            pipeline_manifest,
            thresholds,
            command=command,
            has_heat_maps=explainer is not None,
            index_manifest=index_manifest,
            given_crops=given_crops,
        ),
        num_files=num_files,
        thumbnails=thumbnails,
        explainer=explainer,
    )
