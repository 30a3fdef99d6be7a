"""Sizes of files and functions, for check-layers.

No file has more than 400 lines, no function more than 40 between its braces or more than 5 parameters, unless the
comment above it says "More than 40 lines: REASON" or "More than 5 parameters: REASON" (of a function that is declared and
defined, once in its room). Kernels take plain arrays and numbers, which stay in registers: their parameters are not counted.
"""
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


def bodies(code):
    """(line of the signature, lines between the braces) of each function with a body."""
    open_braces = []
    for found in re.finditer(r"[{}]", code):
        if found[0] == "{":
            head = max(code.rfind(sign, 0, found.start()) for sign in ";{}") + 1
            open_braces.append((head, found.start()))
            continue
        if not open_braces:
            continue
        head, begin = open_braces.pop()
        signature = code[head:begin].strip()
        word = re.match(r"(?:\[\[\w+\]\]\s*)?([A-Za-z_]\w*)", signature)
        if "(" in signature and word and word[1] not in NOT_FUNCTIONS | {"else", "do", "try", "namespace", "struct", "class", "enum", "union"}:
            yield code.count("\n", 0, head + len(code[head:begin]) - len(code[head:begin].lstrip())), code.count("\n", begin, found.start()) - 1


def long_lists(code):
    """(line, name, parameters) of declarations of functions with more parameters than MAX_PARAMETERS."""
    for found in re.finditer(r"\b([A-Za-z_]\w*)\s*\(", code):
        before = code[max(0, found.start() - 200):found.start()].rstrip()
        if found[1] in NOT_FUNCTIONS or not re.search(r"([\w>&*\]]|::)$", before) or re.search(r"\b(return|throw|new|else|case)$", before):
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
            yield code.count("\n", 0, found.start()), found[1], commas + 1


def wrong_sizes(tree):
    """Lines "file:line: what is wrong" of the headers and sources of a tree."""
    lists, excused = [], set()
    for path in sorted([*(tree / "src").rglob("*.[ch]pp"), *(tree / "include").rglob("*.hpp")]):
        text, name = path.read_text(encoding="utf-8", errors="replace"), str(path.relative_to(tree))
        lines, code = text.splitlines(), without_texts(text)
        if len(lines) > MAX_FILE:
            yield f"{name}: {len(lines)} lines, at most {MAX_FILE} are allowed"
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
