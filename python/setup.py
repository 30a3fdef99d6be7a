"""Puts the HDF5 filter plug-in into the package: of $LMQ_PLUGIN (a folder), of a build beside this tree, or what lies in lmq/ already."""
import os
import shutil

from setuptools import Distribution, setup
from setuptools.command.build_py import build_py

try:
    from setuptools.command.bdist_wheel import bdist_wheel
except ImportError:  # before 70.1
    from wheel.bdist_wheel import bdist_wheel

NAME = "libh5zlmq.so"
HERE = os.path.dirname(os.path.abspath(__file__))


def plugin():
    """Path of the plug-in. Error: $LMQ_PLUGIN is set and has none."""
    named = os.environ.get("LMQ_PLUGIN")
    folders = [named] if named else [os.path.join(HERE, "..", "build", "src", "h5filter"), os.path.join(HERE, "lmq")]
    for folder in folders:
        if os.path.isfile(os.path.join(folder, NAME)):
            return os.path.join(folder, NAME)
    if named:
        raise SystemExit(f"{NAME} is not in LMQ_PLUGIN, {named}")
    return None


class Build(build_py):
    def run(self):
        super().run()
        found, target = plugin(), os.path.join(self.build_lib, "lmq", NAME)
        if found:
            self.mkpath(os.path.dirname(target))
            shutil.copyfile(found, target)
        else:
            self.warn(f"{NAME} is not there: build lmq first, or set LMQ_PLUGIN to its folder; the package will look for it when it is used")


class Platform(Distribution):
    """A wheel with a plug-in is of one platform."""

    def has_ext_modules(self):
        return plugin() is not None


class Wheel(bdist_wheel):
    def get_tag(self):
        """The plug-in knows nothing of Python: any version, one platform."""
        return ("py3", "none", super().get_tag()[2])


setup(cmdclass={"build_py": Build, "bdist_wheel": Wheel}, distclass=Platform)
