"""A small writer of line plots as SVG: points joined by lines, a logarithmic horizontal axis, dashed levels, a legend."""
import math
from xml.sax.saxutils import escape

COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#777777", "#000000", "#994400", "#0000cc",
           "#cc0066", "#669900", "#9999ff", "#ff9933")
WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 900, 480, 60, 40, 300, 50


def ticks(low, high):
    """1, 2, 3, 5, 7 times powers of ten inside [low, high]."""
    values = [m * 10.0 ** e for e in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1) for m in (1, 2, 3, 5, 7)]
    return [v for v in values if low <= v <= high]


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
           f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
           f'<text x="{LEFT}" y="22" font-size="15">{escape(title)}</text>']
    line = lambda x1, y1, x2, y2, style: out.append(
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" {style}/>')
    text = lambda x, y, words, anchor="middle": out.append(
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>')
    for x in ticks(left, right):
        line(px(x), TOP, px(x), foot, 'stroke="#dddddd"')
        text(px(x), foot + 16, f"{x:g}")
    step = next(s for s in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20) if (high - low) / s <= 10)
    for k in range(math.ceil(low / step), math.floor(high / step) + 1):
        line(LEFT, py(k * step), edge, py(k * step), 'stroke="#dddddd"')
        text(LEFT - 6, py(k * step) + 4, f"{k * step:g}", "end")
    for label, y in levels:
        line(LEFT, py(y), edge, py(y), 'stroke="#555555" stroke-dasharray="6 4"')
        text(LEFT + 4, py(y) - 4, label, "start")
    for label, x in marks:
        line(px(x), TOP, px(x), foot, 'stroke="#555555" stroke-dasharray="2 3"')
        text(px(x) + 4, foot - 6, label, "start")
    line(LEFT, foot, edge, foot, 'stroke="black"')
    line(LEFT, TOP, LEFT, foot, 'stroke="black"')
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
