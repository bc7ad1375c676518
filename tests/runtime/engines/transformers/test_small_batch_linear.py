"""Linear layers for a few rows: the ordinary ones' numbers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from runtime.engines.transformers import small_batch_linear as module
from runtime.engines.transformers.engine import TransformersLM
from runtime.engines.transformers.small_batch_linear import (
    MOST,
    SmallBatchLinear,
    use_small_batch_linears,
)

pytestmark = pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="torch without MKL")


@pytest.fixture(autouse=True)
def small_matrices_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LEAST", 16)


@pytest.mark.parametrize("bias", (True, False))
@pytest.mark.parametrize("outputs", (24, 400))  # a layer within, and one over a vocabulary
def test_any_number_of_rows_gives_the_ordinary_product(outputs: int, bias: bool) -> None:
    torch.manual_seed(0)
    plain = nn.Linear(16, outputs, bias=bias)
    narrow = nn.Linear(16, outputs, bias=bias)
    narrow.load_state_dict(plain.state_dict())
    use_small_batch_linears(narrow)
    assert type(narrow) is SmallBatchLinear
    with torch.inference_mode():
        for rows in range(1, MOST + 4):
            for shape in ((rows, 16), (1, rows, 16), (rows, 1, 16)):
                x = torch.randn(shape)
                found = narrow(x)
                assert found.is_contiguous()
                torch.testing.assert_close(found, plain(x), rtol=1e-5, atol=1e-5)


def test_other_layers_stay_as_they_are() -> None:
    class Own(nn.Linear):
        """A class of its own may compute something else."""

    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4, dtype=torch.bfloat16), Own(4, 4))
    use_small_batch_linears(model)
    assert [type(layer) for layer in model] == [SmallBatchLinear, nn.Linear, Own]
    tiny = nn.Linear(2, 2)
    use_small_batch_linears(tiny)
    assert type(tiny) is nn.Linear, "more operations than it saves"


def test_engines_have_them(lm: Callable[..., TransformersLM]) -> None:
    model = lm("llama")._scheduler._step.__self__._model  # type: ignore[attr-defined]
    assert type(model.lm_head) is SmallBatchLinear
    assert not any(type(module) is nn.Linear for module in model.modules())
