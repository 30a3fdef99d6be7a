"""A small writer of line plots as SVG: points joined by lines, a logarithmic horizontal axis, dashed levels, a legend. Light or dark paper,
as the reader's system is set."""
import math
from xml.sax.saxutils import escape

# Each has a contrast of at least 3 on both papers (tests/python/tools_test.py).
COLOURS = ("#4477aa", "#ee6677", "#228833", "#a08a00", "#2299bb", "#bb4488", "#7c7c7c", "#8866cc", "#bb5500", "#5566ee",
           "#d11a6a", "#669900", "#7777dd", "#cc7711")
LIGHT = {"paper": "#ffffff", "ink": "#222222", "grid": "#dddddd", "mark": "#555555"}
DARK = {"paper": "#16181d", "ink": "#e8e8e8", "grid": "#3a3d45", "mark": "#aaaaaa"}
WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 900, 480, 60, 40, 300, 50


def style():
    """Colours of paper, text and lines, for both settings of the reader's system."""
    rules = lambda c: (f".paper{{fill:{c['paper']}}} text{{fill:{c['ink']}}} .grid{{stroke:{c['grid']}}} .axis{{stroke:{c['ink']}}} "
                       f".mark{{stroke:{c['mark']}}}")
    return f"<style>{rules(LIGHT)} @media (prefers-color-scheme: dark){{{rules(DARK)}}}</style>"


def ticks(low, high):
    """1, 2, 3, 5, 7 times powers of ten inside [low, high]; 1, 3 where that is more than two decades."""
    steps = (1, 2, 3, 5, 7) if high <= 100 * low else (1, 3)
    values = [m * 10.0 ** e for e in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1) for m in steps]
    return [v for v in values if low <= v <= high]


# More than 5 parameters: what a plot shows, by name where it has a default.
def plot(path, title, x_label, y_label, curves, levels=(), marks=(), y_range=None):
    """curves: (label, [(x, y)], dashed); levels: (label, y); marks: (label, x). Points outside y_range are left out."""
    low, high = y_range
    curves = [(label, sorted(p for p in points if low <= p[1] <= high), dashed) for label, points, dashed in curves]
    xs = [x for _, points, _ in curves for x, _ in points] + [x for _, x in marks]
    left, right = min(xs) / 1.05, max(xs) * 1.05
    px = lambda x: LEFT + (WIDTH - LEFT - RIGHT) * math.log(x / left) / math.log(right / left)
    py = lambda y: TOP + (HEIGHT - TOP - BOTTOM) * (high - y) / (high - low)
    edge, foot = WIDTH - RIGHT, HEIGHT - BOTTOM
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" font-family="sans-serif" font-size="12">',
           f'{style()}<rect class="paper" width="{WIDTH}" height="{HEIGHT}"/>',
           f'<text x="{LEFT}" y="22" font-size="15">{escape(title)}</text>']
    line = lambda x1, y1, x2, y2, style: out.append(
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" {style}/>')
    text = lambda x, y, words, anchor="middle": out.append(
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>')
    for x in ticks(left, right):
        line(px(x), TOP, px(x), foot, 'class="grid"')
        text(px(x), foot + 16, f"{x:g}")
    step = next(s for s in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20) if (high - low) / s <= 10)
    for k in range(math.ceil(low / step), math.floor(high / step) + 1):
        line(LEFT, py(k * step), edge, py(k * step), 'class="grid"')
        text(LEFT - 6, py(k * step) + 4, f"{k * step:g}", "end")
    for label, y in levels:
        line(LEFT, py(y), edge, py(y), 'class="mark" stroke-dasharray="6 4"')
        text(LEFT + 4, py(y) - 4, label, "start")
    for label, x in marks:
        line(px(x), TOP, px(x), foot, 'class="mark" stroke-dasharray="2 3"')
        text(px(x) + 4, foot - 6, label, "start")
    line(LEFT, foot, edge, foot, 'class="axis"')
    line(LEFT, TOP, LEFT, foot, 'class="axis"')
    text((LEFT + edge) / 2, HEIGHT - 12, x_label)
    out.append(f'<text transform="translate(16 {(TOP + foot) / 2}) rotate(-90)" text-anchor="middle">{escape(y_label)}</text>')
    for k, (label, points, dashed) in enumerate(curves):
        colour, dash = COLOURS[k % len(COLOURS)], ' stroke-dasharray="5 3"' if dashed else ""
        where = " ".join(f"{px(x):.1f},{py(y):.1f}" for x, y in points)
        out.append(f'<polyline points="{where}" fill="none" stroke="{colour}" stroke-width="1.6"{dash}/>')
        out += [f'<circle cx="{px(x):.1f}" cy="{py(y):.1f}" r="2.6" fill="{colour}"/>' for x, y in points]
        line(edge + 14, TOP + 8 + 18 * k, edge + 38, TOP + 8 + 18 * k, f'stroke="{colour}" stroke-width="2"{dash}')
        text(edge + 44, TOP + 12 + 18 * k, label, "start")
    with open(path, "w", encoding="utf-8") as file:
        file.write("\n".join(out + ["</svg>", ""]))
