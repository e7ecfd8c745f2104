from gramian.adapters.measure.perplexity import perplexity as perplexity
from gramian.adapters.pipeline import prune as prune
from gramian.adapters.run.hooks import capture as capture

__version__: str
