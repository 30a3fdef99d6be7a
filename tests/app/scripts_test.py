"""Scripts that install something do so once their arguments are understood, and say before what and how much."""
import os
import pathlib
import re
import subprocess
import tempfile
import unittest

SCRIPTS = pathlib.Path(__file__).resolve().parents[2] / "scripts"
INSTALLS = re.compile(r"install-deps|python-env|^import environment|_models\.py|evaluate\.py|reproduce_choi\.py|check_\w+\.py", re.M)
ON_TO_CTEST = {"test", "check-sanitizers"}  # their arguments are ctest's
# What asks which packages are there, fetches them or makes an environment leaves a trace, and fails.
TRACE = '#!/bin/sh\necho "$(basename "$0") $*" >>"$TRACE"\nexit 1\n'
PYTHON = '#!/bin/sh\ncase "$*" in "-m venv "*) echo "venv $*" >>"$TRACE"; exit 1 ;; esac\nexec /usr/bin/python3 "$@"\n'


def commands():
    return [path for path in sorted(SCRIPTS.iterdir()) if path.is_file() and os.access(path, os.X_OK)]


def installers():
    found = [path for path in commands() if INSTALLS.search(path.read_text())]
    assert len(found) > 15, found
    return found


class ScriptsTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.trace = self.folder / "trace"
        for name, text in (("apt-get", TRACE), ("dpkg-query", TRACE), ("pip", TRACE), ("cmake", TRACE), ("python3", PYTHON)):
            (self.folder / name).write_text(text)
            (self.folder / name).chmod(0o755)

    def call(self, script, *arguments):
        self.trace.unlink(missing_ok=True)
        environment = {**os.environ, "PATH": f"{self.folder}:{os.environ['PATH']}", "TRACE": str(self.trace), "LMQ_VENV": str(self.folder / "venv"),
                       "PYTHONDONTWRITEBYTECODE": "1"}
        environment.pop("LMQ_PYTHON", None)
        return subprocess.run([SCRIPTS / script, *arguments], cwd=self.folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              check=False)

    def assert_untouched(self):
        self.assertFalse(self.trace.exists(), self.trace.exists() and self.trace.read_text())
        self.assertFalse((self.folder / "venv").exists())

    def test_help_installs_nothing(self):
        for script in commands():
            with self.subTest(script=script.name):
                done = self.call(script, "--help")
                self.assertEqual(done.returncode, 0, done.stderr)
                self.assertGreater(len(done.stdout), 80)
                self.assert_untouched()

    def test_an_argument_that_is_not_known_installs_nothing(self):
        for script in installers():
            if script.name not in ON_TO_CTEST:
                with self.subTest(script=script.name):
                    done = self.call(script, "--no-such-argument")
                    self.assertNotEqual(done.returncode, 0)
                    self.assertTrue(done.stderr)
                    self.assert_untouched()

    def test_a_folder_that_is_not_there_installs_nothing(self):
        done = self.call("calibrate", "model", "-o", self.folder / "missing" / "out.h5")
        self.assertEqual(done.returncode, 73, done.stderr)
        self.assert_untouched()

    def test_what_is_installed_is_said_before(self):
        for script, arguments in (("fetch-models", ["models"]), ("evaluate", ["causal", "model", "-o", "out", "a: float"]), ("calibrate", ["model", "-o", "s.h5"])):
            with self.subTest(script=script):
                done = self.call(script, *arguments)
                self.assertNotEqual(done.returncode, 0)
                self.assertRegex(done.stderr, r"pip downloads .*torch[\s\S]*GB of disk")
                self.assertIn("venv", self.trace.read_text())


if __name__ == "__main__":
    unittest.main()
