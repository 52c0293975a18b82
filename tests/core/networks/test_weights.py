import os
import pickle
import struct
import zipfile

import pytest
import torch
from lift3d.core.networks.weights import (
    KeyReport,
    compare_keys,
    load_weights,
    read_weights,
    strip_prefix,
)
from safetensors.torch import save_file

STATE = {"0.weight": torch.arange(12.0).reshape(3, 4), "0.bias": torch.arange(3.0)}


def _network() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Linear(4, 3))


def _save(path, state):
    if path.suffix == ".safetensors":
        save_file(state, path)
    elif path.suffix == ".ckpt":
        torch.save({"state_dict": state, "epoch": 3}, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=path.suffix != ".bin")
    return path


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt", ".pth", ".bin"])
def test_every_kind_of_file_gives_back_its_tensors(tmp_path, suffix):
    loaded = read_weights(_save(tmp_path / f"model{suffix}", STATE))
    assert loaded.keys() == STATE.keys()
    for key, value in STATE.items():
        torch.testing.assert_close(loaded[key], value, atol=0, rtol=0)


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
def test_the_prefix_is_stripped_and_other_keys_are_ignored(tmp_path, suffix):
    state = {f"lrm_generator.{key}": value for key, value in STATE.items()}
    state["lpips.weight"] = torch.zeros(2)
    path = _save(tmp_path / f"model{suffix}", state)
    assert read_weights(path, prefix="lrm_generator.").keys() == STATE.keys()
    assert read_weights(path).keys() == state.keys()


def test_files_without_the_prefix_keep_all_keys():
    assert strip_prefix(STATE, "lrm_generator.").keys() == STATE.keys()


def test_loading_copies_in_the_type_of_the_network(tmp_path):
    network = _network()
    state = {key: value.half() for key, value in STATE.items()}
    report = load_weights(network, state)
    assert report.is_clean and report.describe() == "all keys fit"
    assert network[0].weight.dtype == torch.float32 and network[0].weight.requires_grad
    state["0.weight"].zero_()
    torch.testing.assert_close(network[0].weight.data, STATE["0.weight"], atol=0, rtol=0)


def test_a_file_may_be_deleted_after_loading(tmp_path):
    path = _save(tmp_path / "model.pth", STATE)
    network = _network()
    load_weights(network, read_weights(path))
    path.write_bytes(b"")
    torch.testing.assert_close(network[0].weight.data, STATE["0.weight"], atol=0, rtol=0)


def test_networks_on_the_meta_device_come_to_life():
    with torch.device("meta"):
        network = _network()
    load_weights(network, STATE)
    assert network(torch.ones(1, 4)).tolist() == [[6.0, 23.0, 40.0]]


def test_missing_unexpected_and_misshaped_keys_are_listed():
    state = {"0.weight": torch.zeros(4, 3), "1.bias": torch.zeros(1)}
    report = compare_keys(_network(), state)
    assert report == KeyReport(("0.bias",), ("1.bias",), (("0.weight", (3, 4), (4, 3)),))
    network = _network()
    before = network[0].weight.clone()
    with pytest.raises(ValueError, match="x.pth does not fit") as caught:
        load_weights(network, state, name="x.pth")
    for part in (
        "1 keys missing: 0.bias",
        "1 keys unexpected: 1.bias",
        "0.weight [4, 3] for [3, 4]",
    ):
        assert part in str(caught.value)
    torch.testing.assert_close(network[0].weight, before, atol=0, rtol=0)


def test_messages_name_ten_keys_and_count_the_rest():
    text = KeyReport(missing=tuple(f"key{i}" for i in range(25))).describe()
    assert text.startswith("25 keys missing: key0,") and text.endswith("key9, and 15 more")


def test_loose_loading_takes_what_fits_and_reports_the_rest():
    network = _network()
    report = load_weights(network, {"0.bias": STATE["0.bias"], "x": torch.zeros(1)}, strict=False)
    assert report == KeyReport(missing=("0.weight",), unexpected=("x",))
    torch.testing.assert_close(network[0].bias.data, STATE["0.bias"], atol=0, rtol=0)


def test_loose_loading_leaves_no_parameter_without_values():
    with torch.device("meta"):
        network = _network()
    with pytest.raises(ValueError, match="leaves 1 parameters without values, such as 0.weight"):
        load_weights(network, {"0.bias": STATE["0.bias"]}, strict=False)


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt", ".bin"])
def test_truncated_files_are_refused_at_any_length(tmp_path, suffix):
    content = _save(tmp_path / f"whole{suffix}", STATE).read_bytes()
    path = tmp_path / f"cut{suffix}"
    for length in [1, 7, 8, 9, 50, len(content) // 2, len(content) - 60, len(content) - 1]:
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match="cannot be read as weights"):
            read_weights(path)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt", ".bin"])
def test_damaged_files_give_tensors_or_a_clear_error(tmp_path, suffix):
    content = _save(tmp_path / f"whole{suffix}", STATE).read_bytes()
    path = tmp_path / f"damaged{suffix}"
    generator = torch.Generator().manual_seed(0)
    for _ in range(60):
        place = int(torch.randint(len(content), (1,), generator=generator))
        value = int(torch.randint(256, (1,), generator=generator))
        path.write_bytes(content[:place] + bytes([value]) + content[place + 1 :])
        try:
            assert all(isinstance(tensor, torch.Tensor) for tensor in read_weights(path).values())
        except ValueError as error:
            assert "damaged" in str(error)


class _Hostile:
    def __reduce__(self):
        return os.mkdir, ("written_by_a_pickle",)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_code_in_a_file_is_refused_and_does_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    zipped, plain = tmp_path / "zipped.pth", tmp_path / "plain.pth"
    torch.save({"a": _Hostile()}, zipped)
    plain.write_bytes(pickle.dumps({"a": _Hostile()}))
    for path in (zipped, plain):
        with pytest.raises(ValueError, match="more than tensors or is damaged"):
            read_weights(path)
    assert not (tmp_path / "written_by_a_pickle").exists()


def test_compressed_archives_are_refused(tmp_path):
    path = tmp_path / "bomb.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data/0", bytes(10_000_000))
    assert path.stat().st_size < 100_000
    with pytest.raises(ValueError, match="entries are compressed"):
        read_weights(path, max_bytes=1_000_000)


def test_headers_that_claim_too_much_are_refused(tmp_path):
    path = tmp_path / "lying.safetensors"
    path.write_bytes(struct.pack("<Q", 2**60) + b"{}")
    with pytest.raises(ValueError, match="cannot be read as weights"):
        read_weights(path)
    header = b'{"a":{"dtype":"F32","shape":[1099511627776],"data_offsets":[0,4398046511104]}}'
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(16))
    with pytest.raises(ValueError, match="cannot be read as weights"):
        read_weights(path)


def test_files_of_another_kind_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        read_weights(tmp_path / "absent.pth")
    (tmp_path / "picture.png").write_bytes(b"x")
    with pytest.raises(ValueError, match="no weight file"):
        read_weights(tmp_path / "picture.png")
    (tmp_path / "empty.pth").write_bytes(b"")
    with pytest.raises(ValueError, match="is empty"):
        read_weights(tmp_path / "empty.pth")
    big = _save(tmp_path / "big.pth", STATE)
    with pytest.raises(ValueError, match="at most 10 are accepted"):
        read_weights(big, max_bytes=10)


@pytest.mark.parametrize(
    "content", [[1, 2], {"a": 3}, {"a": {"b": torch.zeros(1)}}, {1: torch.zeros(1)}]
)
def test_files_without_a_state_dict_are_refused(tmp_path, content):
    path = tmp_path / "other.pth"
    torch.save(content, path)
    with pytest.raises(ValueError, match="expected"):
        read_weights(path)
