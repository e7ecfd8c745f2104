"""Compress transformers one layer at a time, with a certificate on every answer.

Begin with five lines, which prune a model and save it so that stock `from_pretrained` loads it:

    import gramian
    model, tokenizer = gramian.load("org/model")                      # a hub id, a directory, a .gguf file, or "demo"
    tokens = gramian.calibration("builtin", tokenizer, samples=32, length=512)
    report = gramian.prune(model, tokens, "l0", sparsity=0.5)         # or sparsity="2:4"; print(report) is a table
    gramian.save(model, tokenizer, "sparse-model", report=report)

Then:

    gramian.methods()         what can stand in place of "l0": methods that zero weights, and methods that remove units
    help(gramian.prune)       every setting of a run
    gramian.estimate          what a run would take, before it begins
    help(gramian.tune)        a pruned model trained further, with its zeros held; gramian.HoldZeros for loops of your own
    gramian.perplexity        how well a causal model predicts text, before and after
    gramian.evaluate          what a model has lost beside the dense one: on text, on probes of its context, on tasks
    gramian.speed             how fast it is, and what memory it takes
    help(gramian.capture)     one layer of any torch model as a problem, and its solution written back
    help(gramian.solvers)     the solvers alone, on numpy, torch or cupy arrays
    help(gramian.proofs)      laws to hold a method of your own to, and the ledger of published claims
    help(gramian.adapters)    everything else that knows of models: streaming, shrinking, problem files

The same on the command line is `gramian prune org/model --out sparse-model --method l0`; `gramian --help` lists the commands.

`gramian.solvers` needs no extra; what loads models needs `pip install 'gramian[models]'`.
"""

from importlib.metadata import version

from gramian.lazy import exports

__version__ = version("gramian")

__getattr__, __dir__, __all__ = exports(__name__, __file__)
