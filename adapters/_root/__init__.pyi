from gramian import adapters as adapters
from gramian import proofs as proofs
from gramian import solvers as solvers
from gramian.adapters.api import estimate as estimate
from gramian.adapters.api import methods as methods
from gramian.adapters.api import prune as prune
from gramian.adapters.data.sources import calibration as calibration
from gramian.adapters.evaluation.runs import evaluate as evaluate
from gramian.adapters.evaluation.speeds import speed as speed
from gramian.adapters.measure.likelihood import perplexity as perplexity
from gramian.adapters.models.loading import load as load
from gramian.adapters.models.saving import save as save
from gramian.adapters.run.hooks import capture as capture
from gramian.adapters.training.holding import HoldZeros as HoldZeros
from gramian.adapters.training.masks import reapply as reapply
from gramian.adapters.training.tuning import tune as tune

__version__: str
