# Recipe for Spack. In the folder of a repository of your own:
#   spack repo create ~/lmq-repo lmq-repo && mkdir -p ~/lmq-repo/packages/lmq
#   cp packaging/spack/package.py ~/lmq-repo/packages/lmq/ && spack repo add ~/lmq-repo
#   spack dev-build lmq@main        # from the sources it stands in
from spack.package import *


class Lmq(CMakePackage):
    """Distributed large-model weight quantizer: a checkpoint becomes one HDF5 file, by MPI and OpenMP."""

    license("MIT")

    version("main")  # of a folder: spack dev-build, or spack develop

    variant("parallel-hdf5", default=False, description="build against an HDF5 with MPI (no call is collective)")
    variant("plugin-only", default=False, description="the HDF5 filter plug-in alone")

    depends_on("c", type="build")
    depends_on("cxx", type="build")
    depends_on("cmake@3.18:", type="build")
    depends_on("pkgconfig", type="build")
    depends_on("hdf5@1.10:")
    depends_on("fmt@8:")
    depends_on("xxhash@0.8:")
    depends_on("highway@1.0:")
    with when("~plugin-only"):
        depends_on("mpi")
        depends_on("boost@1.70: +program_options")
        depends_on("nlohmann-json@3.9:")
        depends_on("zlib-api")
        depends_on("catch2@2.13:2", type="test")
        depends_on("hdf5+mpi", when="+parallel-hdf5")

    conflicts("%gcc@:11", msg="C++20 is needed: GCC 12 or newer")
    conflicts("%clang@:13", msg="C++20 is needed: clang 14 or newer")

    def cmake_args(self):
        return [
            self.define_from_variant("LMQ_PLUGIN_ONLY", "plugin-only"),
            self.define("LMQ_HDF5", "parallel" if self.spec.satisfies("+parallel-hdf5") else "serial"),
            self.define("LMQ_TESTS", self.run_tests),
        ]

    def setup_run_environment(self, env):
        env.prepend_path("HDF5_PLUGIN_PATH", self.prefix.lib.hdf5.plugins)
        env.prepend_path("HDF5_PLUGIN_PATH", self.prefix.lib64.hdf5.plugins)
