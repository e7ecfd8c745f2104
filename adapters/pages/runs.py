"""The page of a run: `report.html`, beside every saved model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gramian.adapters.pages.attention import attention, remarks_as_html
from gramian.adapters.pages.bars import Bar, bars
from gramian.adapters.pages.domains import domain_table
from gramian.adapters.pages.headline import cards, what_was_done
from gramian.adapters.pages.heat_map import evenly_shaded, heat_map, shaded_by_size
from gramian.adapters.pages.kept import kept_units
from gramian.adapters.pages.numerals import MISSING, count, duration, mean, number, per_cent, worst
from gramian.adapters.pages.page import Section, escape, page, table_of
from gramian.adapters.pages.records import Run, mapping, run_of
from gramian.adapters.pages.repeat import settings
from gramian.adapters.pages.scatter import Cloud, scatter
from gramian.adapters.pages.seconds import seconds_spent
from gramian.tables import lines_of

__all__ = ["clouds_of", "page_of_run"]

ENERGY = "|X* Vᵀ − X Wᵀ|² / |X Wᵀ|² in per cent: the energy of a layer's output that is lost"
STREAM = "|H − T|² / |T|² in per cent: of what leaves a block, H, beside the same of the dense model, T"
READ = "|X − X Q Qᵀ|² / |X|² in per cent: of what a norm of the dense model reads, X, tokens of length one, what is lost"


def page_of_run(document: Mapping[str, Any]) -> str | None:
    """The page of a document that `gramian.json` holds, or will; None where it is not that of a run."""
    run = run_of(document)
    if run is None:
        return None
    remarks = attention(run)
    worrying = sum(remark.kind != "good" for remark in remarks)
    sections = [Section("What needs attention" if worrying else "Nothing needs attention", remarks_as_html(remarks))]
    if (effect := measured(run)) is not None:
        sections.append(effect)
    if (
        domains := domain_table(run.settings, [row.detail for row in run.rows], mapping(run.measured.get("domains")))
    ) is not None:
        sections.append(Section("Domain by domain", domains))
    sections += [Section("Layer by layer", maps(run), HINTS[run.kind])]
    if run.kind in ("units", "experts"):
        sections.append(Section("What stays", kept_units(run)))
    refitted = run.document.get("refitted_blocks")
    if isinstance(refitted, list | tuple) and refitted:
        sections.append(Section("Blocks refitted as a whole", refitted_blocks(refitted), REFITTED))
    sections.append(Section("Where the time went", seconds_spent(run)))
    sections.append(Section(f"Every {run.unit}", all_rows(run)))
    sections.append(Section("Settings, and how to repeat it", settings(run)))
    kicker = f"gramian report · {run.method}"
    return page(kicker, run.title, what_was_done(run), cards(run), sections, foot(run))


HINTS = {
    "weights": "Rows are blocks of the model, from its input to its output, and columns are kinds of operators.",
    "units": "Rows are blocks, from the input of the model on. A module is named by the operator that reads its units.",
    "experts": "Rows are blocks, from the input of the model on. A mixture is named by its experts.",
    "blocks": "Rows are the dense model's blocks. Of a block that was removed the error is that of what passes it by.",
    "stream": "Rows are blocks, from the input of the model on, and columns are what reads the stream: its norms.",
}

REFITTED = (
    "All weights left in a block were fitted together, and kept as they were where windows set aside gained nothing by it."
)


def measured(run: Run) -> Section | None:
    """Perplexity, or similarity, before and after."""
    if run.measured:
        before, after = number(run.measured.get("dense")), number(run.measured.get("pruned"))
        text = [
            str(run.measured.get("source", "")),
            f"{run.measured.get('windows')} windows of {run.measured.get('context')} tokens",
        ]
        difference, error = number(run.measured.get("difference_nats")), number(run.measured.get("standard_error"))
        line = ""
        if difference is not None and error is not None:
            line = (
                f"<p>{difference:+.3f} ± {error:.3f} nats per token: the paired difference on the same tokens, with its "
                "standard error.</p>"
            )
        some = [Bar("before", before or 0.0), Bar("after", after if after is not None else float("nan"))]
        return Section(
            "What it cost the model",
            f'<div class="pair">{bars(some, "Perplexity before and after", ", ".join(text), "perplexity")}{line}</div>',
        )
    if (cosine := number(run.embedded.get("mean_cosine"))) is not None:
        text = [str(run.embedded.get("source", "")), f"{run.embedded.get('windows')} windows"]
        some = [Bar("before", 1.0), Bar("after", cosine)]
        return Section(
            "What it cost the model",
            bars(some, "Mean cosine of embeddings with those of the dense model", ", ".join(text), "cosine", top=1.0),
        )
    return None


def maps(run: Run) -> str:
    """Heat maps of errors and of what is left, and the one error against the other."""
    energy = {"blocks": STREAM, "stream": READ}.get(run.kind, ENERGY)
    shown, shades = [], shaded_by_size([*run.errors(True), *run.errors(False)])
    for heldout in (True, False) if run.has_heldout else (False,):
        place = "held-out" if heldout else "calibration"
        shown.append(heat_map(run.grid, run.errors(heldout), shades, f"Error on {place} text", f"{energy}."))
    titles = {
        "weights": ("Sparsity", "Zeros of all weights, in per cent."),
        "units": ("Units that stay", "Heads and channels that stay, in per cent."),
        "experts": ("Experts that stay", "In per cent."),
        "blocks": ("Blocks that stay", "100 for a block that stays."),
        "stream": ("Directions that stay", "In per cent."),
    }
    shown.append(heat_map(run.grid, [row.share for row in run.rows], evenly_shaded(), *titles[run.kind]))
    more = "One mark per block and kind. Above the dashed line, text that the method never saw is fitted worse."
    shown.append(scatter(clouds_of(run), "Held-out against calibration error", more))
    return f'<div class="pair">{"".join(shown)}</div>'


def clouds_of(run: Run) -> list[Cloud]:
    """Errors by kind, a point per block."""
    clouds = []
    for kind, label in zip(run.grid.kinds, run.grid.labels):
        points = []
        for block in run.grid.blocks:
            some = [run.rows[place] for place in run.grid.cells.get((block, kind), ())]
            one, other = mean(row.error for row in some), mean(row.heldout for row in some)
            if one and other and one > 0 and other > 0:
                points.append((one, other))
        clouds.append(Cloud(label, tuple(points)))
    return clouds


def refitted_blocks(blocks: Sequence[Any]) -> str:
    """A row for every block that was refitted, with what was lost of its output before and after."""
    rows = []
    for block in map(mapping, blocks):
        epochs, tried = number(block.get("epochs")), number(block.get("tried"))
        below = f"epoch {epochs:.0f} of {tried:.0f}" if epochs and tried else "as it was"
        name = f"{escape(str(block.get('name', '')))}<small>{escape(below)}</small>"
        cells = [name]
        for key in ("error", "aside_error", "heldout_error"):
            pair = block.get(key)
            both = map(number, pair if isinstance(pair, list | tuple) else (None, None))
            cells.append(" → ".join(per_cent(each) for each in both))
        rows.append(cells)
    caption = f"{STREAM}, before → after"
    return table_of(caption, ["block", "fitted %", "set aside %", "held-out %"], rows)


def all_rows(run: Run) -> str:
    """Every row, experts of a kind together."""
    rows = []
    for name, places in lines_of([row.name for row in run.rows]):
        some = [run.rows[place] for place in places]
        statuses = "; ".join(dict.fromkeys(row.status.split(":")[0] for row in some))
        below = f"{some[0].size} · {duration(sum(row.seconds for row in some))} · {statuses}"
        figures = (
            mean(row.share for row in some), mean(row.error for row in some), mean(row.heldout for row in some),
        )  # fmt: skip
        residual = worst(row.residual for row in some)
        rows.append(
            [
                f"{escape(name)}<small>{escape(below)}</small>",
                *(per_cent(value) for value in figures),
                MISSING if residual is None else "0" if residual == 0 else f"{residual:.0e}".replace("-", "−"),
            ]
        )
    share = "zeros %" if run.kind == "weights" else "stay %"
    caption = f"All {count(len(run.rows))} {run.unit}s, in the order in which they were pruned"
    table = table_of(
        caption, [run.unit, share, "error %", "held-out %", "KKT"], rows, more="KKT is the residual of kept weights."
    )
    return f"<details><summary>Show the table of {count(len(run.rows))} rows</summary>\n{table}\n</details>"


def foot(run: Run) -> str:
    """The last line."""
    version = mapping(run.settings.get("versions")).get("gramian", "")
    return f"Written by gramian {version} beside the model. This page is one file and loads nothing."
