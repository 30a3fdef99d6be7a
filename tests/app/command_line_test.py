"""The command line: exit codes, one line for each error, JSON that parses, streams that break."""
import json
import os
import re
import subprocess
import unittest

import numpy as np

from lmq_harness import LMQ, SHARDED, STORIES, LmqTest, bf16, environment, run, sha256, write_safetensors


class CommandLine(LmqTest):
    def test_a_recipe_that_keeps_a_tensor_leaves_the_others_as_they_are_without_it(self):
        kept, source = "embed.weight", self.at("model.safetensors")
        values = np.random.default_rng(2).standard_normal((2, 64, 64)) * 0.1
        write_safetensors(source, {kept: ("BF16", (64, 64), bf16(values[0])), "a.weight": ("BF16", (64, 64), bf16(values[1]))})
        for size, words in (({}, ()), ({"target_bits": 11}, ("--bits", "11"))):
            with open(self.at("keep.json"), "w") as file:
                json.dump({**size, "rules": [{"match": kept, "keep": True}]}, file)
            said = [json.loads(self.ok(run("plan", source, *how, "--json")).out)["tensors"][0]
                    for how in (("--recipe", self.at("keep.json")), (*words, "--tensor", kept + "=keep"))]
            for tensor in said:
                for of_file in ("rule", "expected_bits_per_weight", "expected_snr_db"):  # the recipe is in the file, too
                    tensor.pop(of_file, None)
            self.assertEqual(*said)

    def test_without_arguments_help_is_shown_and_the_code_is_usage(self):
        done = run()
        self.assertEqual(done.code, 64, done)
        self.assertIn("usage: lmq", done.out)

    def test_help_and_version_go_to_standard_output(self):
        self.assertIn("quantize", self.ok(run("--help")).out)
        for command in ("quantize", "plan", "inspect", "verify", "export", "methods"):
            done = self.ok(run(command, "--help"))
            self.assertIn(f"usage: lmq {command}", done.out)
            self.assertEqual(done.err, "")
            self.assertEqual(done.out, self.ok(run("help", command)).out)
        version = self.ok(run("--version")).out
        for word in ("lmq 0.", "commit", "compiler", "HDF5", "MPI", "vectors", "threads"):
            self.assertIn(word, version)
        self.assertIn("baseline", self.ok(run("--version", LMQ_ISA="baseline")).out)

    def test_manual_pages_and_completion_have_every_command_and_option(self):
        overview = self.ok(run("--man")).out
        completion = self.ok(run("--completion", "bash")).out
        subprocess.run(["bash", "-n"], input=completion, text=True, check=True)
        for command in ("quantize", "plan", "inspect", "verify", "export", "methods"):
            self.assertIn(f"lmq-{command}", overview.replace("\\", ""))
            page = self.ok(run("--man", command)).out.replace("\\", "")
            self.assertTrue(page.startswith(f".TH lmq-{command} 1 "), page[:80])
            for section in ("NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "EXIT STATUS", "EXAMPLES", "SEE ALSO"):
                self.assertIn(f"\n.SH {section}\n", page)
            for option in re.findall(r"^ {2,6}(?:-., )?(--[a-z0-9-]+)", run(command, "--help").out, re.M):
                self.assertIn(f"fB{option}fR", page)
                self.assertIn(option, re.search(rf"^_lmq_{command}\(\) {{.*?^}}", completion, re.M | re.S)[0])

    def test_words_that_completion_offers_are_accepted(self):
        completion = self.ok(run("--completion", "bash")).out
        plan = re.search(r"^_lmq_plan\(\) {.*?^}", completion, re.M | re.S)[0]
        offered = [(option.split("|")[0], words.split()) for option, words in re.findall(r"^ +(\S+)\) words='(.*)' ;;", plan, re.M)]
        self.assertGreater(len(offered), 5)
        for option, words in offered:
            for word in words:
                done = run("plan", "no-such-file", option, word)
                self.assertNotIn("expected", done.err, (option, word))
                self.assertNotIn("unknown", done.err, (option, word))

    # More than 40 lines: a table, a line for each mistake.
    def test_bad_command_lines_are_refused_in_one_line(self):
        out = self.at("out.h5")
        quantize = ["quantize", STORIES, "-o", out]
        recipe = self.at("recipe.json")
        with open(recipe, "w") as file:
            file.write('{"rules": [{"match": "*", "methid": "kmeans"}]}')
        good = self.at("good.json")
        with open(good, "w") as file:
            file.write('{"version": 1}')
        for words, code, expected in [
            (["quantise", STORIES], 64, ["quantise", "quantize"]),
            (["--verbose"], 64, ["--verbose"]),
            (["frobnicate"], 64, ["frobnicate"]),
            (["help", "quantise"], 64, ["quantize"]),
            (["--man", "quantise"], 64, ["quantize"]),
            (["--man", "plan", "more"], 64, ["more"]),
            (["--completion"], 64, ["bash"]),
            (["--completion", "fish"], 64, ["bash", "fish"]),
            (["plan", STORIES, "--storage", "4G"], 64, ["--storage", "--simulate"]),
            (["plan", STORIES, "--simulate", "0"], 64, ["--simulate 0", "from 1 to 65536"]),
            (["plan", STORIES, "--simulate", "1,,8"], 64, ["--simulate", "whole number"]),
            (["plan", STORIES, "--simulate", "8", "--rank-io", "0"], 64, ["--rank-io 0"]),
            (["plan", STORIES, "--simulate", "8", "--cores", "0"], 64, ["--cores 0"]),
            (["methods", "kmean"], 64, ["did you mean kmeans"]),
            (["methods", "kmeans", "asq"], 64, ["one method"]),
            (["quantize"], 64, ["INPUT"]),
            (["quantize", STORIES], 64, ["-o"]),
            (["quantize", STORIES, SHARDED, "-o", out], 64, ["one input"]),
            (quantize + ["--metod", "kmeans"], 64, ["--metod", "--method"]),
            (quantize + ["--bit=4"], 64, ["--bit'", "--bits"]),      # no guessing of abbreviations
            (quantize + ["--target-size", "0"], 64, ["--target-size 0"]),
            (quantize + ["--target-size", "much"], 64, ["much"]),
            (quantize + ["--target-size", "4K"], 64, ["4096 bytes (4.00 KiB)", "at least"]),
            (quantize + ["--target-size", "1G", "--bits", "4"], 64, ["--target-size", "--bits"]),
            (quantize + ["--method", "ecsq", "--bits", "99"], 64, ["--bits 99", "64"]),
            (quantize + ["--method", "ecsq", "--bits", "5", "--lambda", "0.1"], 64, ["no tensor is left"]),
            (quantize + ["--method", "kmean"], 64, ["did you mean kmeans?"]),
            (quantize + ["--method="], 64, ["--method"]),
            (quantize + ["--bits"], 64, ["bits"]),
            (quantize + ["--bits", "0"], 64, ["--bits 0", "0.01 to 64"]),
            (quantize + ["--bits", "65"], 64, ["--bits 65"]),
            (quantize + ["--bits", "many"], 64, ["--bits many"]),
            (quantize + ["--bits", "4", "--bits", "4"], 64, ["more than once"]),
            (quantize + ["--bits", "4", "--levels", "16"], 64, ["--bits", "--levels"]),
            (quantize + ["--levels", "1"], 64, ["--levels: found 1,"]),
            (quantize + ["--levels", "257"], 64, ["--levels: found 257", "2..256"]),
            (quantize + ["--granularity", "column"], 64, ["--granularity: found \"column\"", "\"model\", \"tensor\", \"row\", \"group\""]),
            (quantize + ["--granularity", "row", "--group", "32"], 64, ["--group 32", "row"]),
            (quantize + ["--group", "0"], 64, ["--group: found 0"]),
            (quantize + ["--group", "1"], 64, ["group"]),
            (quantize + ["--coder", "zip"], 64, ["zip", "rans"]),
            (quantize + ["--method", "binary-1", "--scale", "rank1"], 64, ["--scale:", "row"]),
            (quantize + ["--method", "binary-k", "--levels", "8", "--mode", "exact"], 64, ["exact"]),
            (quantize + ["--method", "binary-2", "--levels", "8"], 64, ["--method \"binary-2\"", "4 levels"]),
            (quantize + ["--level-type", "bf16"], 64, ["bf16"]),
            (quantize + ["--nonfinite", "drop"], 64, ["drop"]),
            (quantize + ["--memory", "lots"], 64, ["lots"]),
            (quantize + ["--memory", "0"], 64, ["--memory 0"]),
            (quantize + ["--memory", "1M"], 64, ["--memory", "needs"]),
            (quantize + ["--threads", "0"], 64, ["--threads 0"]),
            (quantize + ["--threads", "two"], 64, ["two"]),
            (quantize + ["--resume", "maybe"], 64, ["maybe", "never"]),
            (quantize + ["--max-time", "-1"], 64, ["--max-time"]),
            (quantize + ["--max-time", "nan"], 64, ["--max-time"]),
            (quantize + ["--max-time", "2 hours"], 64, ["--max-time", "2 hours", "1h30m"]),
            (["quantize", STORIES, "-o", "-"], 64, ["-o -", "pipe"]),
            (quantize + ["--tensor", "*embed*"], 64, ["--tensor *embed*", "PATTERN=WHAT"]),
            (quantize + ["--tensor", "=4"], 64, ["PATTERN=WHAT"]),
            (quantize + ["--tensor", "*embed*="], 64, ["PATTERN=WHAT"]),
            (quantize + ["--tensor", "*embed*=9"], 64, ["--tensor *embed*=9", "1..8"]),
            (quantize + ["--tensor", "*embed*=kmean"], 64, ["--tensor *embed*=kmean", "did you mean \"kmeans\"?"]),
            (quantize + ["--tensor", "*embed*=kmeans,uniform"], 64, ["two methods"]),
            (quantize + ["--tensor", "*embed*=keep,levels=4"], 64, ["--tensor", "keep"]),
            (quantize + ["--tensor", "*embed*=levls=4"], 64, ["levls", "did you mean \"levels\"?"]),
            (quantize + ["--tensor", "*=4", "--tensor", "*embed*=6"], 64, ["never applies"]),
            (quantize + ["--tensor", "*.mlp.up_prj.weight=6"], 64,
             ["--tensor *.mlp.up_prj.weight=6", "matches no tensor", "model.layers.0.mlp.up_proj.weight"]),
            (quantize + ["--progress", "loud"], 64, ["loud"]),
            *((quantize + ["--importance", "i.safetensors", "--importance-damping", bad], 64,
               [f"--importance-damping {bad}", "a number from 0 (as it is) to 1000000"]) for bad in ("-1", "1000001")),
            *((quantize + ["--importance", "i.safetensors", "--importance-damping", bad], 64,
               [f"--importance-damping {bad}: a number"]) for bad in ("nan", "inf", "much")),
            (quantize + ["--importance-damping", "1"], 64, ["--importance-damping belongs to --importance"]),
            (quantize + ["--recipe", recipe, "--bits", "4"], 64, ["--bits", "--recipe"]),
            (quantize + ["--recipe", good, "--nonfinite", "keep"], 64, ["--nonfinite", "--recipe"]),
            (quantize + ["--recipe", recipe], 64, ["methid", "method"]),
            (quantize + ["--recipe", self.at("none.json")], 66, ["none.json"]),
            (quantize + ["--importance", self.at("none.safetensors")], 66, ["none.safetensors"]),
            (["quantize", self.at("none"), "-o", out], 66, ["none"]),
            (["plan", STORIES, "--ranks", "0"], 64, ["--ranks"]),
            (["plan", STORIES, "--resume", "auto"], 64, ["--resume"]),
            (["inspect", self.at("none.h5")], 66, ["none.h5"]),
            (["inspect", STORIES, "--jason"], 64, ["--json"]),
            (["verify", self.at("none.h5")], 66, ["none.h5"]),
            (["verify", os.path.join(STORIES, "model.safetensors")], 69, ["a safetensors file", "lmq quantize"]),
            (["export", out, "-o", self.at("x")], 64, ["--to"]),
            (["export", out, "--to", "onnx", "-o", self.at("x")], 64, ["onnx", "safetensors", "gguf"]),
            (["export", out, "--to", "safetensor", "-o", self.at("x")], 64, ["--to safetensor:", "did you mean safetensors?"]),
            (["export", out, "--to", "safetensors"], 64, ["-o"]),
            (["export", out, "--to", "safetensors", "-o", self.at("x")], 66, ["out.h5"]),
        ]:
            with self.subTest(words=words[:1] + words[2:]):
                done = run(*words)
                self.refused(done, code, *expected)
                self.assertEqual(done.out, "")
                self.assertFalse(os.path.exists(out))
        self.assertEqual(sorted(os.listdir(self.folder)), ["good.json", "recipe.json"])  # refused before work begins

    def test_under_mpirun_one_line_is_said_and_the_code_comes_through(self):
        self.refused(run("quantize", STORIES, "-o", self.at("x.h5"), "--bots", "4", ranks=3), 64, "--bits")
        self.refused(run("quantize", self.at("none"), "-o", self.at("x.h5"), ranks=3), 66, "none")
        self.assertEqual(self.ok(run("methods", ranks=2)).out.count("\nkmeans "), 1)

    def test_methods_lists_every_method_with_its_source(self):
        text = self.ok(run("methods")).out
        self.assertTrue(text.startswith("What to take\n"), text)  # for those who do not know the methods
        self.assertIn("--bits 4", text.split("\n\n")[0])
        for word in ("uniform", "kmeans", "source"):
            self.assertIn(word, text)

    def test_help_fits_the_terminal_and_names_every_option_once(self):
        for columns in (60, 80, 132):
            for command in ("quantize", "plan", "inspect", "verify", "export", "methods"):
                with self.subTest(columns=columns, command=command):
                    text = self.ok(run(command, "--help", COLUMNS=str(columns))).out
                    # Words that are typed are not broken; they fit the usual width.
                    examples = [line for line in text.splitlines() if line.startswith(("  lmq ", "  mpirun ", "  srun ")) and columns < 80]
                    lines = [line for line in text.splitlines() if line not in examples and not line.startswith("usage:")]
                    self.assertLessEqual(max(map(len, lines)), columns, text)
                    self.assertGreater(max(map(len, lines)), columns - 25 if command == "quantize" else 20)
        text = self.ok(run("quantize", "--help")).out
        titles = ["Input and output", "What to spend", "Options of methods", "Running", "Seldom needed"]
        self.assertEqual(sorted(titles, key=text.index), titles)
        for option in ("--output", "--method", "--bits", "--tensor", "--memory", "--max-time", "--coder", "--help"):
            self.assertEqual(len([line for line in text.splitlines() if line[6:].startswith(option + " ") or line[6:] == option]), 1, option)
        for option in ("--lambda", "--restarts", "--seed"):
            self.assertIn(option, text)

    def test_methods_explains_one_method(self):
        text = self.ok(run("methods", "ecsq")).out
        for word in ("ecsq", "--rate", "--lambda", "bits per weight", "default"):
            self.assertIn(word, text)
        self.assertNotIn("kmeans", text)
        self.assertIn("no options", self.ok(run("methods", "uniform")).out)
        known = json.loads(self.ok(run("methods", "--json")).out)["methods"]
        self.assertGreaterEqual(len(known), 17)
        self.assertIn("rate", [option["name"] for method in known if method["name"] == "ecsq" for option in method["options"]])

    def test_tables_fit_80_columns_and_a_summary_has_a_line_for_each_kind(self):
        out = self.at("out.h5")
        done = self.ok(run("quantize", SHARDED, "-o", out, "--progress", "none"))
        short = self.ok(run("quantize", SHARDED, "-o", self.at("short.h5"), "--progress", "none", "--summary")).out
        tables = {"quantize": done.out, "summary quantize": short, "plan": self.ok(run("plan", SHARDED, "-o", "x.h5")).out, "methods": self.ok(run("methods")).out}
        for name in (SHARDED, out):
            tables["inspect " + name] = self.ok(run("inspect", name)).out
            tables["summary " + name] = self.ok(run("inspect", name, "--summary")).out
        tables["summary plan"] = self.ok(run("plan", SHARDED, "--summary")).out
        long = {"a.weight": ("F32", (2, 3, 4, 5, 6, 7), bytes(4 * 5040)), "b" * 70: ("F32", (64, 64), np.random.default_rng(1).standard_normal((64, 64)).astype("<f4")),
                **{"c" + kind: (kind, (4, 100), bytes(400 * size)) for kind, size in (("I64", 8), ("BOOL", 1), ("F64", 8), ("I32", 4), ("U16", 2), ("F16", 2))}}
        write_safetensors(self.at("long.safetensors"), long)
        write_safetensors(self.at("many.safetensors"), {f"x.{i}.{'y' * 68}": long["b" * 70] for i in range(3)})
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(self.folder)   # short names
        for what in (["plan", "long.safetensors", "--target-size", "300K", "--ranks", "16"], ["plan", "long.safetensors", "--curve", "b" * 70],
                     ["plan", "long.safetensors", "--tensor", "*" + "b" * 60 + "*=kmeans,levels=12,granularity=row", "--simulate", "1,8,64"],
                     ["plan", "many.safetensors", "--summary"], ["inspect", "long.safetensors"], ["verify", "out.h5"], ["--version"], ["--help"], ["methods", "-h"]):
            tables[" ".join(what)] = self.ok(run(*what)).out
        for method in json.loads(self.ok(run("methods", "--json")).out)["methods"]:
            tables["methods " + method["name"]] = self.ok(run("methods", method["name"])).out
        for what, text in tables.items():
            with self.subTest(what=what):   # but for what users have named
                lines = [l for l in text.splitlines() if self.folder not in l and SHARDED not in l and "b" * 60 not in l]
                self.assertLessEqual(max(map(len, lines)), 80, "\n".join(lines))
        for what, text in tables.items():
            if what.startswith("summary"):
                self.assertIn("model.layers.*.mlp.up_proj.weight (5 tensors)", text)
                self.assertNotIn("model.layers.3", text)
                self.assertLess(len(text.splitlines()), 45)

    def test_json_goes_where_it_is_told_for_every_command(self):
        out, report = self.at("out.h5"), self.at("r.json")
        self.ok(run("quantize", STORIES, "-o", out, "--progress", "none"))
        for words, key in ((["quantize", STORIES, "-o", self.at("o.h5"), "--progress", "none"], "totals"), (["plan", STORIES], "units"),
                           (["inspect", STORIES], "shards"), (["inspect", out], "ledger"), (["verify", out], "differences"),
                           (["export", out, "--to", "safetensors", "-o", self.at("x.safetensors")], "tensors")):
            with self.subTest(words=words):
                for more in (["--json"], ["--json", "-"], ["--json=-"], ["--json"] + ["--threads", "1"] * (words[0] != "inspect")):
                    self.assertIn(key, json.loads(self.ok(run(*words, *more)).out))
                self.assertIn(key, json.loads(self.ok(run(words[0], "--json", *words[1:])).out))   # before the input
                for more in (["--json", report], ["--json=" + report]):
                    done = self.ok(run(*words, *more))
                    with open(report) as file:
                        self.assertIn(key, json.load(file))
                    self.assertTrue(done.out and not done.out.startswith("{"))
                    os.remove(report)
        self.ok(run("methods", "--json", report))   # no method of that name: a file
        self.assertEqual([m["name"] for m in json.loads(self.ok(run("methods", "--json", "ecsq")).out)["methods"]], ["ecsq"])
        with open(report) as file:
            self.assertGreater(len(json.load(file)["methods"]), 16)
        self.assertEqual(sorted(os.listdir(self.folder)), ["o.h5", "out.h5", "r.json", "x.safetensors"])
        self.refused(run("plan", STORIES, "--json", self.at("no", "r.json")), 73, "r.json")

    def test_the_report_of_an_export_says_what_was_made(self):
        out = self.at("out.h5")
        self.ok(run("quantize", STORIES, "-o", out, "--method", "gptq", "--levels", "16", "--group", "32", "-q"))
        for form, more, keys in (("safetensors", [], {"files", "index"}), ("safetensors", ["--source", STORIES], {"copied", "left_out"}),
                                 ("gguf", [], {"types", "fallbacks"}), ("gguf:q4_0", [], {"types"}), ("hdf5", [], {"rounding_squared_error"}),
                                 ("compressed-tensors", ["--source", STORIES], {"schemes", "plain", "copied"})):
            path = self.at("x-" + form.replace(":", "-") + str(len(more)))
            report = json.loads(self.ok(run("export", out, "--to", form, "-o", path, *more, "--json")).out)
            self.assertLessEqual(keys | {"tensors", "bytes"}, set(report))
            self.assertEqual((report["input"], report["output"], report["format"]), (out, path, form))
        self.refused(run("export", out, "--to", "gguf", "-o", self.at("a"), "--json", self.at("a")), 64, "that is the output")

    def test_quiet_says_nothing_and_makes_the_same_file(self):
        for more in ([], ["--json", self.at("r.json")]):
            done = self.ok(run("quantize", STORIES, "-o", self.at("q.h5"), "--quiet", *more))
            self.assertEqual((done.out, done.err), ("", ""))
        for words in (["verify", self.at("q.h5"), "-q"], ["inspect", self.at("q.h5"), "-q"], ["inspect", STORIES, "-q"], ["methods", "-q"],
                      ["methods", "kmeans", "-q"], ["export", self.at("q.h5"), "--to", "safetensors", "-o", self.at("x.safetensors"), "-q"]):
            done = self.ok(run(*words))
            self.assertEqual((done.out, done.err), ("", ""))
        self.assertTrue(json.loads(self.ok(run("quantize", STORIES, "-o", self.at("q.h5"), "--quiet", "--json")).out))
        self.refused(run("quantize", STORIES, "-o", self.at("q.h5"), "--quiet", "--bits", "0"), 64, "--bits")

    def test_a_file_that_grew_is_said_to_be_larger(self):
        source = self.at("small.safetensors")
        write_safetensors(source, {"w": ("BF16", (32, 32), bytes(2048))})
        self.assertRegex(self.ok(run("quantize", source, "-o", self.at("g.h5"), "--progress", "none", "--tensor", "w=keep")).out,
                         r"bits per weight, [1-9][.]\d\d times larger\n")
        self.assertIn(" times smaller\n", self.ok(run("quantize", SHARDED, "-o", self.at("s.h5"), "--progress", "none")).out)

    def test_tensor_choices_are_rules_before_all_others(self):
        out = self.at("out.h5")
        choices = ["--tensor", "*embed*=6", "--tensor", "*.mlp.*=uniform", "--tensor", "*q_proj*=keep", "--tensor", "*k_proj*=levels=5,coder=fixed"]
        def made(*more):
            self.ok(run("quantize", STORIES, "-o", out, "--progress", "none", *more))
            stored = json.loads(run("inspect", out, "--json").out)
            return {t["name"]: t for t in stored["tensors"]}, stored["recipe"]
        tensors, recipe = made("--levels", "8", "--granularity", "row", *choices)
        self.assertEqual([r["match"] for r in recipe["rules"]][:4], ["*embed*", "*.mlp.*", "*q_proj*", "*k_proj*"])
        self.assertEqual(recipe["rules"][0]["levels"], 64)
        self.assertEqual(recipe["rules"][0]["granularity"], "row")   # as the other options say
        self.assertEqual((recipe["rules"][1]["method"], recipe["rules"][1]["levels"]), ("uniform", 16))
        self.assertEqual(recipe["rules"][3]["levels"], 5)
        self.assertEqual(recipe["rules"][-1]["levels"], 8)
        self.assertEqual(tensors["model.layers.0.self_attn.q_proj.weight"]["method"], "raw")
        self.assertEqual(tensors["model.layers.0.mlp.up_proj.weight"]["method"], "uniform")
        # The same as a recipe, the stored text serves as one, and a recipe's rules come after.
        with open(self.at("stored.json"), "w") as file:
            json.dump(recipe, file)
        first = sha256(out)
        self.assertEqual(made("--recipe", self.at("stored.json"))[1], recipe)
        self.assertEqual(sha256(out), first)
        mixed = made("--recipe", self.at("stored.json"), "--tensor", "*embed*=keep")[1]
        self.assertEqual(mixed["rules"][:2], [{"keep": True, "match": "*embed*"}, recipe["rules"][0]])
        # What decides is shown.
        plan = json.loads(self.ok(run("plan", STORIES, "--levels", "8", *choices, "--json")).out)
        rules = {t["name"]: t["rule"] for t in plan["tensors"]}
        self.assertEqual(rules["model.embed_tokens.weight"], "--tensor *embed*=6")
        self.assertEqual(rules["model.layers.0.self_attn.v_proj.weight"], "the command line")
        self.assertIsNone(rules["model.norm.weight"])
        self.assertIn("--tensor '*embed*=6'", plan["srun"])
        self.assertIn("(--tensor *embed*=6)", " ".join(self.ok(run("plan", STORIES, "--levels", "8", *choices)).out.split()))
        self.assertIn("(rules[0])", " ".join(self.ok(run("plan", STORIES, "--recipe", self.at("stored.json"))).out.split()))
        done = self.ok(run("plan", STORIES, "--levels", "8", "--tensor", "*.mlp.*=5", "--tensor", "*up_proj*=6"))
        self.assertIn("decides no tensor", done.err)
        spent = made("--method", "ecsq", "--target-size", "900K", "--tensor", "*embed*=6")[1]["rules"][0]
        self.assertEqual((spent["method"], spent["rate"]), ("ecsq", 6))

    def test_options_that_a_method_has_not_or_out_of_bounds_are_refused(self):
        out = self.at("x.h5")
        quantize = ["quantize", STORIES, "-o", out, "--progress", "none"]
        for more, words in [
            (["--method", "sls-l1", "--lambda", "-1"], ["lambda", "-1", "0 to"]),
            (["--method", "sls-l1", "--lambda", "nan"], ["--lambda: found", "nan", "number"]),
            (["--method", "sls-l1", "--lambda", "1", "--lambda-relative", "0.5"], ["lambda-relative", "one of them"]),
            (["--method", "sls-l1", "--lambda-relative", "1.5"], ["lambda-relative", "1.5", "0 to 1"]),
            (["--method", "sls-l1", "--lambda", "1e-9"], ["tensor 'model.", "at most 256", "instead of it finds the least lambda that does"]),
            (["--method", "sls-l1", "--lambda", "1e-9", "--levels", "9"], ["tensor 'model.", "at most 9 are wanted", "instead of it finds the least lambda that does"]),
            (["--method", "sls-l1", "--offset", "none"], ["offset", "none", "penalised"]),
            (["--method", "sls-l1l2", "--lambda2", "-1"], ["tensor 'model.", "not convex", "above"]),
            (["--method", "sls-l0", "--zero", "exakt"], ["zero", "exakt", "exact"]),
            (["--method", "sls-iter", "--max-error", "1e-9"], ["tensor 'model.", "256 levels leave"]),
            (["--method", "sls-iter", "--max-error", "2"], ["max-error", "0 to 1"]),
            (["--method", "sls-cluster", "--seed", "1.5"], ["seed", "whole"]),
            (["--method", "sls-cluster", "--restarts", "0"], ["restarts", "1 to"]),
            (["--method", "kmeans", "--max-error", "0.5"], ["max-error", "sls-iter"]),
        ]:
            for ranks in (0, 2):
                with self.subTest(more=more, ranks=ranks):
                    self.refused(run(*quantize, *more, ranks=ranks), 64, *words)
                    self.assertFalse(os.path.exists(out))
        # So large that one level remains, and levels above the distinct values, are no mistakes.
        done = self.ok(run(*quantize, "--method", "sls-l1", "--lambda", "1e30"))
        self.ok(run("verify", out, "--against", STORIES))
        few = self.at("few.safetensors")
        write_safetensors(few, {"few.weight": ("BF16", (64, 64), bf16(np.resize([1, 2, 3, 5], (64, 64)))),
                                "constant.weight": ("F32", (64, 64), np.full((64, 64), 2.5, np.float32)),
                                "empty.weight": ("F32", (0, 64), b"")})
        for method in ("sls-l1", "sls-l1l2", "sls-l0", "sls-iter", "sls-cluster"):
            for granularity in ("tensor", "row"):
                self.ok(run("quantize", few, "-o", out, "--progress", "none", "--method", method, "--levels", "256", "--granularity", granularity))
                tensors = json.loads(run("inspect", out, "--json").out)["tensors"]
                self.assertEqual([t.get("squared_error", 0) for t in tensors], [0, 0, 0])

    def test_inspect_tells_a_checkpoint_by_its_content(self):
        for path in (SHARDED, os.path.join(SHARDED, "model.safetensors.index.json"), os.path.join(STORIES, "model.safetensors")):
            listing = json.loads(self.ok(run("inspect", path, "--json")).out)
            self.assertEqual(listing["format"], "safetensors")
            self.assertEqual(len(listing["tensors"]), 47)
            self.assertIn("model.norm.weight", self.ok(run("inspect", path)).out)

    def test_broken_streams_are_no_crash(self):
        with open("/dev/full", "w") as full:
            self.refused(run("inspect", STORIES, stdout=full), 74, "standard output")
        closed = subprocess.run(["bash", "-c", '"$0" inspect "$1" >&-', LMQ, STORIES], env=environment(), stderr=subprocess.PIPE)
        self.assertEqual(closed.returncode, 74)
        piped = subprocess.run(["bash", "-c", 'set -o pipefail; "$0" inspect "$1" --json | true; echo ${PIPESTATUS[0]}', LMQ, SHARDED],
                               env=environment(), capture_output=True)
        self.assertEqual(piped.stdout.strip(), b"0")
        self.assertEqual(piped.stderr, b"")
        everything = subprocess.run(["bash", "-c", '"$0" quantize "$1" -o "$2" --progress none <&- >&- 2>&-', LMQ, STORIES, self.at("x.h5")],
                                    env=environment())
        self.assertEqual(everything.returncode, 0)   # the table could not be written, the file could
        self.ok(run("verify", self.at("x.h5"), "--against", STORIES))


if __name__ == "__main__":
    unittest.main()
