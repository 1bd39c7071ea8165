"""The command `dfdetect search`; imports nothing heavy before it runs."""

import argparse

from dfdetect import console
from dfdetect.cli import argument_types, detect_arguments, inputs
from dfdetect.cli.parser import Commands, Parser, add_verbose


def add_arguments(commands: Commands) -> Parser:
    """Adds the command to those of `dfdetect` and returns its parser."""
    parser = commands.add_parser(
        "search",
        allow_abbrev=False,
        help="find known images similar to the given ones",
        description="Finds the entries of an index that are most similar to each "
        "image, or to each head in it. Prints one line of JSON for each image.",
        epilog="Exit code: 0 every file was read, 3 some were not, or a contact sheet "
        "could not be written, 2 usage error, 1 the command failed.",
    )
    parser.set_defaults(run=run_command)
    parser.add_argument(
        "paths", nargs="+", metavar="QUERY", help="image, folder or quoted pattern"
    )
    parser.add_argument(
        "--index", metavar="DIR", required=True, help="made by train/index.py"
    )
    parser.add_argument(
        "--top_k",
        metavar="K",
        type=argument_types.parse_positive,
        default=10,
        help="neighbours of each query (default 10)",
    )
    parser.add_argument(
        "--heads",
        action="store_true",
        help="search for each head in an image instead of the whole image",
    )
    parser.add_argument(
        "--keep_self",
        action="store_true",
        help="do not leave out a query that is itself in the index",
    )
    parser.add_argument(
        "--output",
        metavar="FILE",
        default="",
        help=".jpg or .png: a contact sheet of the queries beside their results",
    )
    parser.add_argument(
        "--model",
        metavar="DIR",
        help="exported graph, or a folder of its versions; by default that of the "
        "included weights",
    )
    add_verbose(parser)
    return parser


def run_command(arguments: argparse.Namespace, parser: Parser) -> int:
    """Runs the command; returns its exit code."""
    sheet = arguments.output
    if sheet and not sheet.lower().endswith((".jpg", ".jpeg", ".png")):
        parser.error(f"--output must end in .jpg or .png: {sheet}")
    if arguments.model is not None:
        arguments.model = inputs.find_graph(arguments.model, False, parser)
    sources, passed_over = inputs.find_sources(arguments.paths, "", parser)
    if sheet:
        given = [source.path for source in sources]
        detect_arguments.check_output_file(sheet, given, parser, option="--output")
    index, _ = inputs.open_index(arguments.index, parser, thumbnails=bool(sheet))
    model = inputs.load_graph(arguments.model, False)
    from dfdetect.cli import search_output
    from dfdetect.pipeline import embedding

    try:
        embedder = embedding.Embedder(
            model, index.embedding.get("kind", ""), arguments.heads
        )
        embedding.check(index.embedding, embedder.describe())
    except ValueError as error:
        parser.error(f"--index: {error}")
    unread = search_output.search_files(
        embedder,
        index,
        sources,
        top_k=arguments.top_k,
        keep_self=arguments.keep_self,
        sheet=sheet,
        passed_over=passed_over,
    )
    return console.UNREAD if unread else 0
