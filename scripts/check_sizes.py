"""Sizes of files and functions, for check-layers.

No file has more than 400 lines, no function more than 40 between its braces or more than 5 parameters, unless the
comment above it says "More than 40 lines: REASON" or "More than 5 parameters: REASON" (of a function that is declared and
defined, once in its room). A function of Python is measured without its words. Kernels take plain arrays and numbers, which stay in registers: their parameters are not counted.
"""
import ast
import re

MAX_FILE, MAX_LINES, MAX_PARAMETERS = 400, 40, 5
NOT_FUNCTIONS = {"if", "for", "while", "switch", "return", "sizeof", "decltype", "noexcept", "alignas", "catch", "assert", "requires"}


def without_texts(text):
    """The text with comments blanked and literals as runs of x, lines and columns kept."""
    token = re.compile(r'//[^\n]*|/\*.*?\*/|R"\(.*?\)"|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.S)
    return token.sub(lambda found: re.sub(r"[^\n]", " " if found[0].startswith("/") else "x", found[0]), text)


def comment_above(lines, at):
    """The comment lines above line `at` (from 0), attributes and template lines between allowed."""
    said = []
    for line in reversed(lines[:at]):
        shown = line.strip()
        if shown.startswith("//"):
            said.append(shown)
        elif said or not re.match(r"(template\b|HWY_|\[\[|requires\b|class\b|typename\b)", shown):
            break
    return " ".join(said)


def heads(code):
    """Position of each opening brace -> where its statement begins: behind the last ; or brace that is none of an initialiser. Braces
    that a comma, a parenthesis or another opening brace follows are initialisers: members of a constructor, defaults of parameters."""
    found, open_braces, begins = {}, [], [0]   # begins: of the statement at each depth
    for sign in re.finditer(r"[{};]", code):
        at = sign.start()
        if sign[0] == "{":
            found[at] = begins[-1]
            open_braces.append(at)
            begins.append(at + 1)
        elif sign[0] == "}" and open_braces:
            open_braces.pop()
            begins.pop()
            if not re.match(r"\s*[,){]", code[at + 1:at + 200]):
                begins[-1] = at + 1
        elif sign[0] == ";":
            begins[-1] = at + 1
    return found


def bodies(code):
    """(line of the signature, lines between the braces) of each function with a body."""
    head_of, open_braces = heads(code), []
    for found in re.finditer(r"[{}]", code):
        if found[0] == "{":
            open_braces.append(found.start())
            continue
        if not open_braces:
            continue
        begin = open_braces.pop()
        head = head_of[begin]
        signature = code[head:begin].strip()
        while access := re.match(r"(?:public|private|protected):\s*|#[^\n]*\n\s*", signature):
            signature = signature[access.end():]
        head += code[head:begin].find(signature)
        word = re.match(r"(?:\[\[\w+\]\]\s*)?([A-Za-z_]\w*)", signature)
        if "(" in signature and word and word[1] not in NOT_FUNCTIONS | {"else", "do", "try", "namespace", "struct", "class", "enum", "union"}:
            yield code.count("\n", 0, head), code.count("\n", begin, found.start()) - 1


def long_lists(code):
    """(line, name, parameters) of declarations of functions with more parameters than MAX_PARAMETERS."""
    for found in re.finditer(r"(\boperator\s*\(\s*\)|\b[A-Za-z_]\w*|\])\s*\(", code):
        before = code[max(0, found.start() - 200):found.start()].rstrip()
        named = found[1] != "]"   # else a lambda
        if named and (found[1] in NOT_FUNCTIONS or not re.search(r"([\w>&*\]]|::)$", before) or re.search(r"\b(return|throw|new|else|case)$", before)):
            continue
        depth, angles, commas, at = 0, 0, 0, found.end() - 1
        while at < len(code):
            sign = code[at]
            depth += (sign in "([{") - (sign in ")]}")
            if depth == 0:
                break
            if depth == 1:
                angles = max(0, angles + (sign == "<") - (sign == ">" and code[at - 1] != "-"))
                commas += sign == "," and angles == 0
            at += 1
        first = code[found.end():at].split(",")[0].strip()
        if commas >= MAX_PARAMETERS and not re.fullmatch(r"[x\s]+", first) and re.search(r"\w[\w:<>&*\s]*[\s&*]\w+$", first):
            yield code.count("\n", 0, found.start()), found[1] if named else "a lambda", commas + 1


def python_functions(text):
    """(line of def or decorator, name, lines of the body without its words, parameters but self and cls) of each function of a program."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            words = node.body[0].end_lineno if ast.get_docstring(node) else node.body[0].lineno - 1
            named = [each.arg for each in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
            first = min([node.lineno, *(each.lineno for each in node.decorator_list)]) - 1
            yield first, node.name, node.end_lineno - words, len(named) - (named[:1] in (["self"], ["cls"]))


def wrong_python(name, text):
    """The same of a Python program, whose comments say the same words."""
    lines = text.splitlines()
    for at, function, length, count in python_functions(text):
        said = ""
        for line in reversed(lines[:at]):
            if not line.strip().startswith("#"):
                break
            said = line + said
        if length > MAX_LINES and f"More than {MAX_LINES} lines:" not in said:
            yield f"{name}:{at + 1}: {function} has {length} lines, more than {MAX_LINES} want a reason above it"
        if count > MAX_PARAMETERS and f"More than {MAX_PARAMETERS} parameters:" not in said:
            yield f"{name}:{at + 1}: {function} has {count} parameters, more than {MAX_PARAMETERS} want a reason above it"


def is_python(path):
    if path.suffix:
        return path.suffix == ".py"
    with open(path, encoding="utf-8", errors="replace") as file:
        return re.match(r"#!.*python", file.readline()) is not None


def programs(tree):
    """Headers and sources, tests and benches among them; Python programs and the scripts of the shell."""
    found = [path for room in ("src", "include", "tests", "examples") for path in (tree / room).rglob("*.[ch]pp")]
    found += [path for room in ("tests", "python", "scripts") for path in (tree / room).rglob("*")
              if path.is_file() and (path.suffix in (".py", "") and path.stat().st_mode & 0o111 or path.suffix == ".py")]
    return sorted({*found})


def wrong_sizes(tree):
    """Lines "file:line: what is wrong" of the programs of a tree."""
    lists, excused = [], set()
    for path in programs(tree):
        text, name = path.read_text(encoding="utf-8", errors="replace"), str(path.relative_to(tree))
        lines = text.splitlines()
        if len(lines) > MAX_FILE:
            yield f"{name}: {len(lines)} lines, at most {MAX_FILE} are allowed"
        if path.suffix not in (".cpp", ".hpp"):
            yield from wrong_python(name, text) if is_python(path) else ()
            continue
        code = without_texts(text)
        for at, length in bodies(code):
            if length > MAX_LINES and f"More than {MAX_LINES} lines:" not in comment_above(lines, at):
                yield f"{name}:{at + 1}: a function of {length} lines, more than {MAX_LINES} want a reason above it"
        room = name.removeprefix("include/lmq/").removeprefix("src/").split("/")[0]
        for at, function, count in long_lists(code) if room != "kernels" else []:
            start = at   # the first line of the declaration
            while start > 0 and lines[start - 1].strip() and not re.search(r"[;{}]$|^\s*(//|#|public:|private:|template)|:$", lines[start - 1]):
                start -= 1
            if f"More than {MAX_PARAMETERS} parameters:" in comment_above(lines, start):
                excused.add((room, function))
            lists.append((room, function, f"{name}:{at + 1}: {function} has {count} parameters, more than {MAX_PARAMETERS} want a reason above it"))
    yield from (text for room, function, text in lists if (room, function) not in excused)
