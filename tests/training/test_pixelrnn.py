"""What only the PixelRNN has: two kinds of LSTMs, and the skewing of one of them."""

from __future__ import annotations

import pytest
import torch

from gensdk_runtime.errors import InputError
from gensdk_training.families.pixelrnn import PixelRnn, PixelRnnConfig
from gensdk_training.family import DataInfo
from gensdk_training.networks.diagonal_lstm import skewed, straightened
from gensdk_training.networks.row_lstm import lstm_cell

DATA = DataInfo(name="x", channels=1, height=8, width=8, count=10)


@pytest.mark.parametrize("name", ["kernel", "state_kernel"])
def test_kernels_of_row_lstms_are_refused_for_diagonal_ones(name: str) -> None:
    assert PixelRnn(PixelRnnConfig.model_validate({name: 5}), DATA).config.lstm == "row"
    with pytest.raises(InputError, match=f"{name}=5 is for row LSTMs; leave it out with lstm=diagonal"):
        PixelRnn(PixelRnnConfig.model_validate({"lstm": "diagonal", name: 5}), DATA)


@pytest.mark.parametrize(("rows", "width"), [(1, 1), (1, 4), (4, 1), (3, 5), (5, 3)])
def test_each_row_is_skewed_one_further_and_back(rows: int, width: int) -> None:
    x = torch.rand(2, 3, rows, width)
    skew = skewed(x)
    assert skew.shape == (2, 3, rows, width + rows - 1)
    for row in range(rows):
        assert torch.equal(skew[:, :, row, row : row + width], x[:, :, row])
        assert not skew[:, :, row, :row].any()
        assert not skew[:, :, row, row + width :].any()
    assert torch.equal(straightened(skew, width), x)


def test_the_cell_is_that_of_torch() -> None:
    """But for the order of its gates, and the shift that lets it remember."""
    torch.manual_seed(0)
    reference = torch.nn.LSTMCell(3, 4)
    x, h, cell = torch.rand(5, 3), torch.rand(5, 4), torch.rand(5, 4)
    with torch.no_grad():
        i, f, g, o = (
            x @ reference.weight_ih.t() + h @ reference.weight_hh.t() + reference.bias_ih + reference.bias_hh
        ).chunk(4, dim=1)
        made = lstm_cell(torch.cat((o, f - 1, i, g), dim=1), cell)
        expected = reference(x, (h, cell))
    assert torch.allclose(made[0], expected[0], atol=1e-6)
    assert torch.allclose(made[1], expected[1], atol=1e-6)
