from dataclasses import replace

import pytest
import torch
from lift3d.core.networks.triplane_transformer import (
    TriplaneTransformer,
    TriplaneTransformerParams,
)
from lrm_scenes import TINY, golden_model, load_golden

PARAMS = replace(TINY.transformer, lora_rank=0)


def test_every_layer_and_the_planes_equal_the_reference(shared_dir):
    golden, model = load_golden(shared_dir, "forward"), golden_model(shared_dir)
    outputs = {}
    for index, layer in enumerate(model.transformer.layers):
        layer.register_forward_hook(lambda _, __, out, i=index: outputs.__setitem__(i, out))
    planes = model.transformer(golden["tokens"].reshape(1, -1, 32))
    for index, output in outputs.items():
        torch.testing.assert_close(output, golden[f"x_tri_layer{index}"], atol=1e-4, rtol=0)
    torch.testing.assert_close(planes, golden["planes"], atol=1e-4, rtol=0)


def test_tokens_are_ordered_by_plane_row_and_column():
    """Without layers, one marked token shows up in its own 2x2 corner of its own plane only."""
    torch.manual_seed(0)
    transformer = TriplaneTransformer(replace(PARAMS, num_layers=0)).eval()
    condition = torch.zeros(1, 2, 32)
    before = transformer(condition)
    plane, row, column = 1, 2, 3
    transformer.pos_embed.data[0, plane * 16 + row * 4 + column] += torch.randn(64)
    changed = (transformer(condition) - before).abs().sum(dim=2)[0]
    marked = torch.zeros(3, 8, 8, dtype=torch.bool)
    marked[plane, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2] = True
    assert bool(((changed > 0) == marked).all())


def test_samples_of_a_batch_do_not_mix():
    torch.manual_seed(0)
    transformer = TriplaneTransformer(PARAMS).eval()
    condition = torch.randn(2, 5, 32)
    both = transformer(condition)
    assert both.shape == (2, 3, 8, 8, 8)
    torch.testing.assert_close(both[1:], transformer(condition[1:]), atol=1e-5, rtol=1e-5)


def test_the_order_of_the_condition_tokens_does_not_matter():
    torch.manual_seed(0)
    transformer = TriplaneTransformer(PARAMS).eval()
    condition = torch.randn(1, 5, 32)
    torch.testing.assert_close(
        transformer(condition), transformer(condition.flip(1)), atol=1e-5, rtol=1e-5
    )


def test_progress_counts_the_layers_and_may_interrupt():
    transformer = TriplaneTransformer(PARAMS)
    seen = []

    def stop(progress):
        seen.append((progress.step, progress.total))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        transformer(torch.zeros(1, 2, 32), on_progress=stop)
    assert seen == [(1, 2)]


def test_a_negative_rank_is_refused():
    with pytest.raises(ValueError, match="lora_rank"):
        TriplaneTransformerParams(lora_rank=-1)
