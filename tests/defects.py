"""What the tests of planted defects share."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gramian.proofs import claims, law
from gramian.proofs.falsify import falsify


def is_caught(check: Callable[[], None]) -> None:
    """That it fails is all that is asked here; making the instance small takes ten times as long."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (law, claims):
            patch.setattr(module, "falsify", lambda *arguments, shrink=True: falsify(*arguments, shrink=False))
        with pytest.raises(AssertionError) as caught:
            check()
    assert isinstance(caught.value.__cause__, AssertionError), caught.value  # any other exception proves nothing
