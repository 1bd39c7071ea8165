"""What is written about a file besides its line, and may fail without ending a run."""

from collections.abc import Callable

from dfdetect import console, files


def fails_to_write(path: str, loss: str, write: Callable[[], None]) -> bool:
    """Writes for one file; reports a failure, so that the others are still answered.

    Args:
        path: The file.
        loss: What a failure means for it.
        write: Writes.

    Returns:
        Whether writing failed.
    """
    try:
        write()
    except OSError as error:
        console.say(f"{path!r}: {loss}: {files.describe_error(error)}")
    except ValueError as error:  # For example a format that cannot hold it.
        console.say(f"{path!r}: {loss}: {error}")
    else:
        return False
    return True
