"""Search for the known images nearest to a suspicious one."""
