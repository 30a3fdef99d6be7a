"""The list of test cases that ctest gets (tests/unittest-cases) against what unittest itself finds in every test file."""
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

TESTS = pathlib.Path(__file__).resolve().parents[1]
FIND = """
import importlib, sys, unittest
def flat(suite):
    return [case for part in suite for case in (flat(part) if isinstance(part, unittest.TestSuite) else [part])]
for name in sys.argv[1:]:
    for case in flat(unittest.defaultTestLoader.loadTestsFromModule(importlib.import_module(name))):
        print(case.id())
"""


def listed(name, path):
    done = subprocess.run([TESTS / "unittest-cases", name, path], stdout=subprocess.PIPE, text=True, check=True)
    return [line.split("\t") for line in done.stdout.splitlines()]


class CasesTest(unittest.TestCase):
    def test_ctest_has_an_entry_for_each_case_that_unittest_finds(self):
        for folder in ("app", "python"):
            names = sorted(path.stem for path in (TESTS / folder).glob("*_test.py"))
            self.assertTrue(names)
            environment = {**os.environ, "LMQ": "lmq", "LMQ_DATA": str(TESTS / "data"), "LMQ_BUILD": "", "LMQ_PLUGIN": "", "PYTHONPATH": str(TESTS / folder)}
            found = subprocess.run([sys.executable, "-c", FIND, *names], env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout.split()
            entries = [f"{name}.{line[0]}" for name in names for line in listed(name, TESTS / folder / f"{name}.py")]
            self.assertEqual(sorted(entries), sorted(found))

    def test_every_file_of_tests_is_known_to_cmake(self):
        known = (TESTS / "CMakeLists.txt").read_text() + (TESTS / "app" / "CMakeLists.txt").read_text()
        for path in TESTS.glob("*/*_test.py"):
            self.assertRegex(known, rf"\b{path.stem.removesuffix('_test')}(_test\.py)?\b")

    def test_properties_and_inherited_cases_are_listed_under_the_law_they_defend(self):
        text = ("class Base(LmqTest):\n    def test_a_law(self): pass\n@ctest(lock='disk')\nclass OtherThingTest(Base):\n"
                "    @ctest(cost=7, alone=True)\n    def test_x_is_y(self): pass\n    def helper(self): pass\n")
        with tempfile.NamedTemporaryFile("w", suffix=".py") as file:
            file.write(text)
            file.flush()
            self.assertEqual(listed("app_base", file.name), [
                ["Base.test_a_law", "app_base: a law"], ["OtherThingTest.test_a_law", "app_base: other thing: a law", "RESOURCE_LOCK", "disk"],
                ["OtherThingTest.test_x_is_y", "app_base: other thing: x is y", "RESOURCE_LOCK", "disk", "COST", "7", "RUN_SERIAL", "True"]])


if __name__ == "__main__":
    unittest.main()
