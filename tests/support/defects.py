"""What the tests of planted defects share."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gramian.proofs.kit import claims
from gramian.proofs.kit.falsify import falsify
from gramian.proofs.laws import law


def is_caught(check: Callable[[], None]) -> None:
    """That it fails is all that is asked here; making the instance small takes ten times as long."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (law, claims):
            patch.setattr(module, "falsify", lambda *arguments, shrink=True: falsify(*arguments, shrink=False))
        with pytest.raises(AssertionError) as caught:
            check()
    assert isinstance(caught.value.__cause__, AssertionError), caught.value  # any other exception proves nothing
