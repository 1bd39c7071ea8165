"""Prepares a script for Apache Beam, which an installation may lack."""

from dfdetect.export import runtime


def require_beam() -> None:
    """Checks that Apache Beam is there, and sets what workers on this machine inherit.

    Raises:
        ImportError: It is missing; says how to install it.
    """
    try:
        import apache_beam  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"Apache Beam is missing: pip install dfdetect[beam] ({error})"
        ) from error
    runtime.set_variables()
