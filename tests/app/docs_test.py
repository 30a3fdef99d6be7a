"""What README and docs tell people to type does what they say, with the program as it is installed."""
import glob
import os
import re
import shlex
import shutil
import subprocess
import sys
import unittest

import numpy as np

from lmq_harness import LMQ, MPIEXEC, STORIES, LmqTest, ctest, environment, options_page, read_safetensors, write_safetensors

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.environ["LMQ_BUILD"]


def blocks(name, language):
    """The code blocks of a page in a language."""
    with open(os.path.join(TOP, name)) as file:
        return re.findall(rf"^```{language}\n(.*?)^```", file.read(), re.M | re.S)


def commands(name):
    """Lines of the page's shell blocks that call a program of ours or of HDF5's, without their comments."""
    lines = "\n".join(blocks(name, "sh")).splitlines()
    words = [shlex.split(line, comments=True) for line in lines if re.match(r"(lmq|mpirun|h5\w+) ", line)]
    return [line for line in words if line]


@ctest(lock="installation")   # the build tree has one manifest of what was installed
class Docs(LmqTest):
    def setUp(self):
        super().setUp()
        shutil.copytree(STORIES, self.at("model"))
        tensors, metadata = read_safetensors(self.at("model", "model.safetensors"))
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]   # as larger models have it
        write_safetensors(self.at("model", "model.safetensors"), tensors, metadata)
        self.assertEqual(self.type(["lmq", "export", "model/", "--to", "gguf", "-o", "model-f16.gguf"]).returncode, 0)
        write_safetensors(self.at("FILE"), {"model.layers.0.mlp.up_proj.weight": ("F32", (64,), np.ones(64, np.float32).tobytes())})

    def type(self, words, **extra):
        words = list(words)
        if words[0] == "mpirun":
            words[:3] = [MPIEXEC, "-np", "2"]   # this machine is small
        words = [{"lmq": LMQ, "python3": sys.executable}.get(word, word) for word in words]
        return subprocess.run(words, cwd=self.folder, env=environment(**extra), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300)

    def test_the_page_of_options_is_what_the_program_says(self):
        with open(os.path.join(TOP, "docs", "methods", "options.md")) as file:
            page = file.read()
        done = options_page("--check")   # of methods that the page names; scripts/options-page LMQ >docs/methods/options.md writes it anew
        self.assertEqual((done.returncode, done.stdout), (0, ""), done)
        self.assertEqual(options_page().stdout.splitlines()[:7], page.splitlines()[:7])

    def test_the_commands_of_the_readme_do_what_they_say(self):
        ran = 0
        for words in commands("README.md"):
            with self.subTest(words=words):
                done = self.type(words)
                self.assertEqual(done.returncode, 0, done)
                ran += 1
        self.assertGreater(ran, 8)

    def test_what_is_installed_is_where_the_docs_look_for_it(self):
        prefix = self.at(".local")
        done = subprocess.run(["cmake", "--install", BUILD, "--prefix", prefix], capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done)
        folders = set()
        for page in ("README.md", "docs/hdf5.md"):
            with open(os.path.join(TOP, page)) as file:
                folders.update(re.findall(r"(?:~|\$HOME)/\.local/(\S*hdf5/\w+)", file.read()))
        self.assertEqual(len(folders), 1, folders)
        plugins = os.path.join(prefix, folders.pop())
        self.assertEqual(os.listdir(plugins), ["libh5zlmq.so"])
        self.assertEqual(self.type(["lmq", "quantize", "model/", "-o", "OUT.h5"]).returncode, 0)
        shutil.copy(self.at("OUT.h5"), self.at("model.h5"))
        check = [line for line in "\n".join(blocks("README.md", "sh")).splitlines() if line.startswith("python3 -c")]
        self.assertEqual(len(check), 1)
        check = shlex.split(check[0], comments=True)
        self.assertEqual(self.type(check, HDF5_PLUGIN_PATH=plugins).returncode, 0)
        self.assertNotEqual(self.type(check, HDF5_PLUGIN_PATH=self.folder).returncode, 0)   # it needs the plug-in
        for made in (["--bits", "4"], ["--granularity", "row"], []):   # codes of layers, codebooks of rows, of whole tensors
            self.assertEqual(self.type(["lmq", "quantize", "model/", "-o", "OUT.h5", *made]).returncode, 0)
            for code in blocks("docs/hdf5.md", "python"):
                if "Dense" in code or "get_layer" in code:
                    continue
                if "h5py.File" not in code:
                    code = "import h5py, numpy\nf = h5py.File('OUT.h5')\n" + code
                with self.subTest(made=made, code=code):
                    done = self.type(["python3", "-c", code], HDF5_PLUGIN_PATH=plugins)
                    self.assertEqual(done.returncode, 0, done)
        for words in commands("docs/hdf5.md"):
            if shutil.which(words[0]) or words[0] == "lmq":
                with self.subTest(words=words):
                    self.assertEqual(self.type(words, HDF5_PLUGIN_PATH=plugins).returncode, 0)

    def test_an_installation_is_used_by_one_line_and_nothing_of_it_stays(self):
        prefix = self.at("apps", "lmq")
        done = subprocess.run(["cmake", "--install", BUILD, "--prefix", prefix], capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done)
        for shell in ("sh", "bash"):
            line = f". '{prefix}/bin/lmqrc' && command -v lmq && echo $MANPATH $HDF5_PLUGIN_PATH"
            done = subprocess.run([shell, "-c", line], env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True)
            self.assertEqual(done.stdout.split(), [f"{prefix}/bin/lmq", f"{prefix}/share/man:", f"{prefix}/lib/hdf5/plugins"], done)
        with open(os.path.join(TOP, "docs", "install.md")) as file:
            for name in re.findall(r"^\| `((?:bin|lib|share)/[^`]*)`", file.read(), re.M):
                self.assertTrue(glob.glob(os.path.join(prefix, name.replace("VERSION", "*"))), name)
        done = subprocess.run(["cmake", f"-DMANIFEST={BUILD}/install_manifest.txt", f"-DPREFIX_FILE={BUILD}/install/prefix.txt",
                               "-P", os.path.join(TOP, "cmake", "uninstall.cmake")], capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done)
        self.assertEqual(os.listdir(prefix), [])


if __name__ == "__main__":
    unittest.main()
