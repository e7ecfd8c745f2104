"""Blocks refitted as a whole: models over bytes with and without, and other ways to fit."""

from __future__ import annotations

from common.results import read
from figures.markdown import figure, noted, perplexity, table

MODELS = {"llama": "llama", "gemma3_text": "gemma3"}
AMOUNTS = {
    "sparsegpt 50%": "`sparsegpt`, 50 %",
    "sparsegpt 2:4": "`sparsegpt`, 2:4",
    "l0 50%": "`l0`, 50 %",
    "l0 2:4": "`l0`, 2:4",
    "numerical 20%": "`numerical`, 20 %",
    "numerical 50%": "`numerical`, 50 %",
}
FITS = {
    "blocks": "half of the correction, as it is by default",
    "a quarter of the correction": "a quarter of it",
    "the whole correction": "the whole of it",
    "half as long steps": "steps half as long",
    "twice as long steps": "twice as long",
    "ten epochs": "ten epochs",
    "Gauss-Newton": "8 steps of conjugate gradients, all weights",
    "Gauss-Newton, three times": "three times 8, linearised anew",
    "down and up by least squares": "`down`, then `up`, 16 steps of each",
    "norms alone": "norms alone, 16 steps, twice",
}
FITTED = ("sparsegpt 50%", "l0 50%", "l0 2:4")
TEXTS = ("wikitext2", "ptb")


def refitted() -> str:
    """Loss per byte without and with refits of blocks; of gemma-3-270m perplexity, where it was measured."""
    results = read("block_refits")
    rows = []
    for model, title in MODELS.items():
        dense = results[f"{model}: dense"]["loss"]
        for amount, shown in AMOUNTS.items():
            plain, fitted = results[f"{model}: {amount}"], results[f"{model}: {amount}, blocks"]
            lost, left = plain["loss"] - dense, fitted["loss"] - dense
            spent = fitted["report"]["refit_seconds"]
            rows.append([title, shown, figure(lost), figure(left), f"{1 - left / lost:.0%}".replace("%", " %"), f"{spent:.1f}"])
    note = "The dense models are at {:.4f} and {:.4f} nats per byte; given is what is lost of that.".format(
        *(results[f"{model}: dense"]["loss"] for model in MODELS)
    )
    return noted(table(["model", "pruned by", "lost", "with `--refit block`", "regained", "s in refits"], rows), note)


def fits() -> str:
    """Other targets, steps and solvers, on the llama."""
    results = read("block_refits")
    dense = results["llama: dense"]["loss"]
    rows = [["nothing", *(figure(results[f"llama: {amount}"]["loss"] - dense) for amount in FITTED), "-"]]
    for name, title in FITS.items():
        some = [results[f"llama: {amount}, {name}"] for amount in FITTED]
        least = min(cell["report"]["refit_seconds"] for cell in some)
        rows.append([title, *(figure(cell["loss"] - dense) for cell in some), f"{least:.1f}"])
    return table(["fit", *(AMOUNTS[amount] for amount in FITTED), "s, the least of the three"], rows)


def models() -> str:
    """Perplexity of gemma-3-270m."""
    results, name = read("block_refits"), "gemma-3-270m"
    rows = [["dense", *(perplexity(results[f"{name}: dense"]["perplexity"][text]) for text in TEXTS), "-"]]
    for amount, shown in AMOUNTS.items():
        for end, more in (("", ""), (", blocks", ", `--refit block`")):
            cell = results[f"{name}: {amount}{end}"]
            found = [perplexity(cell["perplexity"][text]) for text in TEXTS]
            rows.append([shown + more, *found, f"{cell['report'].get('refit_seconds', 0):.0f}"])
    return table(["pruned by", "WikiText-2", "PTB", "s in refits"], rows)
