"""Environment variables that must be set before a process starts.

XLA on CPU takes its temporary buffer from malloc anew at every step. With glibc's defaults that
memory goes back to the system each time, and a step spends a third of its time on page faults.
With transparent huge pages there are hundreds of times fewer faults.
"""

import os
import sys
from collections.abc import Mapping

_VARIABLE, _TUNABLE = "GLIBC_TUNABLES", "glibc.malloc.hugetlb"


def huge_pages(env: Mapping[str, str] | None = None) -> dict[str, str]:
    """A copy of `env` (None: this process's) in which glibc's malloc uses huge pages.

    Other tunables, and a value the user chose for this one, stay as they are. Only Linux has the
    tunable; elsewhere the copy is plain.
    """
    env = dict(os.environ if env is None else env)
    tunables = [t for t in env.get(_VARIABLE, "").split(":") if t]
    if sys.platform == "linux" and not any(t.startswith(f"{_TUNABLE}=") for t in tunables):
        env[_VARIABLE] = ":".join([*tunables, f"{_TUNABLE}=1"])
    return env


def restart_with_huge_pages() -> None:
    """Replace this process by the same command under `huge_pages()`; returns if it is already so.

    Call it first thing in `main`, before JAX computes anything.
    """
    env = huge_pages()
    if env.get(_VARIABLE) == os.environ.get(_VARIABLE):
        return
    sys.stdout.flush()
    sys.stderr.flush()
    # orig_argv keeps interpreter options and `-m module`, which sys.argv has lost.
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], env)
