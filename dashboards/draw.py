#!/usr/bin/env python3
"""Draws a dashboard of `grafana/` without Grafana: reads its JSON, asks a live Prometheus, and writes a page that a browser shows.

    dashboards/draw.py overview http://127.0.0.1:9090 90 overview.html     # the last 90 seconds
    chromium --headless --hide-scrollbars --window-size=1416,1516 --screenshot=overview.png overview.html

It knows the kinds of panels that the overview has, and what of each is seen there.
"""

import html
import json
import math
import sys
import time
import urllib.parse
import urllib.request
from pathlib import Path

WIDTH, UNIT, GAP = 1392, 36, 8
COLUMN = WIDTH / 24
COLOURS = {"green": "#299c46", "red": "#c4162a", "yellow": "#e0b400", "blue": "#5794f2", "orange": "#ff9830", "purple": "#b877d9"}
LINES = ["#73bf69", "#f2cc0c", "#5794f2", "#ff9830", "#f2495c", "#b877d9"]
INK, SOFT, RULE, CARD, GROUND = "#d8d9da", "#9a9da3", "#2a2d33", "#181b1f", "#111217"


class Prometheus:
    def __init__(self, url, seconds):
        self.url, self.end = url, time.time()
        self.start, self.step = self.end - seconds, max(1, seconds // 180)

    def ask(self, path, **parameters):
        address = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        return json.load(urllib.request.urlopen(address))["data"]["result"]

    def now(self, expression):
        return self.ask("query", query=expression, time=self.end)

    def range(self, expression):
        return self.ask("query_range", query=expression, start=self.start, end=self.end, step=self.step)


def queried(target):
    # What Grafana makes of it with a scrape interval of 2 s.
    return target["expr"].replace("$__rate_interval", "8s")


def number(value, unit, decimals=None):
    if value is None or math.isnan(value):
        return "-"
    if unit == "percentunit":
        return f"{round(value * 100, 1 if decimals is None else decimals):g}%"
    if unit == "s":
        if value == 0 or value >= 60:
            return f"{value / 60:.1f} min" if value else "0 s"
        return f"{value:.1f} s" if value >= 1 else f"{value * 1000:.3g} ms"
    digits = decimals if decimals is not None else (0 if value == int(value) else 3)
    text = f"{value:.{digits}f}"
    return text + " req/s" if unit == "reqps" else text


def tick(value, unit):
    """As short as a label beside the axis has to be."""
    if unit in ("percentunit", "s"):
        return number(value, unit, 0 if unit == "percentunit" else None)
    return f"{round(value, 3):.3g}" + ("/s" if unit == "reqps" else "")


def named(template, labels):
    for name, value in labels.items():
        template = template.replace("{{" + name + "}}", value)
    return template


def mapped(mappings, value):
    """Text and colour that a value is shown as; none where it is shown as itself."""
    for mapping in mappings:
        options = mapping["options"]
        if mapping["type"] == "value" and str(value) in options:
            return options[str(value)]
    return None


def threshold(defaults, value):
    colour = "blue"
    for step in defaults.get("thresholds", {}).get("steps", []):
        if step["value"] is None or value >= step["value"]:
            colour = step["color"]
    return colour


def text(x, y, words, size=12, colour=INK, anchor="start", weight=400):
    return (f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{colour}" text-anchor="{anchor}" '
            f'font-weight="{weight}">{html.escape(words)}</text>')


def stat(panel, prometheus, w, h):
    defaults, options = panel["fieldConfig"]["defaults"], panel["options"]
    found = prometheus.now(queried(panel["targets"][0]))
    value = float(found[0]["value"][1]) if found else math.nan
    whole = int(value) if not math.isnan(value) and value == int(value) else value
    as_mapped = mapped(defaults.get("mappings", []), whole)
    words = as_mapped["text"] if as_mapped else number(value, defaults["unit"], defaults.get("decimals"))
    colour = as_mapped["color"] if as_mapped else threshold(defaults, value)
    filled = options["colorMode"] == "background"
    parts = [f'<rect width="{w}" height="{h}" rx="2" fill="{COLOURS[colour]}"/>'] if filled else []
    if options["graphMode"] == "area":
        series = prometheus.range(queried(panel["targets"][0]))
        if series:
            points = [(float(at), float(y)) for at, y in series[0]["values"]]
            top = max(y for _, y in points) or 1
            x = lambda at: w * (at - prometheus.start) / (prometheus.end - prometheus.start)
            path = " ".join(f"L{x(at):.1f} {h - 34 * max(y, 0) / top:.1f}" for at, y in points)
            parts.append(f'<path d="M{x(points[0][0]):.1f} {h} {path} L{w} {h}Z" fill="{COLOURS["blue"]}" opacity="0.25"/>')
    parts.append(text(w / 2, h / 2 + 18, words, 31, "#ffffff" if filled else COLOURS[colour], "middle", 700))
    return "".join(parts)


def series_colour(panel, name, place):
    for override in panel["fieldConfig"].get("overrides", []):
        if override["matcher"]["options"] == name:
            for wanted in override["properties"]:
                if wanted["id"] == "color":
                    return {**COLOURS, "green": LINES[0], "red": LINES[4]}[wanted["value"]["fixedColor"]]
    return LINES[place % len(LINES)]


def timeseries(panel, prometheus, w, h, marks):
    defaults = panel["fieldConfig"]["defaults"]
    lines = []
    for target in panel["targets"]:
        for found in sorted(prometheus.range(queried(target)), key=lambda one: sorted(one["metric"].items())):
            points = [(float(at), float(y)) for at, y in found["values"] if y != "NaN"]
            lines.append((named(target["legendFormat"], found["metric"]), points))
    drawn = [y for _, points in lines for _, y in points]
    low = defaults.get("min", min(drawn, default=0))
    high = defaults.get("max", max(drawn, default=1))
    high = high if high > low else low + 1
    left, right, top, bottom = 58, 10, 34, 56
    x = lambda at: left + (w - left - right) * (at - prometheus.start) / (prometheus.end - prometheus.start)
    y = lambda value: h - bottom - (h - top - bottom) * (value - low) / (high - low)
    parts = []
    for place in range(5):
        value = low + (high - low) * place / 4
        parts.append(f'<path d="M{left} {y(value):.1f}H{w - right}" stroke="{RULE}"/>')
        parts.append(text(left - 6, y(value) + 4, tick(value, defaults["unit"]), 11, SOFT, "end"))
    for place in range(4):
        at = prometheus.start + (prometheus.end - prometheus.start) * (place + 0.5) / 4
        parts.append(text(x(at), h - bottom + 17, time.strftime("%H:%M:%S", time.gmtime(at)), 11, SOFT, "middle"))
    for at in marks:
        parts.append(f'<path d="M{x(at):.1f} {top}V{h - bottom}" stroke="{COLOURS["purple"]}" stroke-dasharray="4 3"/>')
    legend_x, legend_y = 12, h - 18
    for place, (name, points) in enumerate(lines):
        colour = series_colour(panel, name, place)
        path = ""
        for before, (at, value) in zip([None, *points], points):
            gap = before is None or at - before[0] > 2.5 * prometheus.step
            path += f"{'M' if gap else 'L'}{x(at):.1f} {y(value):.1f}"
        parts.append(f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="1.6"/>')
        latest = number(points[-1][1] if points else math.nan, defaults["unit"], defaults.get("decimals"))
        width = 7 * len(f"{name} {latest}") + 26
        if legend_x + width > w:
            legend_x, legend_y = 12, legend_y + 14
        parts.append(f'<path d="M{legend_x} {legend_y - 4}h9" stroke="{colour}" stroke-width="2.5"/>')
        parts.append(f'<text x="{legend_x + 13}" y="{legend_y}" font-size="12" fill="{INK}">{html.escape(name)} <tspan font-weight="700">{latest}</tspan></text>')
        legend_x += width
    return "".join(parts) if lines else text(w / 2, h / 2, defaults.get("noValue", "-"), 13, SOFT, "middle")


def bargauge(panel, prometheus, w, h):
    defaults, target = panel["fieldConfig"]["defaults"], panel["targets"][0]
    found = sorted((named(target["legendFormat"], one["metric"]), float(one["value"][1])) for one in prometheus.now(queried(target)))
    most = max((value for _, value in found), default=1) or 1
    parts = []
    for place, (name, value) in enumerate(found):
        top = 36 + 58 * place
        shown = mapped(defaults["mappings"], int(value))
        colour = COLOURS[threshold(defaults, value)]
        parts.append(text(14, top + 25, name, 13))
        parts.append(f'<rect x="95" y="{top}" width="{(w - 190) * value / most:.1f}" height="40" fill="{colour}"/>')
        parts.append(text(w - 20, top + 27, shown["text"] if shown else number(value, "none"), 20, colour, "end", 700))
    return "".join(parts)


def table(panel, prometheus, w, h):
    defaults = panel["fieldConfig"]["defaults"]
    organize = panel["transformations"][0]["options"]
    hidden, renamed = organize["excludeByName"], organize["renameByName"]
    rows = []
    for found in prometheus.now(queried(panel["targets"][0])):
        value = mapped(defaults["mappings"], int(float(found["value"][1])))
        row = {renamed.get(name, name): (words, None) for name, words in found["metric"].items() if not hidden.get(name)}
        for override in panel["fieldConfig"].get("overrides", []):
            name = override["matcher"]["options"]
            for wanted in override["properties"]:
                if wanted["id"] == "mappings" and name in row and (shown := mapped(wanted["value"], row[name][0])):
                    row[name] = (shown["text"], shown["color"])
        rows.append({**row, renamed["Value"]: (value["text"], value["color"])})
    columns = list(dict.fromkeys(name for row in rows for name in row))
    parts, x = [], 16
    for column in columns:
        cells = [row.get(column, ("", None)) for row in rows]
        parts.append(text(x, 62, column, 13, COLOURS["blue"], weight=700))
        for place, (words, colour) in enumerate(cells):
            parts.append(text(x, 88 + 26 * place, words, 13, COLOURS.get(colour, INK), weight=700 if colour else 400))
        x += 22 + 8 * max(len(words) for words in [column, *(words for words, _ in cells)])
    return "".join(parts)


def main():
    name, url, seconds, out = sys.argv[1:]
    board = json.loads((Path(__file__).parent / "grafana" / f"{name}.json").read_text())
    prometheus = Prometheus(url, int(seconds))
    asked = prometheus.range(board["annotations"]["list"][0]["expr"])
    changed = sorted(float(at) for found in asked for at, _ in found["values"])
    marks = [at for before, at in zip([0, *changed], changed) if at - before > 2 * prometheus.step]
    parts = [text(16, 30, board["title"], 18, weight=700),
             text(20 + 9.6 * len(board["title"]), 30, f"\u00b7 last {seconds} s \u00b7 dashed: a new version", 12, SOFT)]
    height = 0
    for panel in board["panels"]:
        at = panel["gridPos"]
        x, y = 8 + at["x"] * COLUMN, 46 + at["y"] * UNIT
        w, h = at["w"] * COLUMN - GAP, at["h"] * UNIT - GAP
        height = max(height, y + h)
        if panel["type"] == "row":
            parts.append(text(x + 8, y + 22, f"\u25be {panel['title']}", 14, weight=700))
            continue
        drawing = {"stat": stat, "bargauge": bargauge, "table": table}.get(panel["type"])
        inside = drawing(panel, prometheus, w, h) if drawing else timeseries(panel, prometheus, w, h, marks)
        parts.append(f'<g transform="translate({x:.1f} {y})"><rect width="{w:.1f}" height="{h}" rx="2" fill="{CARD}" stroke="{RULE}"/>'
                     f'{inside}{text(11, 20, panel["title"], 12.5, "#ffffff", weight=700)}</g>')
    page = (f'<!doctype html><meta charset="utf-8"><body style="margin:0;background:{GROUND}">'
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH + 16}" height="{height + 12:.0f}" font-family="DejaVu Sans, sans-serif">'
            f'{"".join(parts)}</svg>')
    Path(out).write_text(page)
    print(f"{out}: {WIDTH + 16} x {height + 12:.0f} pixels")


if __name__ == "__main__":
    main()
