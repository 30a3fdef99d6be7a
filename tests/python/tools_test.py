"""lmq-calibrate and lmq-evaluate where no torch is needed: sums, journals, tokens, the file, what is refused."""
import json
import os
import signal
import struct
import subprocess
import sys
import tempfile
import unittest
import xml.etree.ElementTree
from unittest import mock

import h5py
import numpy as np

PYTHON = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "python")
sys.path[:0] = [PYTHON, os.path.join(PYTHON, "..", "scripts")]
import svg_plot  # noqa: E402
from lmq_tools import calibrate, measures, output, program, tokens, weights  # noqa: E402
from lmq_tools.errors import Failure, Interrupted  # noqa: E402
from lmq_tools.journal import Journal  # noqa: E402
from lmq_tools.sums import BITS, Sums  # noqa: E402


class Layer:
    def __init__(self, name, rows, columns, expert=None):
        self.name, self.rows, self.columns, self.expert, self.shape = name, rows, columns, expert, (rows, columns)
        self.key = name if expert is None else f"{name}[{expert}]"


class SumsTest(unittest.TestCase):
    def batches(self):
        """The first small, one a million million times as large."""
        random = np.random.default_rng(3)
        sizes = [1e-3, *10.0 ** random.integers(-6, 3, 38), 1e12]
        return [(random.standard_normal((5, 7)) * size).astype(np.float32) for size in sizes]

    def total(self, batches, ranks):
        """As `ranks` ranks add them up, each its own batches, the sums then in any order."""
        parts = [Sums(self.first.exponents, len(batches)) for _ in range(ranks)]
        for number, values in enumerate(batches):
            parts[number % ranks].add("a.gram", values, f"batch {number}")
        for other in parts[:0:-1]:
            parts[0].merge(other.arrays)
        return parts[0].take("a.gram")

    def test_sums_are_the_same_for_any_ranks_and_order(self):
        batches = self.batches()
        self.first = Sums()
        self.first.agree({"a.gram": float(np.abs(batches[0]).max())})
        for cut in (batches[:-1], batches):
            expected = self.total(cut, 1)
            for ranks in (2, 3, 4, 7, 40):
                self.assertEqual(self.total(cut, ranks).tobytes(), expected.tobytes())
            largest = max(float(np.abs(values).max()) for values in cut)
            np.testing.assert_allclose(expected, np.sum(cut, 0, dtype=np.float64), rtol=0, atol=len(cut) * 2.0 ** -BITS * largest)

    def test_what_batch_0_does_not_reach_takes_the_step_of_its_kind(self):
        sums = Sums()
        sums.agree({"a.gram": 1.0, "b.gram": 0.0, "c.rows": 0.0})
        self.assertEqual(sums.exponents["b.gram"], sums.exponents["a.gram"])
        sums.add("c.rows", np.ones(3, np.float32), "batch 1")
        self.assertEqual(sums.take("c.rows").tolist(), [1, 1, 1])
        self.assertIsNone(sums.take("b.gram"))

    def test_numbers_that_are_not_finite_are_refused_with_layer_and_batch(self):
        for wrong in (np.nan, np.inf, -np.inf):
            sums = Sums(most_batches=8)
            sums.agree({"layer.gram": 1.0})
            with self.assertRaisesRegex(Failure, r"layer\.gram: batch 7"):
                sums.add("layer.gram", np.array([1, wrong], np.float32), "batch 7")


class PlotTest(unittest.TestCase):
    @staticmethod
    def luminance(colour):
        parts = [int(colour[k:k + 2], 16) / 255 for k in (1, 3, 5)]
        linear = [c / 12.92 if c <= .03928 else ((c + .055) / 1.055) ** 2.4 for c in parts]
        return .2126 * linear[0] + .7152 * linear[1] + .0722 * linear[2]

    def contrast(self, one, other):
        low, high = sorted(map(self.luminance, (one, other)))
        return (high + .05) / (low + .05)

    def test_lines_and_words_of_a_plot_are_seen_on_light_and_dark_paper(self):
        for paper in (svg_plot.LIGHT, svg_plot.DARK):
            self.assertGreater(self.contrast(paper["ink"], paper["paper"]), 7)
            for colour in (*svg_plot.COLOURS, paper["mark"]):
                self.assertGreaterEqual(self.contrast(colour, paper["paper"]), 3, (colour, paper["paper"]))

    def test_a_plot_is_xml_without_colours_that_one_paper_hides(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "plot.svg")
            svg_plot.plot(path, "a < b", "x", "y", [("one & two", [(1, -1), (2, -2)], True)], [("level", -1.5)], [("mark", 1.5)], (-2, 0))
            root = xml.etree.ElementTree.parse(path).getroot()
        used = {value for element in root.iter() for name, value in element.attrib.items() if name in ("fill", "stroke")}
        self.assertLessEqual(used, {"none", *svg_plot.COLOURS})
        self.assertIn("one & two", [element.text for element in root.iter()])


class ProgramTest(unittest.TestCase):
    """lmq as it is called from here; a shell script stands for it."""

    def script(self, folder, body):
        path = os.path.join(folder, "lmq")
        with open(path, "w", encoding="utf-8") as file:
            file.write(f"#!/bin/sh\n{body}\n")
        os.chmod(path, 0o755)
        return path

    def test_a_rank_of_mpirun_calls_it_as_one_process(self):
        with tempfile.TemporaryDirectory() as folder, mock.patch.dict(os.environ, {"OMPI_COMM_WORLD_SIZE": "2", "PMIX_RANK": "1", "KEPT": "yes"}):
            program.call(self.script(folder, f"env > {folder}/seen"), ["quantize"])
            with open(os.path.join(folder, "seen"), encoding="utf-8") as file:
                seen = dict(line.rstrip("\n").partition("=")[::2] for line in file)
        self.assertEqual((seen.get("KEPT"), "OMPI_COMM_WORLD_SIZE" in seen, "PMIX_RANK" in seen), ("yes", False, False))

    def test_its_exit_code_and_last_line_are_ours(self):
        with tempfile.TemporaryDirectory() as folder:
            with self.assertRaisesRegex(Failure, "^x.h5: no space$") as caught:
                program.call(self.script(folder, "echo 'lmq: note: first' >&2; echo 'lmq: x.h5: no space' >&2; exit 74"), [])
            self.assertEqual(caught.exception.code, 74)
            with self.assertRaises(Interrupted):
                program.call(self.script(folder, "exit 75"), [])

    def test_a_stop_is_passed_on_and_waited_for(self):
        with tempfile.TemporaryDirectory() as folder:
            path = self.script(folder, f"trap 'touch {folder}/saved; exit 75' TERM; touch {folder}/begun; while :; do sleep .05; done")
            with self.assertRaises(Interrupted):
                program.call(path, [], lambda: os.path.exists(os.path.join(folder, "begun")))
            self.assertTrue(os.path.exists(os.path.join(folder, "saved")))

    def test_a_terminal_that_hangs_up_stops_a_calibration_but_for_nohup(self):
        numbers = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP)
        before = {number: signal.getsignal(number) for number in numbers}
        try:
            for hup, stopped in ((signal.SIG_DFL, True), (signal.SIG_IGN, False)):
                signal.signal(signal.SIGHUP, hup)
                clock = mock.Mock(signalled=False)
                calibrate.obey_signals(clock)
                signal.raise_signal(signal.SIGHUP)
                self.assertEqual(clock.signalled, stopped)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def test_a_program_that_is_not_there_is_said(self):
        with self.assertRaises(Failure) as caught:
            program.find("/nowhere/lmq")
        self.assertEqual(caught.exception.code, 66)

    def test_the_step_of_a_record(self):
        record = b"LMQR\x04\x08\x00\x00\x00" + b"\x80\x02" + b"\x81\x80\x01" + b"\x40" + struct.pack("<f", .25)
        self.assertEqual(program.step_of(record), .25)
        self.assertIsNone(program.step_of(b"LMQR\x03" + bytes(40)))


class JournalTest(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.journal = Journal(self.folder.name, "run", 0)
        self.journal.write("phase-000.npz", {"a": np.arange(6), "b": np.zeros(0)}, {"phase": 0})

    def tearDown(self):
        self.folder.cleanup()

    def test_what_is_written_is_read(self):
        arrays, facts = self.journal.read("phase-000.npz")
        self.assertEqual(arrays["a"].tolist(), [0, 1, 2, 3, 4, 5])
        self.assertEqual((len(arrays["b"]), facts["phase"]), (0, 0))
        self.assertIsNone(Journal(self.folder.name, "another run", 0).read("phase-000.npz"))
        self.assertIsNone(self.journal.read("phase-001.npz"))

    def test_a_torn_file_counts_as_not_there(self):
        path = self.journal.path("phase-000.npz")
        with open(path, "rb") as file:
            whole = file.read()
        for length in range(0, len(whole), 7):
            with open(path, "wb") as file:
                file.write(whole[:length])
            self.assertIsNone(self.journal.read("phase-000.npz"), length)

    def test_a_flipped_bit_changes_no_number(self):
        path = self.journal.path("phase-000.npz")
        with open(path, "rb") as file:
            whole = file.read()
        for at in range(0, len(whole), 5):
            with open(path, "wb") as file:
                file.write(whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1:])
            found = self.journal.read("phase-000.npz")
            if found:
                self.assertEqual(found[0].get("a", np.arange(6)).tolist(), [0, 1, 2, 3, 4, 5], at)


class TokensTest(unittest.TestCase):
    def test_windows_tile_the_stream_and_go_over_no_document(self):
        stream = np.arange(23)
        self.assertEqual([p.tolist() for p in tokens.windows(stream, 10)], [list(range(10)), list(range(10, 20))])
        stream = np.array([1, 5, 6, 7, 8, 1, 9, 1, 1, 4, 4])
        found = [p.tolist() for p in tokens.windows(stream, 3, 1)]
        self.assertEqual(found, [[1, 5, 6], [1, 9], [1, 4, 4], [7, 8]])

    def test_batches_hold_each_sequence_once_and_one_length(self):
        pieces = [np.zeros(length) for length in (3, 5, 3, 3, 5, 2)]
        groups = tokens.batches_of(pieces, 2)
        self.assertEqual(sorted(n for group in groups for n in group), list(range(6)))
        self.assertTrue(all(len({len(pieces[n]) for n in group}) == 1 and len(group) <= 2 for group in groups))

    def test_random_numbers_are_a_function_of_seed_and_stream(self):
        self.assertEqual(tokens.uniform(1, 2, 9).tolist(), tokens.uniform(1, 2, 9).tolist())
        self.assertNotEqual(tokens.uniform(1, 2, 9).tolist(), tokens.uniform(1, 3, 9).tolist())
        self.assertNotEqual(tokens.uniform(1, 2, 9).tolist(), tokens.uniform(2, 2, 9).tolist())

    def test_bad_token_files_are_refused_with_the_place(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "t.u16")
            for values, message in (([], "0 tokens"), ([3], "1 tokens"), ([1, 2, 99, 3], "token 99 at place 2, the vocabulary has 50")):
                np.array(values, "<u2").tofile(path)
                with self.assertRaisesRegex(Failure, message):
                    tokens.read_stream(path, 50)
            with self.assertRaisesRegex(Failure, "cannot be read"):
                tokens.read_stream(os.path.join(folder, "none"), 50)
            np.arange(20, dtype="<u2").tofile(path)
            with self.assertRaisesRegex(Failure, "give 1 sequences of 16, at least 2"):
                tokens.cut(tokens.read_stream(path, 50), 16, 8, None, path)
            self.assertEqual(len(tokens.cut(tokens.read_stream(path, 50), 4, 3, None, path)), 3)


class OutputTest(unittest.TestCase):
    def results(self):
        random = np.random.default_rng(1)
        out = {}
        for key, rows, columns in (("a.1.weight", 5, 3), ("a.2.weight", 5, 3)):
            x = random.standard_normal((columns, 9)).astype(np.float32)
            out.update({f"{key}.gram": x @ x.T, f"{key}.columns": np.full(columns, 2, np.float32), f"{key}.rows": np.ones(rows, np.float32),
                        f"{key}.outer": np.ones((3, 2, 2), np.float32)})
        return out

    def test_only_the_product_of_both_sides_has_a_meaning_and_stays(self):
        results = self.results()
        gram, outer = output.scaled(results, "a.1.weight")
        self.assertAlmostEqual(float(np.trace(gram)), 6.0, places=4)
        before = np.trace(results["a.1.weight.gram"]) * results["a.1.weight.outer"][0, 0, 0]
        self.assertAlmostEqual(float(np.trace(gram) * outer[0, 0, 0]), float(before), places=3)

    def test_files_have_the_names_and_shapes_of_the_schema(self):
        layers = [Layer("a.1.weight", 5, 3), Layer("a.2.weight", 5, 3)]
        wanted = {"gram", "outer", "rows", "columns"}
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "s.h5")
            output.write(path, output.statistics_of(self.results(), layers, wanted, {"a.1.weight": "p.a.1.weight"}), {"receipt": "{}"})
            with h5py.File(path) as file:
                self.assertEqual(sorted(file), sorted(f"{n}.{s}" for n in ("p.a.1.weight", "a.2.weight") for s in wanted))
                self.assertEqual(file["p.a.1.weight.outer"].shape, (3, 2, 2))
                self.assertIsNone(file["a.2.weight.gram"].chunks)
                self.assertEqual(file["a.2.weight.gram"].dtype, np.dtype("<f4"))
            other = os.path.join(folder, "s.safetensors")
            output.write(other, output.statistics_of(self.results(), layers, wanted, {}), {"receipt": "{}"})
            with open(other, "rb") as file:
                header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
            self.assertEqual(header["a.1.weight.rows"]["shape"], [5])
            self.assertEqual(sorted(os.listdir(folder)), ["s.h5", "s.safetensors"])

    def test_a_layer_that_was_not_reached_takes_its_siblings_mean(self):
        layers = [Layer("m.w", 5, 3, expert) for expert in range(3)] + [Layer("other", 2, 2)]
        results = {key.replace("a.1.weight", "m.w[0]").replace("a.2.weight", "m.w[2]"): v for key, v in self.results().items()}
        filled, left = output.fill_unreached(results, layers)
        self.assertEqual((filled, left), (["m.w[1]"], ["other"]))
        np.testing.assert_allclose(results["m.w[1].gram"], (results["m.w[0].gram"] + results["m.w[2].gram"]) / 2, rtol=1e-6)
        found = dict(output.statistics_of(results, layers, {"gram", "outer"}, {}))
        self.assertEqual(found["m.w.gram"].shape, (3, 3, 3))
        self.assertEqual(found["m.w.outer"].shape, (3, 3, 2, 2))

    def test_nothing_has_the_final_name_after_a_refusal(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "s.h5")
            with self.assertRaisesRegex(Failure, r"x\.rows: value 1 is not finite"):
                output.write(path, [("x.rows", np.array([0, np.nan], np.float32))], {})
            self.assertEqual(os.listdir(folder), [])
            with self.assertRaises(Failure) as caught:
                output.write(os.path.join(folder, "none", "s.h5"), [("x.rows", np.ones(1, np.float32))], {})
            self.assertEqual(caught.exception.code, 73)


class MeasuresTest(unittest.TestCase):
    def test_errors_are_those_between_clusters(self):
        values = np.array([1.0, 1, 3, 3])
        self.assertEqual(measures.mean_and_error(values, [0, 0, 1, 1]), (2.0, 1.0))
        self.assertEqual(measures.mean_and_error(values, [0, 0, 0, 0])[1], None)

    def test_a_paired_difference_of_equal_files_is_nothing(self):
        arrays = {"kl": np.array([.1, .2, .3]), "loss": np.array([1.0, 2, 3])}
        found = measures.compare(arrays, arrays, [0, 1, 2])
        self.assertEqual((found["kl"]["mean"], found["kl"]["error"]), (0, 0))


class WeightsTest(unittest.TestCase):
    def test_names_of_gguf_become_those_of_the_decoder(self):
        self.assertEqual(weights.llama_name("blk.3.attn_q.weight"), "model.layers.3.self_attn.q_proj.weight")
        self.assertEqual(weights.llama_name("token_embd.weight"), "model.embed_tokens.weight")
        self.assertIsNone(weights.llama_name("blk.3.what.weight"))

    def test_interleaved_rows_become_halves(self):
        rows = np.arange(8)[:, None] * np.ones((1, 2))
        self.assertEqual(weights.half_split(rows, 2)[:, 0].tolist(), [0, 2, 1, 3, 4, 6, 5, 7])


class CommandTest(unittest.TestCase):
    def run_tool(self, tool, *words):
        environment = {**os.environ, "PYTHONPATH": PYTHON, "PYTHONDONTWRITEBYTECODE": "1"}
        return subprocess.run([sys.executable, "-m", f"lmq_tools.{tool}", *words], capture_output=True, text=True, env=environment)

    def test_wrong_options_end_with_64_and_one_line(self):
        with tempfile.TemporaryDirectory() as folder:
            out = os.path.join(folder, "s.h5")
            for words, message in ((("--statistics", "gram,what"), "known are"), (("--text", "a", "--tokens", "b"), "exclude each other"),
                                   (("--window", "0"), "--window 0"), (("--seed", "-1"), "--seed -1"), (("--memory", "much"), "'much' is no size"),
                                   (("--what",), "unrecognized")):
                done = self.run_tool("calibrate", "model", "-o", out, *words)
                self.assertEqual(done.returncode, 64, done.stderr)
                self.assertRegex(done.stderr, f"^lmq-calibrate: .*{message}.*\n$")
            self.assertEqual(self.run_tool("calibrate", "model", "-o", os.path.join(folder, "no", "s.h5")).returncode, 73)
            self.assertEqual(os.listdir(folder), [])

    def test_help_is_there(self):
        for tool in ("calibrate", "evaluate"):
            self.assertIn("--tokens", self.run_tool(tool, "--help").stdout)


if __name__ == "__main__":
    unittest.main()
