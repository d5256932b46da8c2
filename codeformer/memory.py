"""How the process keeps its memory.

A face on a CPU passes through large arrays that live for milliseconds. The GNU C library fetches each of them from the
system and gives it back, so that every page is cleared and mapped again for every face.
"""

import os
import sys

# malloc.h's numbers. Blocks below the threshold come from the heap of the thread, and what is freed at its end stays.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
_LARGEST = (2**30, 2**25)  # older versions of the library take no more than the second


def keep_freed_memory() -> bool:
    """Let the C library keep what is freed for the next block; say whether it does.

    For programs, not for libraries: the process never shrinks below its peak. Does nothing where the C library is not
    GNU's, and where the user has set its environment variables (``MALLOC_...``, ``GLIBC_TUNABLES``) or takes another
    allocator (``LD_PRELOAD``).
    """
    if sys.platform != "linux" or any(
        name.startswith("MALLOC_") or name in ("GLIBC_TUNABLES", "LD_PRELOAD") for name in os.environ
    ):
        return False
    import ctypes

    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # musl
        return False
    mallopt(_TRIM_THRESHOLD, 2**31 - 1)
    mallopt(_TOP_PAD, 2**26)
    return any(mallopt(_MMAP_THRESHOLD, size) == 1 for size in _LARGEST)
