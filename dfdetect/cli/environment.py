"""The machine that a command runs on."""

import os
import pathlib
import platform

# Instructions by which a processor computes in bfloat16, as Linux names them.
_BFLOAT16_INSTRUCTIONS = ("avx512_bf16", "amx_bf16")


def describe_machine() -> str:
    """Describes processor, cores, memory, system and Python in one line."""
    try:
        processor = _describe_processor(
            pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8")
        )
    except (OSError, KeyError):
        processor = platform.processor() or platform.machine()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{processor}, {os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()}, "
        f"Python {platform.python_version()}"
    )


def _describe_processor(cpuinfo: str) -> str:
    """Describes the first processor of Linux's list, with what bfloat16 needs of it.

    Raises:
        KeyError: The list lacks a model name or the flags, as on ARM.
    """
    fields = dict(line.split(":", 1) for line in cpuinfo.splitlines() if ":" in line)
    fields = {name.strip(): value.strip() for name, value in fields.items()}
    flags = fields["flags"].split()
    found = [name for name in _BFLOAT16_INSTRUCTIONS if name in flags]
    missing = [name for name in _BFLOAT16_INSTRUCTIONS if name not in flags]
    said = [f"with {' and '.join(found)}"] * bool(found)
    said += [f"without {' and '.join(missing)}"] * bool(missing)
    return f"{fields['model name']} {', '.join(said)}"
