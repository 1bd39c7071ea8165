"""Disks that are full."""

import contextlib
import resource


@contextlib.contextmanager
def full_disk(num_bytes):
    """Lets no file grow beyond a size, which to a writer is as a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
