"""The command `dfdetect serve`; imports nothing heavy before it runs."""

import argparse
import importlib.util

from dfdetect import console
from dfdetect.cli.parser import Commands, Parser
from dfdetect.export import runtime
from dfdetect.serving import command_line, listening, options

# The packages of the extra `serve`.
_NEEDED = "grpc grpc_health prometheus_client tensorflow_serving tornado".split()


def add_arguments(commands: Commands) -> Parser:
    """Adds the command to those of `dfdetect` and returns its parser."""
    parser = commands.add_parser(
        "serve",
        allow_abbrev=False,
        help="serve models over the network, as TensorFlow Serving does",
        description="Serves SavedModels over gRPC and REST, in TensorFlow Serving's "
        "protocols. Needs pip install 'dfdetect[serve]'.",
        epilog="SIGTERM and SIGINT stop it once the requests in flight are answered. "
        "Exit code: 0 it was stopped, 2 usage error, 1 it could not start.",
    )
    parser.set_defaults(run=run_command)
    command_line.add_arguments(parser)
    return parser


def run_command(arguments: argparse.Namespace, parser: Parser) -> int:
    """Runs the command; returns its exit code."""
    try:
        settings = options.build_options(arguments)
    except ValueError as error:
        parser.error(str(error))
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        _say(f"{missing[0]} is missing: pip install 'dfdetect[serve]'")
        return console.FAILED
    try:
        held = listening.hold_ports(settings)
    except OSError as error:
        _say(str(error))
        return console.FAILED
    runtime.set_variables()
    from dfdetect.serving import errors, server

    try:
        return server.run_server(settings, held)
    except (ValueError, OSError, errors.ServingError) as error:
        _say(str(error))
        return console.FAILED


def _say(message: str) -> None:
    print(f"dfdetect serve: {message}", file=console.stream(), flush=True)
