"""Published claims and what is true of them, and the laws that solvers and pruning methods have to satisfy.

Where to begin:

    from gramian.proofs import laws
    laws.check_method(my_method)             holds a pruning method of yours to the laws; `help(laws)` names every other check

    from gramian.proofs.ledger import CLAIMS, verify_all
    CLAIMS["F7"].corrected                   what is true instead of what FISTAPruner states there
    print(verify_all(["F7"]))                checks it; `gramian verify` checks every claim

All of it needs `pip install 'gramian[proofs]'`. Only `laws.check_layer` needs torch and transformers.
"""

from gramian.extras import PROOFS, need

need("proofs", PROOFS, "gramian.proofs")
