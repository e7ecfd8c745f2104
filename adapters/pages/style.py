"""The look of all pages: colours in light and in dark, and the style sheet. Nothing is fetched from anywhere."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["DARK", "HEAT", "LIGHT", "MARKS", "style_sheet"]

HEAT = 8  # shades of a heat map
MARKS = 8  # kinds of marks in a scatter plot

LIGHT: Mapping[str, str] = {
    "page": "#fbfaf8", "ink": "#1d2530", "muted": "#58616e", "line": "#dcdad5", "soft": "#f2f0ec",
    "accent": "#1a5c86", "bar": "#2f7396", "rest": "#c9c5bd",
    "warn": "#8a3d08", "warn-bed": "#fbefe2", "note": "#1a5c86", "note-bed": "#edf3f7",
    "good": "#24633f", "good-bed": "#edf5ee",
    "h0": "#f3f1ec", "h1": "#dfe7e8", "h2": "#c2d7de", "h3": "#9cc2d0", "h4": "#72a8be", "h5": "#387797", "h6": "#205a7a",
    "h7": "#113d57",
    "t0": "#1d2530", "t1": "#1d2530", "t2": "#1d2530", "t3": "#14202b", "t4": "#0b151d", "t5": "#ffffff", "t6": "#ffffff",
    "t7": "#ffffff",
    "m0": "#1a5c86", "m1": "#a34a0b", "m2": "#2c6e4a", "m3": "#7a3b8f", "m4": "#8a6a00", "m5": "#a02b4c", "m6": "#4a5a6a",
    "m7": "#0e6f73",
}  # fmt: skip
DARK: Mapping[str, str] = {
    "page": "#14181d", "ink": "#e6e8ea", "muted": "#a3abb5", "line": "#333a43", "soft": "#1c2229",
    "accent": "#8cc3e0", "bar": "#5fa3c4", "rest": "#475059",
    "warn": "#f2b27a", "warn-bed": "#2d2118", "note": "#8cc3e0", "note-bed": "#18242d",
    "good": "#8fcca5", "good-bed": "#17261d",
    "h0": "#1e252c", "h1": "#1d3340", "h2": "#1f4559", "h3": "#215872", "h4": "#5c9db8", "h5": "#83b9cf", "h6": "#aed3e1",
    "h7": "#dcedf3",
    "t0": "#e6e8ea", "t1": "#e6e8ea", "t2": "#f1f4f6", "t3": "#ffffff", "t4": "#081016", "t5": "#081016", "t6": "#081016",
    "t7": "#081016",
    "m0": "#8cc3e0", "m1": "#f2b27a", "m2": "#8fcca5", "m3": "#d3a6e3", "m4": "#dcc46a", "m5": "#f09ab1", "m6": "#b4bfca",
    "m7": "#7fd1d3",
}  # fmt: skip

RULES = """
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,Arial,sans-serif;
font-variant-numeric:tabular-nums;-webkit-text-size-adjust:100%}
main,footer{max-width:72rem;margin:0 auto;padding:0 clamp(1rem,4vw,2.5rem)}
header{padding:clamp(1.5rem,5vw,3.5rem) 0 1rem}
.kicker{margin:0;color:var(--muted);font-size:.85rem;letter-spacing:.02em}
h1{font-size:clamp(1.6rem,5vw,2.4rem);line-height:1.15;letter-spacing:-.015em;font-weight:650;margin:.2rem 0 .8rem;
overflow-wrap:anywhere}
h2{font-size:1.2rem;line-height:1.3;font-weight:650;margin:0 0 .35rem}
h3{font-size:1rem;font-weight:650;margin:1.4rem 0 .4rem}
h2+h3{margin-top:.4rem}
p{margin:.4rem 0}
.lead{font-size:1.08rem;max-width:44rem;text-wrap:pretty}
section{border-top:1px solid var(--line);padding:1.6rem 0 1.8rem}
.hint{color:var(--muted);font-size:.88rem;max-width:46rem;margin:0 0 .9rem}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(10rem,1fr));gap:1.2rem 2rem;margin:1.4rem 0 1.6rem}
.cards div{border-top:2px solid var(--accent);padding-top:.5rem;min-width:0}
.cards dt{color:var(--muted);font-size:.82rem}
.cards dd{margin:0;font-size:1.45rem;font-weight:600;line-height:1.25;letter-spacing:-.01em;overflow-wrap:anywhere}
.cards dd small{display:block;font-size:.82rem;font-weight:400;color:var(--muted);letter-spacing:0;line-height:1.4}
.remarks{list-style:none;margin:0;padding:0;display:grid;gap:.6rem}
.remarks li{border-left:3px solid var(--note);background:var(--note-bed);padding:.6rem .9rem;overflow-wrap:anywhere}
.remarks li.warning{border-color:var(--warn);background:var(--warn-bed)}
.remarks li.good{border-color:var(--good);background:var(--good-bed)}
.tag{display:inline-block;font-size:.72rem;font-weight:650;text-transform:uppercase;letter-spacing:.05em;margin-right:.5em;
color:var(--note)}
.warning .tag{color:var(--warn)}.good .tag{color:var(--good)}
.remarks p{margin:.15rem 0 0;font-size:.92rem}
.pair{display:grid;gap:2rem 2.5rem;grid-template-columns:repeat(auto-fit,minmax(min(100%,27rem),1fr));align-items:start}
figure{margin:0;min-width:0}
figcaption,caption{text-align:left;font-size:.92rem;font-weight:600;padding:0 0 .5rem;line-height:1.4}
figcaption span,caption span{display:block;font-weight:400;font-size:.84rem;color:var(--muted)}
table{border-collapse:collapse;width:100%;font-size:.86rem}
th,td{padding:.3rem .5rem;text-align:right;font-weight:400;vertical-align:top}
td{white-space:nowrap}
th:first-child,td:first-child{text-align:left;padding-left:0}
th:last-child,td:last-child{padding-right:0}
thead th{color:var(--muted);border-bottom:1px solid var(--line);font-size:.8rem;vertical-align:bottom}
tbody tr+tr>*{border-top:1px solid var(--soft)}
tbody th{overflow-wrap:anywhere}
.plain td,.kept td{text-align:left;overflow-wrap:anywhere;white-space:normal}
.kept thead th{text-align:left}
.kept{table-layout:fixed}.kept th:first-child{width:3.2rem}
.kept small{margin-top:.15rem}
.parts{max-width:46rem}
.columns,.figures{table-layout:fixed}.columns td,.figures td,.columns th,.figures th{white-space:normal;overflow-wrap:anywhere}
.columns th:first-child,.figures th:first-child{width:32%}
.stack{display:grid;gap:1.6rem}
.plain th{color:var(--muted);width:11rem}
td small,th small{display:block;color:var(--muted);font-size:.92em}
td .better{font-weight:650}
.heat table{table-layout:fixed;border-collapse:separate;border-spacing:1px;font-size:.74rem;line-height:1.2}
.heat th,.heat td{padding:.22rem 0;text-align:center;vertical-align:middle;border:0;white-space:nowrap}
.heat thead th{font-size:.74rem;vertical-align:bottom;padding-bottom:.3rem}
.heat th:first-child{width:2.2rem;text-align:left;color:var(--muted)}
.heat .list th{padding-top:.6rem;width:auto}
.heat td{border-radius:2px}
.heat td.none{color:var(--muted)}
.turned thead th:not(:first-child) span{writing-mode:vertical-rl;transform:rotate(180deg)}
.key{list-style:none;display:flex;flex-wrap:wrap;gap:.25rem .8rem;margin:.6rem 0 0;padding:0;font-size:.76rem;
color:var(--muted)}
.key li{display:flex;align-items:center;gap:.35rem}
.key i{width:1.1rem;height:.8rem;border-radius:2px;display:inline-block}
.key svg{width:.9rem;height:.9rem;flex:none}
.scroll{overflow-x:auto}
svg{display:block;max-width:100%;height:auto}
svg text{fill:var(--ink);font-size:11px}
svg .faint{fill:var(--muted)}
svg .axis{stroke:var(--line);fill:none}
svg .whisker{stroke:var(--ink);fill:none}
svg .even{stroke:var(--muted);fill:none;stroke-dasharray:3 3}
svg .bar{fill:var(--bar)}svg .rest{fill:var(--rest)}
svg .out{fill:none;stroke:var(--muted)}
.plot{max-width:29rem}
.track{display:block;background:var(--soft);border-radius:2px;height:.65rem;min-width:3rem;overflow:hidden}
.track i{display:block;height:100%;background:var(--bar);border-radius:2px}
.share{display:flex;align-items:center;justify-content:flex-end;gap:.6rem}
.share .track{flex:0 1 12rem}.share span:last-child{flex:none;min-width:3.3rem}
.strip svg{width:auto;max-width:100%;height:auto}
pre{background:var(--soft);padding:.8rem 1rem;margin:.5rem 0;
font:.82rem/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;white-space:pre-wrap;overflow-wrap:anywhere;
border-radius:3px}
code{font:.92em ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;overflow-wrap:anywhere}
details{margin-top:.6rem}
summary{cursor:pointer;color:var(--accent);font-size:.92rem}
:focus-visible{outline:2px solid var(--accent);outline-offset:2px}
footer{color:var(--muted);font-size:.82rem;padding-top:1rem;padding-bottom:2.5rem}
@media (max-width:40rem){
.phone-less{display:none}
.cards{grid-template-columns:repeat(2,minmax(0,1fr));gap:1rem 1.2rem}
.cards dd{font-size:1.2rem}
th,td{padding:.3rem .3rem}
.plain,.plain tbody,.plain tr,.plain th,.plain td{display:block;width:auto;text-align:left;padding:0}
.plain caption{display:block;padding-bottom:.4rem}
.plain tr{padding:.4rem 0}
.columns{font-size:.72rem}
.narrow-turned thead th:not(:first-child) span{writing-mode:vertical-rl;transform:rotate(180deg)}
.heat td,.heat th{padding:.2rem 0}
}
@media print{
body{font-size:10.5pt}
main,footer{max-width:none;padding:0}
section{break-inside:auto}
figure,.remarks li,tr{break-inside:avoid}
*{print-color-adjust:exact;-webkit-print-color-adjust:exact}
details::details-content{content-visibility:visible;block-size:auto}
}
"""


def style_sheet() -> str:
    """The style sheet of a page; in print the colours are those of the light mode."""
    shades = "".join(f".h{n}{{background:var(--h{n});color:var(--t{n})}}" for n in range(HEAT))
    marks = "".join(f".m{n}{{stroke:var(--m{n});fill:none}}" for n in range(MARKS))
    dark = f"@media screen and (prefers-color-scheme:dark){{:root{{{variables(DARK)}}}}}"
    return f":root{{color-scheme:light dark;{variables(LIGHT)}}}\n{dark}\n{RULES.strip()}\n{shades}\n{marks}"


def variables(colours: Mapping[str, str]) -> str:
    """Colours as variables of the style sheet."""
    return ";".join(f"--{name}:{value}" for name, value in colours.items())
