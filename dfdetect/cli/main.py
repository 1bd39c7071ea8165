"""The console command `dfdetect`.

TensorFlow is imported once a command needs it, so that help and mistakes are answered
at once.
"""

import argparse
import contextlib
import importlib.util
import os
import pathlib
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any

import dfdetect
from dfdetect import console, files, manifest
from dfdetect.cli import detect_arguments, environment
from dfdetect.cli import parser as cli_parser
from dfdetect.media import file_kinds, source_files
from dfdetect.serving import listening, options

USAGE = cli_parser.USAGE
FAILED, UNREAD, INTERRUPTED, PIPE_CLOSED = 1, 3, 130, 141


# The packages of the extra `serve`.
_OF_SERVE = "grpc grpc_health prometheus_client tensorflow_serving tornado".split()


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code.

    Args:
        argv: The arguments; those of the process when absent.
    """
    parser, commands = cli_parser.build(
        {"detect": _detect, "search": _search, "serve": _serve, "bench": _bench}
    )
    arguments, rest = parser.parse_known_args(argv)
    if arguments.command is None:
        parser.print_help(sys.stderr)
        return USAGE
    command = commands[arguments.command]
    # argparse gives back the paths behind an option that stands behind a path.
    takes_paths = hasattr(arguments, "paths")
    if any(word.startswith("-") or not takes_paths for word in rest):
        command.error(f"unknown arguments: {' '.join(rest)}")
    if takes_paths:
        arguments.paths += rest
    arguments.command_line = list(sys.argv[1:] if argv is None else argv)
    try:
        # Commands without --verbose run long or start processes: what libraries say
        # there is seen at once.
        has_log = hasattr(arguments, "verbose")
        log = (
            console.captured(arguments.verbose) if has_log else contextlib.nullcontext()
        )
        with log:
            return arguments.run(arguments, command)
    except KeyboardInterrupt:
        _say("interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        _give_up_output()
        return PIPE_CLOSED
    except OSError as error:
        _say(files.describe_error(error))
        try:
            sys.stdout.flush()
        except OSError:
            _give_up_output()
        return FAILED


def _give_up_output() -> None:
    """Lets nothing fail again while Python closes standard output."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _detect(arguments: argparse.Namespace, parser: cli_parser.Parser) -> int:
    output = arguments.output
    if os.path.exists(output) and not os.path.isdir(output):
        parser.error(f"--output must be a folder: {output}")
    if arguments.explain and not (output or arguments.report):
        parser.error("--explain needs --output DIR or --report FILE for the heat maps")
    if arguments.crops:
        detect_arguments.check_crops(arguments, parser)
    if arguments.model is not None:
        _check_graph(arguments.model, arguments.tile, parser)
    sources: list[source_files.Source] = []
    passed_over = ""
    if arguments.camera:
        detect_arguments.check_camera(arguments, parser)
    else:
        paths = arguments.paths or [source_files.sample()]
        clips = not arguments.crops
        sources, passed_over = _sources(paths, output, parser, clips)
    if arguments.report:
        detect_arguments.check_report(arguments, sources, parser)
    index = described = None
    if arguments.index is not None:
        index, described = _open_index(arguments.index, parser, bool(arguments.report))

    environment.share_memory()
    model = _load(arguments.model, arguments.tile)
    if arguments.explain and model.explain is None:
        parser.error(f"--explain: the graph was exported without it: {arguments.model}")
    from dfdetect.cli import camera, detect_output
    from dfdetect.media import video
    from dfdetect.metrics import calibration
    from dfdetect.pipeline import clips as clip_findings
    from dfdetect.pipeline import explainer as explainer_module
    from dfdetect.pipeline import given_crops
    from dfdetect.retrieval import lookup

    look_up = None
    if index is not None and described is not None:
        try:
            look_up = lookup.Lookup(index, described, model, arguments.crops)
        except ValueError as error:
            parser.error(f"--index: {error}")
    classifier = model.manifest["classifier"]
    thresholds = classifier["thresholds"]
    if arguments.threshold is not None:
        thresholds = calibration.without_band(arguments.threshold)
    explainer = None
    if arguments.explain:
        margin = None if arguments.crops else classifier["crop_margin"]
        explainer = explainer_module.Explainer(model.explain, margin)
    judge_clip = clip_findings.ClipJudge(
        model,
        thresholds,
        video.Sampling(arguments.frames, arguments.every),
        arguments.aggregate,
        1 if arguments.camera else arguments.batch_size,
        look_up,
    )
    if arguments.camera:
        camera.run(judge_clip, arguments.camera, thresholds, arguments.every)
        return 0
    page: contextlib.AbstractContextManager = contextlib.nullcontext()
    if arguments.report:
        from dfdetect.reports import page as report_page

        page = report_page.opened(
            arguments.report,
            model.manifest,
            thresholds,
            arguments.command_line,
            len(sources),
            explainer,
            described,
            index,
            arguments.crops,
        )
    graph = model.detect
    if arguments.crops:
        graph = given_crops.as_detections(model.classify_crops)
    try:
        with page as report, _journal(arguments, thresholds, model, parser) as resumed:
            unread = detect_output.run(
                graph,
                sources,
                thresholds,
                arguments.batch_size,
                output,
                arguments.csv,
                explainer,
                look_up,
                judge_clip,
                resumed,
                report,
                passed_over,
            )
    except OSError as error:
        if not arguments.report or error.filename != str(
            pathlib.Path(arguments.report)
        ):
            raise
        # At its end: all lines have been printed.
        _say(f"no report is written: {files.describe_error(error)}")
        return UNREAD
    return UNREAD if unread else 0


def _journal(
    arguments: argparse.Namespace,
    thresholds: Any,
    model: Any,
    parser: cli_parser.Parser,
) -> contextlib.AbstractContextManager:
    """The journal of `--resume`, opened; of None without one."""
    if arguments.resume is None:
        return contextlib.nullcontext()
    from dfdetect import resumable

    names = ("model", "output", "tile", "explain", "index", "frames", "every")
    settings = {name: getattr(arguments, name) for name in (*names, "aggregate")}
    # Only where it is set, so that journals of before there was such a flag stay valid.
    settings |= {"crops": True} if arguments.crops else {}
    settings |= {"thresholds": dict(thresholds), "version": dfdetect.__version__}
    of_graph = model.manifest.get("embeddings", {}).get("forgery", {})
    settings["fingerprint"] = of_graph.get("fingerprint")
    try:
        return resumable.Journal(arguments.resume, settings)
    except (FileExistsError, BlockingIOError) as error:
        parser.error(f"--resume: {error}")


def _search(arguments: argparse.Namespace, parser: cli_parser.Parser) -> int:
    sheet = arguments.output
    if sheet and not sheet.lower().endswith((".jpg", ".jpeg", ".png")):
        parser.error(f"--output must end in .jpg or .png: {sheet}")
    if arguments.model is not None:
        _check_graph(arguments.model, False, parser)
    sources, passed_over = _sources(arguments.paths, "", parser)
    index, _ = _open_index(arguments.index, parser, thumbnails=bool(sheet))
    model = _load(arguments.model, False)
    from dfdetect.cli import search
    from dfdetect.pipeline import embedding

    try:
        embedder = embedding.Embedder(
            model, index.embedding.get("kind", ""), arguments.heads
        )
        embedding.check(index.embedding, embedder.describe())
    except ValueError as error:
        parser.error(f"--index: {error}")
    unread = search.run(
        embedder,
        index,
        sources,
        arguments.top_k,
        arguments.keep_self,
        sheet,
        passed_over,
    )
    return UNREAD if unread else 0


def _open_index(
    directory: str, parser: cli_parser.Parser, thumbnails: bool = False
) -> tuple[Any, dict[str, Any]]:
    """The index in a folder, and its manifest."""
    environment.prepare()
    from dfdetect.retrieval import storage

    try:
        return storage.load(directory, thumbnails, _say)
    except ValueError as error:
        parser.error(f"--index: {error}")


def _sources(
    paths: Sequence[str], output: str, parser: cli_parser.Parser, clips: bool = False
) -> tuple[list[source_files.Source], str]:
    """The images, and clips if they are wanted, that are named; at least one.

    The second is what is said of the files in folders that are neither, or "".
    """
    kinds: Counter[str] = Counter()
    try:
        sources, barren = source_files.find(paths, output, clips, kinds)
    except (ValueError, FileNotFoundError) as error:
        parser.error(str(error))
    wanted = "pictures or clips" if clips else "pictures"
    passed_over = file_kinds.count(kinds)
    if not sources:
        told = f" ({passed_over})" if passed_over else ""
        parser.error(f"no {wanted} in {', '.join(barren)}{told}")
    for path in barren:
        _say(f"no {wanted} in {path}")
    return sources, passed_over


def _say(message: str) -> None:
    print(f"dfdetect: {message}", file=console.stream(), flush=True)


def _check_graph(directory: str, tile: bool, parser: cli_parser.Parser) -> None:
    """Refuses what is no graph of ours before TensorFlow is imported."""
    if not os.path.isfile(os.path.join(directory, "saved_model.pb")):
        parser.error(f"--model must be a folder with a saved_model.pb: {directory}")
    try:
        described = manifest.read(os.path.join(directory, "assets"), "pipeline")
    except (FileNotFoundError, ValueError) as error:
        parser.error(f"--model: {error}")
    if tile and not described["detector"].get("tile_size"):
        parser.error(f"--tile: the graph was exported without it: {directory}")


def _load(directory: str | None, tile: bool) -> Any:
    """Loads an exported graph, or the one of the default weights.

    Raises:
        FileNotFoundError: The package came without default weights.
    """
    environment.prepare()
    from dfdetect.export import freezing, graph_cache

    if directory is None:
        freezing.take_graphs_as_they_are()
    try:
        return graph_cache.load(directory, _say, tile)
    except FileNotFoundError as error:
        if directory is not None:
            raise
        raise FileNotFoundError(
            f"no default weights: {error.filename} is missing; "
            "name a graph with --model"
        ) from error


def _serve(arguments: argparse.Namespace, parser: cli_parser.Parser) -> int:
    try:
        settings = options.of(arguments)
    except ValueError as error:
        parser.error(str(error))
    missing = [name for name in _OF_SERVE if importlib.util.find_spec(name) is None]
    if missing:
        _say_of_serving(f"{missing[0]} is missing: pip install 'dfdetect[serve]'")
        return FAILED
    try:
        held = listening.hold(settings)
    except OSError as error:
        _say_of_serving(str(error))
        return FAILED
    environment.prepare()
    from dfdetect.serving import errors, server

    try:
        return server.run(settings, held)
    except (ValueError, OSError, errors.ServingError) as error:
        _say_of_serving(str(error))
        return FAILED


def _say_of_serving(message: str) -> None:
    print(f"dfdetect serve: {message}", file=console.stream(), flush=True)


def _bench(arguments: argparse.Namespace, parser: cli_parser.Parser) -> int:
    from dfdetect.cli.bench import run

    try:
        run.run(arguments)
    except (RuntimeError, ValueError) as error:
        print(f"dfdetect bench: {error}", file=sys.stderr)
        return FAILED
    return 0


if __name__ == "__main__":
    sys.exit(main())
