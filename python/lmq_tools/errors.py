"""Errors with the exit codes of lmq (sysexits)."""
import argparse
import sys

USAGE, MALFORMED, MISSING, UNSUPPORTED, INTERNAL, CANNOT_CREATE, IO, INTERRUPTED = 64, 65, 66, 69, 70, 73, 74, 75


class Failure(Exception):
    """One line for standard error and the exit code that goes with it."""

    def __init__(self, code, message):
        super().__init__(message)
        self.code = code


class Interrupted(Exception):
    """SIGTERM, SIGUSR1 or --max-time: what was done is saved, the same command goes on."""


class Parser(argparse.ArgumentParser):
    """Ends with lmq's exit code and one line."""

    def error(self, message):
        say(self.prog, f"{message} (see --help)")
        sys.exit(USAGE)


def code_of(error):
    """Exit code of any exception; INTERNAL for those that nobody foresaw."""
    if isinstance(error, Failure):
        return error.code
    if isinstance(error, FileNotFoundError):
        return MISSING
    if isinstance(error, (OSError, MemoryError)):
        return IO
    return MALFORMED if type(error).__name__ in ("SafetensorError", "UnicodeDecodeError") else INTERNAL


def need(module, what):
    """Imports `module`, or says what it is needed for."""
    import importlib
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise Failure(MISSING, f"{what} needs the Python package '{module.split('.')[0]}' ({error})") from None


def say(program, message):
    print(f"{program}: {message}", file=sys.stderr, flush=True)
