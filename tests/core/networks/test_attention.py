import pytest
import torch
from lift3d.core.networks.attention import CrossAttention, SelfAttention, attend, merge_lora
from lrm_scenes import load_golden


def _random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _fill(module: torch.nn.Module) -> torch.nn.Module:
    for index, parameter in enumerate(module.parameters()):
        parameter.data = _random(*parameter.shape, seed=index)
    return module


def test_attention_equals_a_loop_over_heads_and_queries():
    queries, keys, values = (_random(2, n, 12, seed=n).double() for n in (5, 7, 7))
    result = attend(queries, keys, values, 3)
    for batch in range(2):
        for head in range(3):
            part = slice(4 * head, 4 * head + 4)
            for query in range(5):
                scores = keys[batch, :, part] @ queries[batch, query, part] / 2.0
                expected = scores.softmax(0) @ values[batch, :, part]
                torch.testing.assert_close(result[batch, query, part], expected)


def test_cross_attention_equals_torch_multihead_attention():
    ours = _fill(CrossAttention(12, 6, 3))
    theirs = torch.nn.MultiheadAttention(12, 3, bias=False, kdim=6, vdim=6, batch_first=True)
    theirs.load_state_dict(ours.state_dict())
    x, condition = _random(2, 5, 12), _random(2, 7, 6)
    torch.testing.assert_close(
        ours(x, condition), theirs(x, condition, condition)[0], atol=1e-4, rtol=1e-4
    )


def test_self_attention_equals_torch_multihead_attention():
    ours = _fill(SelfAttention(12, 3))
    theirs = torch.nn.MultiheadAttention(12, 3, bias=False, batch_first=True)
    theirs.load_state_dict(ours.state_dict())
    x = _random(2, 5, 12)
    torch.testing.assert_close(ours(x), theirs(x, x, x)[0], atol=1e-4, rtol=1e-4)


def test_fresh_adapters_change_nothing():
    plain, adapted = SelfAttention(12, 3), SelfAttention(12, 3, lora_rank=4)
    adapted.load_state_dict(plain.state_dict(), strict=False)
    x = _random(1, 5, 12)
    torch.testing.assert_close(adapted(x), plain(x), atol=0, rtol=0)


def test_merged_adapters_act_as_unmerged_ones():
    adapted = _fill(CrossAttention(12, 6, 3, lora_rank=4, lora_alpha=2.0))
    plain = CrossAttention(12, 6, 3)
    state = {f"layer.{key}": value for key, value in adapted.state_dict().items()}
    merged = merge_lora(state, alpha=2.0)
    plain.load_state_dict({key.removeprefix("layer."): value for key, value in merged.items()})
    x, condition = _random(2, 5, 12), _random(2, 7, 6)
    torch.testing.assert_close(plain(x, condition), adapted(x, condition), atol=1e-4, rtol=1e-4)


def test_merging_factors_of_ones_adds_exactly_one_and_only_once():
    state = {
        "a.q_proj_weight": torch.zeros(1024, 1024),
        "a.q_lora_A": torch.ones(128, 1024),
        "a.q_lora_B": torch.ones(1024, 128),
    }
    once = merge_lora(state)
    assert set(once) == {"a.q_proj_weight"}
    assert bool((once["a.q_proj_weight"] == 1).all())
    assert bool((merge_lora(once)["a.q_proj_weight"] == 1).all())
    assert bool((state["a.q_proj_weight"] == 0).all())


def test_the_published_merge_is_reproduced(shared_dir):
    merged = merge_lora(load_golden(shared_dir, "weights"))
    for key, expected in load_golden(shared_dir, "lora_merged").items():
        torch.testing.assert_close(merged[key], expected, atol=1e-6, rtol=0)


def test_only_adapters_learn_when_the_rest_is_frozen():
    module = SelfAttention(12, 3, lora_rank=4)
    module(_random(1, 5, 12)).sum().backward()
    assert module.qkv_lora_B.grad is not None and module.qkv_lora_B.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"a.q_lora_B": None}, "needs a.q_lora_B"),
        ({"a.q_lora_A": None}, "lack their first factor"),
        ({"a.q_proj_weight": None}, "needs a.q_proj_weight"),
        ({"a.q_lora_B": torch.ones(4, 3)}, "do not fit"),
        ({"a.q_lora_A": torch.ones(2, 5)}, "do not fit"),
        ({"a.z_lora_A": torch.ones(2, 4)}, "Unknown adapter"),
    ],
)
def test_broken_adapters_are_refused(changes, message):
    state = {
        "a.q_proj_weight": torch.zeros(4, 4),
        "a.q_lora_A": torch.ones(2, 4),
        "a.q_lora_B": torch.ones(4, 2),
        **changes,
    }
    with pytest.raises(ValueError, match=message):
        merge_lora({key: value for key, value in state.items() if value is not None})


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="multiple of the number of heads"):
        SelfAttention(10, 3)
