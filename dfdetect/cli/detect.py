"""The command `dfdetect detect`; imports nothing heavy before it runs."""

import argparse
import contextlib
import os
import pathlib
from typing import TYPE_CHECKING, Any

import dfdetect
from dfdetect import console, files
from dfdetect.cli import detect_arguments, inputs
from dfdetect.cli.parser import Commands, Parser, add_verbose
from dfdetect.export import runtime
from dfdetect.media import source_files

if TYPE_CHECKING:
    from dfdetect.pipeline import interfaces


def add_arguments(commands: Commands) -> Parser:
    """Adds the command to those of `dfdetect` and returns its parser."""
    parser = commands.add_parser(
        "detect",
        allow_abbrev=False,
        help="find heads in images and clips and judge them",
        description="Finds heads in images and clips and says how likely each is a "
        "deepfake. Prints one line of JSON for each file.",
        epilog="Exit code: 0 every file was read, 3 some were not, or something about "
        "them could not be written, 2 usage error, 1 the command failed.",
    )
    parser.set_defaults(run=run_command)
    detect_arguments.add_image_arguments(parser)
    detect_arguments.add_clip_arguments(parser)
    detect_arguments.add_run_arguments(parser)
    add_verbose(parser)
    return parser


def run_command(arguments: argparse.Namespace, parser: Parser) -> int:
    """Runs the command; returns its exit code."""
    sources, passed_over = _check(arguments, parser)
    if not sources and not arguments.camera:
        # Another shard has them; there is nothing to load a model for.
        detect_arguments.say_shard_is_empty(arguments)
        return 0
    index = index_manifest = None
    if arguments.index is not None:
        index, index_manifest = inputs.open_index(
            arguments.index, parser, thumbnails=bool(arguments.report)
        )

    runtime.use_single_malloc_arena()
    model = _load_model(arguments, parser)
    from dfdetect.cli import camera
    from dfdetect.media import video
    from dfdetect.metrics import calibration
    from dfdetect.pipeline import clips
    from dfdetect.retrieval import lookup

    look_up = None
    if index is not None and index_manifest is not None:
        try:
            look_up = lookup.Lookup(index, index_manifest, model, arguments.crops)
        except ValueError as error:
            parser.error(f"--index: {error}")
    thresholds = model.manifest["classifier"]["thresholds"]
    if arguments.threshold is not None:
        thresholds = calibration.single_threshold(arguments.threshold)
    judge_clip = clips.ClipJudge(
        model,
        thresholds,
        sampling=video.Sampling(arguments.frames, arguments.every),
        aggregate=arguments.aggregate,
        batch_size=1 if arguments.camera else arguments.batch_size,
        lookup=look_up,
    )
    if arguments.camera:
        camera.judge_camera(
            judge_clip, arguments.camera, thresholds, every=arguments.every
        )
        return 0
    explainer = _build_explainer(arguments, model)
    page: contextlib.AbstractContextManager = contextlib.nullcontext()
    if arguments.report:
        from dfdetect.reports import page as report_page

        page = report_page.open_page(
            arguments.report,
            model.manifest,
            thresholds,
            command=arguments.command_line,
            num_files=len(sources),
            explainer=explainer,
            index_manifest=index_manifest,
            index=index,
            given_crops=arguments.crops,
        )
    return _judge_sources(
        arguments,
        parser,
        model=model,
        thresholds=thresholds,
        sources=sources,
        passed_over=passed_over,
        judge_clip=judge_clip,
        explainer=explainer,
        look_up=look_up,
        page=page,
    )


def _check(
    arguments: argparse.Namespace, parser: Parser
) -> tuple[list[source_files.Source], str]:
    """Refuses wrong arguments before the slow part, and finds the files.

    Returns:
        The files to judge, and the summary's note on files that were passed over.
    """
    output = arguments.output
    if os.path.exists(output) and not os.path.isdir(output):
        parser.error(f"--output must be a folder: {output}")
    if arguments.explain and not (output or arguments.report):
        parser.error("--explain needs --output DIR or --report FILE for the heat maps")
    if arguments.crops:
        detect_arguments.check_crops(arguments, parser)
    if arguments.classifier is not None:
        detect_arguments.check_classifier(arguments, parser)
    if arguments.model is not None:
        arguments.model = inputs.find_graph(arguments.model, arguments.tile, parser)
    sources: list[source_files.Source] = []
    passed_over = ""
    if arguments.camera:
        detect_arguments.check_camera(arguments, parser)
    else:
        sources, passed_over = inputs.find_sources(
            arguments.paths or [source_files.find_sample()],
            output,
            parser,
            clips=not arguments.crops,
            shard=arguments.shard,
        )
    if arguments.report:
        detect_arguments.check_report(arguments, sources, parser)
    return sources, passed_over


def _load_model(arguments: argparse.Namespace, parser: Parser) -> "interfaces.Pipeline":
    try:
        model = inputs.load_graph(arguments.model, arguments.tile, arguments.classifier)
    except ValueError as error:
        if arguments.classifier is None:
            raise
        parser.error(f"--classifier: {error}")
    if arguments.explain and model.explain is None:
        parser.error(f"--explain: the graph was exported without it: {arguments.model}")
    return model


def _build_explainer(
    arguments: argparse.Namespace, model: "interfaces.Pipeline"
) -> Any:
    """Builds what makes heat maps; None without `--explain`."""
    if not arguments.explain:
        return None
    from dfdetect.pipeline import explainer

    margin = None if arguments.crops else model.manifest["classifier"]["crop_margin"]
    assert model.explain is not None  # `_load_model` has refused others.
    return explainer.Explainer(model.explain, margin)


def _judge_sources(
    arguments: argparse.Namespace,
    parser: Parser,
    *,
    model: "interfaces.Pipeline",
    thresholds: Any,
    sources: list[source_files.Source],
    passed_over: str,
    judge_clip: Any,
    explainer: Any,
    look_up: Any,
    page: contextlib.AbstractContextManager,
) -> int:
    """Judges the files and writes what was asked for; returns the exit code."""
    from dfdetect.cli import detect_output
    from dfdetect.pipeline import given_crops

    graph = model.detect
    if arguments.crops:
        graph = given_crops.as_detections(model.classify_crops)
    try:
        with (
            page as report,
            _open_journal(arguments, thresholds, model, parser) as journal,
        ):
            unread = detect_output.judge_files(
                graph,
                sources,
                thresholds,
                batch_size=arguments.batch_size,
                output=arguments.output,
                as_csv=arguments.csv,
                explainer=explainer,
                lookup=look_up,
                judge_clip=judge_clip,
                journal=journal,
                page=report,
                passed_over=passed_over,
            )
    except OSError as error:
        if not arguments.report or error.filename != str(
            pathlib.Path(arguments.report)
        ):
            raise
        # The page is written at the end: all lines have been printed.
        console.say(f"no report is written: {files.describe_error(error)}")
        return console.UNREAD
    return console.UNREAD if unread else 0


def _open_journal(
    arguments: argparse.Namespace,
    thresholds: Any,
    model: "interfaces.Pipeline",
    parser: Parser,
) -> contextlib.AbstractContextManager:
    """Opens the journal of `--resume`; yields None without one."""
    if arguments.resume is None:
        return contextlib.nullcontext()
    from dfdetect import resumable

    names = ("model", "output", "tile", "explain", "index", "frames", "every")
    settings = {name: getattr(arguments, name) for name in (*names, "aggregate")}
    # Only where it is set, so that journals older than the flag stay valid.
    settings |= {"crops": True} if arguments.crops else {}
    settings |= {"shard": list(arguments.shard)} if arguments.shard else {}
    if arguments.classifier is not None:
        settings["classifier"] = arguments.classifier
    settings |= {"thresholds": dict(thresholds), "version": dfdetect.__version__}
    of_graph = model.manifest.get("embeddings", {}).get("forgery", {})
    settings["fingerprint"] = of_graph.get("fingerprint")
    try:
        return resumable.Journal(arguments.resume, settings)
    except (FileExistsError, BlockingIOError) as error:
        parser.error(f"--resume: {error}")
