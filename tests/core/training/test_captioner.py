"""Captions by an image-to-text model: a tiny random BLIP whose bias decides what it says."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lift3d.core.training.captioner import CaptionerParams, load_captioner

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "mug", "on", "white")


@pytest.fixture(scope="module")
def blip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("blip")
    small = {
        "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
        "num_attention_heads": 2, "projection_dim": 16,
    }  # fmt: skip
    config = transformers.BlipConfig(
        text_config=dict(
            small, vocab_size=len(WORDS), encoder_hidden_size=16, max_position_embeddings=32,
            bos_token_id=2, eos_token_id=3, sep_token_id=3, pad_token_id=0,
        ),
        vision_config=dict(small, image_size=32, patch_size=16),
        projection_dim=16,
        image_text_hidden_size=16,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = transformers.BlipForConditionalGeneration(config)
    with torch.no_grad():  # the model says "mug" whatever it sees
        for name, value in model.named_parameters():
            if name.endswith("predictions.bias"):
                value[WORDS.index("mug")] += 50
    model.save_pretrained(folder)
    tokenizer = transformers.BertTokenizer(vocab={word: i for i, word in enumerate(WORDS)})
    # Newer versions have one that does not need torchvision.
    images = getattr(transformers, "BlipImageProcessorPil", transformers.BlipImageProcessor)
    images = images(size={"height": 32, "width": 32})
    transformers.BlipProcessor(images, tokenizer).save_pretrained(folder)
    return folder


def test_the_models_words_are_the_caption(blip_folder: Path) -> None:
    caption = load_captioner(CaptionerParams(blip_folder, max_tokens=3, beams=1))
    picture = torch.rand(64, 64, 3, generator=torch.Generator().manual_seed(0))
    assert set(caption(picture).split()) == {"mug"}
    assert caption(picture) == caption(picture)


def test_a_prompt_is_asked_first(blip_folder: Path) -> None:
    caption = load_captioner(CaptionerParams(blip_folder, prompt="a red", max_tokens=6, beams=1))
    assert "mug" in caption(torch.rand(64, 64, 3))


def test_folders_without_a_model_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    with pytest.raises(FileNotFoundError, match="is no folder"):
        load_captioner(CaptionerParams(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match="holds no image-to-text model"):
        load_captioner(CaptionerParams(tmp_path))
    with pytest.raises(ValueError, match="max_tokens"):
        CaptionerParams(tmp_path, max_tokens=0)
