"""Finding the known images behind a suspicious one."""
