"""The commands of the Python package as check_calibrate.py runs them: to their end, with one rank in this process or under mpiexec."""
import contextlib
import importlib
import io
import os
import subprocess
import sys
from types import SimpleNamespace
from unittest import mock

from lmq_tools import subjects


def command(*words, ranks=1, module="calibrate"):
    launch = ["mpiexec", "-n", str(ranks)] if ranks > 1 else []
    return [*launch, sys.executable, "-m", f"lmq_tools.{module}", *map(str, words)]


def run(*words, ranks=1, module="calibrate"):
    """The command to its end; one rank in this process, which has torch already."""
    if ranks > 1:
        return subprocess.run(command(*words, ranks=ranks, module=module), capture_output=True, text=True, stdin=subprocess.DEVNULL)
    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), mock.patch.object(sys, "argv", [module, *map(str, words)]):
        try:
            importlib.import_module(f"lmq_tools.{module}").main()
        except SystemExit as end:
            code = end.code or 0
    return SimpleNamespace(returncode=code, stdout=out.getvalue(), stderr=err.getvalue())


def sha256(path):
    return subjects.digest_of(path) if os.path.exists(path) else None
