"""What the program says: the nearest word, the singular, lines that fit, commands that can be typed."""
import json
import re
import subprocess
import unittest

import numpy as np

from lmq_harness import LMQ, STORIES, LmqTest, bf16, environment, run, write_safetensors


class Words(LmqTest):
    def test_a_misspelt_word_is_told_the_nearest_whatever_option_it_stands_behind(self):
        recipe = self.at("r.json")
        def with_rule(**rule):
            with open(recipe, "w") as file:
                json.dump({"rules": [{"match": "*embed*", **rule}]}, file)
        for words, near in [
            (["quantise", STORIES], "did you mean quantize?"),
            (["Plan", STORIES], "did you mean plan?"),
            (["plan", STORIES, "--Method", "kmeans"], "did you mean --method?"),
            (["plan", STORIES, "--method", "KMEANS"], "did you mean kmeans?"),
            (["plan", STORIES, "--granularity", "Row"], 'did you mean "row"?'),
            (["plan", STORIES, "--coder", "hufman"], 'did you mean "huffman"?'),
            (["plan", STORIES, "--nonfinite", "KEEP"], "did you mean keep?"),
            (["plan", STORIES, "--method", "ecsq-uniform", "--cuts", "plane"], 'did you mean "plain"?'),
            (["plan", STORIES, "--bits", "4", "--bit-allocation", "unifrom"], "did you mean uniform?"),
            (["plan", STORIES, "--for", "gguf:q4_o"], "did you mean gguf:q4_0?"),
            (["plan", STORIES, "--for", "GGUF:Q8_0"], "did you mean gguf:q8_0?"),
            (["plan", STORIES, "--for", "gptq:int4-g123"], "did you mean gptq:int4-g128?"),
            (["plan", STORIES, "--tensor", "*embed*=keeep"], 'did you mean "keep"?'),
            (["plan", STORIES, "--tensor", "*embed*=KMEANS"], 'did you mean "kmeans"?'),
            (["plan", STORIES, "--tensor", "*embed*=granularity=roww"], 'did you mean "row"?'),
            (["plan", STORIES, "--tensor", "*embed*=granlarity=row"], 'did you mean "granularity"?'),
            (["export", "none.h5", "--to", "Safetensors", "-o", "x"], "did you mean safetensors?"),
            (["export", "none.h5", "--to", "gguf:q4_o", "-o", "x"], "did you mean gguf:q4_0?"),
            (["methods", "ECSQ"], "did you mean ecsq?"),
            (["quantize", STORIES, "-o", self.at("o.h5"), "--progress", "Auto"], "did you mean auto?"),
        ]:
            with self.subTest(words=words):
                self.refused(run(*words), 64, near)
        for rule, near in (({"methid": "kmeans"}, 'did you mean "method"?'), ({"method": "Kmeans"}, 'did you mean "kmeans"?'),
                           ({"granularity": "tensr"}, 'did you mean "tensor"?')):
            with_rule(**rule)
            self.refused(run("plan", STORIES, "--recipe", recipe), 64, "rules[0]", near)

    def test_words_of_a_tensor_choice_are_told_apart_from_what_is_wrong_with_them(self):
        for choice, said in (("*embed*=9", "--tensor *embed*=9: bits: found 9,"), ("*embed*=-1", ": bits: found -1,"),
                             ("*embed*=9.bits", 'bits are a number alone'), ("*embed*=6,", "a comma"), ("*embed*=,6", "a comma"),
                             ("*embed*=levels=12,levels=13", '"levels=13" says a second time'), ("*embed*=6,levels=13", "a second time"),
                             ("*embed*=keep,levels=4", "what is kept has no bits or levels")):
            with self.subTest(choice=choice):
                self.refused(run("plan", STORIES, "--tensor", choice), 64, said)

    def test_a_pattern_of_other_letters_or_a_regular_expression_is_named_as_such(self):
        for pattern, said in (("*EMBED*", 'letters differ: it would match "model.embed_tokens.weight"'), ("Embed", "letters differ"),
                              (".*embed.*", 'no regular expressions (\'*\' stands for any text): "*embed*" matches 1'),
                              ("re:.*embed.*", '"*embed*" matches 1'), (r"^model\.embed_tokens\.weight$", '"model.embed_tokens.weight" matches 1'),
                              (r"model.layers.\d.mlp.up_proj.weight", "matches 5"), ("(embed|head).*", "no regular expressions"),
                              ("*embd*", "model.embed_tokens.weight")):
            with self.subTest(pattern=pattern):
                self.refused(run("plan", STORIES, "--tensor", pattern + "=6"), 64, "matches no tensor", said)

    def test_too_many_rules_are_refused_before_they_are_read_to_the_end(self):
        with open(self.at("r.json"), "w") as file:
            file.write('{"rules": [' + '{"match": "x"},' * 65537 + " and this is no JSON at all")
        self.refused(run("plan", STORIES, "--recipe", self.at("r.json")), 64, "at most 65536 rules")

    def test_one_of_a_kind_is_named_in_the_singular(self):
        write_safetensors(self.at("one.safetensors"), {"w": ("BF16", (64, 64), bf16(np.random.default_rng(1).standard_normal((64, 64))))})
        out = self.at("o.h5")
        texts = [self.ok(run(*words)).out for words in (
            ("plan", self.at("one.safetensors"), "-t", 1), ("inspect", self.at("one.safetensors")), ("quantize", self.at("one.safetensors"), "-o", out, "-t", 1),
            ("verify", out), ("inspect", out), ("export", out, "--to", "gguf", "-o", self.at("x.gguf")), ("export", out, "--to", "hdf5", "-o", self.at("x.h5")),
            ("export", out, "--to", "safetensors", "-o", self.at("x")))]
        for text in texts:
            self.assertNotRegex(text, r"(?<![\d.,])1 (tensors|units|records|files|ranks|threads|shards|weights|rows|levels|codebooks)\b")
        for text, word in zip(texts, ("1 tensor: 1 quantized", "1 tensor, 4,096 elements", "1 rank with 1 thread", "1 tensor, 1 unit, 1 record decoded")):
            self.assertIn(word, text)

    def test_suggested_commands_are_one_command_for_a_shell_and_notes_fit_80_columns(self):
        source = self.small_checkpoint()
        plan = self.ok(run("plan", source, "--tensor", "block.0*=6", "--ranks", 2, "-o", "a file.h5")).out
        said = json.loads(self.ok(run("plan", source, "--tensor", "block.0*=6", "--ranks", 2, "-o", "a file.h5", "--json")).out)
        for word, key in (("srun", "srun"), ("mpirun", "mpirun")):
            text = plan[plan.index("\n" + word + " ") + 1:]
            text = re.match(r"(.*\\\n)*.*", text)[0]
            self.assertGreater(text.count("\\\n"), 0)
            words = subprocess.run(["bash", "-c", f"f() {{ printf '%s\n' \"$@\"; }}; f {text}"], stdout=subprocess.PIPE, text=True, check=True).stdout
            whole = subprocess.run(["bash", "-c", f"f() {{ printf '%s\n' \"$@\"; }}; f {said[key]}"], stdout=subprocess.PIPE, text=True, check=True).stdout
            self.assertEqual(words, whole)
        write_safetensors(self.at("i.safetensors"), {f"stranger.{i}.weight.columns": ("F32", (4,), bytes(16)) for i in range(30)} |
                          {"block.0.weight.columns": ("F32", (48,), np.ones(48, "<f4"))})
        done = subprocess.run([LMQ, "plan", source, "--importance", self.at("i.safetensors"), "--method", "kmeans", "--levels", "4"],
                              stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment())
        self.assertIn("lmq: note: importance: unused are", done.stderr)
        for line in done.stderr.splitlines():
            self.assertLessEqual(len(line), 80)
            self.assertTrue(line.startswith(("lmq: note: ", "  ")), line)


    def test_reasons_that_quote_long_names_fit_the_line(self):
        long = "model.language_model.layers.{}.mlp.experts.gate_up_proj_of_words"
        write_safetensors(self.at("m.safetensors"), {"a.weight": ("F32", (64, 64), np.ones((64, 64), "<f4"))} | {
            long.format(i) + end: tensor for i in range(2) for end, tensor in (
                (".qweight", ("I32", (64, 64), bytes(4 * 4096))), (".scales", ("F16", (4, 64), bytes(512))))})
        self.ok(run("quantize", self.at("m.safetensors"), "-o", self.at("o.h5"), "--method", "uniform", "--levels", 4))
        for words in (("plan", self.at("m.safetensors")), ("verify", self.at("o.h5")), ("inspect", self.at("o.h5")), ("inspect", self.at("m.safetensors"))):
            for line in run(*words).out.splitlines():
                if self.folder not in line and not line.startswith("model."):   # names are not cut
                    self.assertLessEqual(len(line), 80, line)
            if words[0] != "verify":
                summary = self.ok(run(*words, "--summary")).out
                self.assertEqual(len([line for line in summary.splitlines() if line.startswith(long.format("*") + ".qweight")]), 1, summary)

    def test_quiet_leaves_no_notes(self):
        source = self.at("m.safetensors")
        write_safetensors(source, {f"l{i}.weight": ("F32", (32, 33), np.random.default_rng(i).standard_normal((32, 33)).astype("<f4")) for i in range(2)} |
                          {"keep.weight": ("F32", (200, 200), np.ones((200, 200), "<f4"))})
        write_safetensors(self.at("i.safetensors"), {"l0.weight.gram": ("F32", (33, 33), np.eye(33, dtype="<f4"))})
        words = (source, "--importance", self.at("i.safetensors"), "--tensor", "keep*=keep", "--nonfinite", "keep")
        self.assertIn("lmq: note: ", self.ok(run("plan", *words)).err)
        self.assertEqual(self.ok(run("plan", *words, "-q")).err, "")
        self.assertIn("lmq: note: ", self.ok(run("quantize", *words, "-o", self.at("o.h5"))).err)
        self.assertEqual(self.ok(run("quantize", *words, "-o", self.at("o.h5"), "-q")).err, "")

    def test_an_advised_pattern_matches(self):
        for pattern in ("*embed", "embed", "**embed", "embed*", "*embed?", "*.up", "*up_proj"):
            with self.subTest(pattern=pattern):
                done = run("plan", STORIES, "--tensor", pattern + "=6")
                self.refused(done, 64, "matches no tensor")
                advised = re.search(r'whole names: "(.*?)" matches (\d+)', done.err)
                self.assertNotIn("**", advised[1])
                self.ok(run("plan", STORIES, "--tensor", advised[1] + "=6"))

    def test_version_and_help_answer_to_what_people_type(self):
        said = self.ok(run("--version")).out
        for word in ("version", "-V"):
            self.assertEqual(self.ok(run(word)).out, said)
        for word, near in (("verison", "did you mean version?"), ("hepl", "did you mean help?"), ("--verison", "did you mean --version?"),
                           ("-v", "lmq --version"), ("version x", "unknown command")):
            self.refused(run(word), 64, near)

    def test_lines_fit_and_a_number_stays_with_its_unit(self):
        out, other = self.at("o.h5"), self.small_checkpoint("another_name_that_is_rather_long_for_a_file.safetensors", rows=65)
        self.ok(run("quantize", self.small_checkpoint(), "-o", out))
        for width in (40, 52, 80, 100):
            for words in (("verify", out), ("verify", out, "--against", other), ("export", out, "--to", "safetensors", "-o", self.at(f"x{width}")),
                          ("export", out, "--to", "gguf", "-o", self.at("x.gguf"))):
                done = run(*words, COLUMNS=width)
                for line in done.out.splitlines():
                    if len(line.split()) > 1 and max(map(len, line.split())) < 40:
                        self.assertLessEqual(len(line), width, line)
                self.assertNotRegex(done.out, r"\d\n *(s|ms|B|KiB|tensors?|units?|files?|records?)\b")

if __name__ == "__main__":
    unittest.main()
