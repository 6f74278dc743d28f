"""Views of a picture: turned back, each is the picture again."""

import pytest
import torch

from stillframe.models.tta import tta_views as views
from stillframe.models.tta import undo_tta as turned_back


@pytest.mark.parametrize(("tta", "count"), [("none", 1), ("mirror", 2), ("d4", 8)])
def test_a_view_turned_back_is_the_picture(tta, count):
    image = torch.rand(2, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    shown = views(image, tta)
    assert len({tuple(view.flatten().tolist()) for view in shown}) == count
    assert torch.equal(turned_back(torch.stack(shown), tta), image.expand(count, -1, -1, -1, -1))
