"""The original CIFAR batches: read exactly, and never obeyed."""

from __future__ import annotations

import os
import pickle
import pickletools
import subprocess
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ssdkd_env.errors import InvalidInputError
from ssdkd_env.tasks.data import load_split
from ssdkd_env.tasks.data.batches import BATCH_LAYOUTS, read_batch
from tests.tasks.data_forms import (
    cifar10_batch,
    cifar10_files,
    cifar100_files,
    python2_pickle,
    random_images,
    refused,
    write_files,
    write_tar,
)

CIFAR10 = BATCH_LAYOUTS["cifar10"]
IMAGES = random_images(3)
ROWS = IMAGES.reshape(3, -1)


@pytest.fixture(autouse=True)
def private_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSDKD_CACHE", str(tmp_path / "cache"))


def test_the_handwritten_pickles_are_what_python_2_wrote() -> None:
    content = cifar10_batch("data_batch_1", IMAGES, [3, 1, 2])
    assert content[:2] == b"\x80\x02"
    read = pickle.loads(content, encoding="bytes")
    assert sorted(read) == [b"batch_label", b"data", b"filenames", b"labels"]
    assert np.array_equal(read[b"data"], ROWS)
    pickletools.dis(content, out=open("/dev/null", "w"))  # noqa: SIM115 (checks the stack and the opcodes)


@pytest.mark.parametrize("archived", [False, True])
def test_cifar10_as_downloaded(tmp_path: Path, archived: bool) -> None:
    files, *truth = cifar10_files()
    expected: Any = {"train": truth[:2], "test": truth[2:]}
    if archived:
        source = write_tar(tmp_path / "cifar-10-python.tar.gz", {"cifar-10-batches-py": None, **files}, "w:gz")
    else:
        source = write_files(tmp_path, files) / "cifar-10-batches-py"
    for split, (images, labels) in expected.items():
        read = load_split("data", source, split)
        assert np.array_equal(read[0].numpy(), images)
        assert read[1].tolist() == labels


@pytest.mark.parametrize("archived", [False, True])
def test_cifar100_gives_its_fine_labels(tmp_path: Path, archived: bool) -> None:
    files, images, labels = cifar100_files()
    if archived:
        source = write_tar(tmp_path / "cifar-100-python.tar.gz", files, "w:gz")
    else:
        source = write_files(tmp_path, files) / "cifar-100-python"
    read = load_split("data", source, "test")
    assert np.array_equal(read[0].numpy(), images)
    assert read[1].tolist() == labels


@pytest.mark.parametrize("archived", [False, True])
def test_cifar100_gives_its_coarse_labels_to_a_task_of_20(tmp_path: Path, archived: bool) -> None:
    files, _, fine = cifar100_files()
    if archived:
        source = write_tar(tmp_path / "cifar-100-python.tar.gz", files, "w:gz")
    else:
        source = write_files(tmp_path, files) / "cifar-100-python"
    assert load_split("data", source, "test", num_classes=20)[1].tolist() == [1, 2, 3, 4]
    assert load_split("data", source, "test", num_classes=100)[1].tolist() == fine
    assert load_split("data", source, "test", num_classes=20)[1].tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize("archived", [False, True])
def test_batches_of_the_other_data_set_are_refused(tmp_path: Path, archived: bool) -> None:
    files = cifar10_files()[0]
    if archived:
        source = write_tar(tmp_path / "cifar10.tar", files)
        load_split("data", source, "test", num_classes=10)
    else:
        source = write_files(tmp_path, files) / "cifar-10-batches-py"
    with pytest.raises(InvalidInputError, match=r"has 10 classes \(cifar10\), and the task has 100; give data of"):
        load_split("data", source, "test", num_classes=100)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("as_bytes", [False, True])
@pytest.mark.parametrize("labels", [[3, 0, 9], np.array([3, 0, 9]), np.array([3, 0, 9], dtype=">u2")])
def test_pickles_of_every_protocol(protocol: int, as_bytes: bool, labels: Any) -> None:
    fields = {"data": ROWS, "labels": labels, "batch_label": b"one", "filenames": ["a", "b", "c"]}
    keyed = {name.encode() if as_bytes else name: value for name, value in fields.items()}
    images, read = read_batch("data", "batch", pickle.dumps(keyed, protocol), CIFAR10)
    assert np.array_equal(images, IMAGES)
    assert read.dtype == np.int64
    assert read.tolist() == [3, 0, 9]


@pytest.mark.parametrize("protocol", [2, 5])
def test_arrays_in_column_order_are_read_too(protocol: int) -> None:
    content = pickle.dumps({"data": np.asfortranarray(ROWS), "labels": [0, 1, 2]}, protocol)
    assert np.array_equal(read_batch("data", "batch", content, CIFAR10)[0], IMAGES)


def test_colours_become_grey_as_in_pillow(tmp_path: Path) -> None:
    files, images, *_ = cifar10_files()
    read, _ = load_split("data", write_files(tmp_path, files) / "cifar-10-batches-py", "train", channels=1)
    expected = [np.asarray(Image.fromarray(image.transpose(1, 2, 0)).convert("L")) for image in images]
    assert np.array_equal(read.numpy()[:, 0], np.stack(expected))


# --- hostile pickles ---


class Calls:
    """Pickles into a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def hostile(mark: Path) -> dict[str, bytes]:
    """Pickles that make the file `mark` when they are obeyed, each by another way of calling."""
    command = f"touch {mark}"
    text = command.encode()
    gadgets = {f"reduce, protocol {number}": pickle.dumps(Calls(os.system, command), number) for number in range(6)}
    gadgets |= {
        "eval": pickle.dumps(Calls(eval, f"open({str(mark)!r}, 'w')")),
        "exec": pickle.dumps(Calls(exec, f"open({str(mark)!r}, 'w')")),
        "open": pickle.dumps(Calls(open, str(mark), "w")),
        "Popen": pickle.dumps(Calls(subprocess.Popen, ["touch", str(mark)])),
        "inst": b"(S'" + text + b"'\nios\nsystem\n.",
        "obj": b"(cos\nsystem\nS'" + text + b"'\no.",
        "newobj": b"\x80\x02csubprocess\nPopen\n(](U\x05touchU"
        + bytes([len(str(mark))])
        + str(mark).encode()
        + b"et\x81.",
        "a dotted name": b"\x80\x04\x8c\x05numpy\x8c\x17ndarray.__class__.__base__\x93.",
        "globals of a reader": b"\x80\x04\x8c\x05numpy\x8c\x1adtype.__init__.__globals__\x93.",
        "numpy's own loader": b"cnumpy\nload\n(S'" + str(mark).encode() + b"'\ntR.",
        "another encoding": b"c_codecs\nencode\n(V" + text + b"\nS'rot13'\ntR.",
        "the way to any name": b"cbuiltins\ngetattr\n(cnumpy\ndtype\nS'__init__'\ntR.",
        "inside a good batch": pickle.dumps({"data": ROWS, "labels": [0, 1, 2], "x": Calls(os.system, command)}),
        "an array of objects": pickle.dumps({"data": np.array([Calls(os.system, command)]), "labels": [1]}),
        "a persistent id": b"P" + text + b"\n.",
        "state for a reader": b"cnumpy.core.multiarray\n_reconstruct\n(N}S'__code__'\nI1\nstb.",
    }
    return gadgets


GADGETS = sorted(hostile(Path("mark")))


@pytest.mark.parametrize("gadget", GADGETS)
def test_a_hostile_pickle_is_refused_and_not_obeyed(tmp_path: Path, gadget: str) -> None:
    mark = tmp_path / "mark"
    files = dict(cifar10_files()[0])
    files["cifar-10-batches-py/data_batch_2"] = hostile(mark)[gadget]
    refused(write_files(tmp_path, files) / "cifar-10-batches-py", "data_batch_2.*anew")
    refused(write_tar(tmp_path / "cifar-10-python.tar.gz", files, "w:gz"), "data_batch_2.*anew")
    assert not mark.exists()


def test_the_hostile_pickles_would_do_harm_if_they_were_obeyed(tmp_path: Path) -> None:
    for gadget in ("reduce, protocol 0", "reduce, protocol 4", "inst", "obj", "eval", "exec", "inside a good batch"):
        mark = tmp_path / "mark"
        pickle.loads(hostile(mark)[gadget])
        assert mark.exists(), gadget
        mark.unlink()


def test_what_a_hostile_pickle_sets_on_a_reader_does_no_harm() -> None:
    readers = (
        b"numpy.core.numeric\n_frombuffer",
        b"numpy.core.multiarray\n_reconstruct",
        b"numpy\ndtype",
        b"numpy\nndarray",
    )
    for reader in readers:
        for state in (b"S'__defaults__'\n(I7\nt", b"S'__kwdefaults__'\n}", b"S'__setstate__'\nN", b"S'fill'\nN"):
            for content in (b"c" + reader + b"\n(N}" + state + b"stb.", b"c" + reader + b"\n}" + state + b"sb."):
                with pytest.raises(InvalidInputError):
                    read_batch("data", "batch", content, CIFAR10)
    for protocol in (2, 5):
        content = pickle.dumps({"data": ROWS, "labels": [0, 1, 2]}, protocol)
        assert np.array_equal(read_batch("data", "batch", content, CIFAR10)[0], IMAGES)


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x02}r\x00\x00\x40\x00.",  # a memo index, for which Python's unpickler in C takes 64 MB
        b"\x80\x05\x96\x00\x00\x00\x04\x00\x00\x00\x00.",  # a bytearray of 64 MB
        b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.",  # bytes
        b"\x80\x02cnumpy\nndarray\n(J\x00\x00\x00\x04tR.",  # an array of 64 million numbers, without its bytes
    ],
)
def test_a_few_bytes_cannot_fill_the_memory(content: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(InvalidInputError):
            read_batch("data", "batch", content, CIFAR10)
        assert tracemalloc.get_traced_memory()[1] < 1e6
    finally:
        tracemalloc.stop()


def test_bytes_in_another_encoding_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="encoding 'rot13'"):
        read_batch("data", "batch", b"c_codecs\nencode\n(Vtext\nVrot13\ntR.", CIFAR10)


# --- what does not fit ---


def test_a_pickle_cut_short_anywhere_is_refused() -> None:
    content = python2_pickle({"labels": [1], "data": ROWS[:1]})
    for length in [*range(0, 200, 3), *range(200, len(content), 301), len(content) - 1]:
        with pytest.raises(InvalidInputError, match=r"batch.*anew"):
            read_batch("data", "batch", content[:length], CIFAR10)


def test_a_damaged_pickle_gives_images_or_is_refused() -> None:
    content = python2_pickle({"labels": [1, 2], "data": ROWS[:2]})
    damaged = 0
    for position in range(250):
        for bit in range(8):
            bad = bytearray(content)
            bad[position] ^= 1 << bit
            try:
                images, labels = read_batch("data", "batch", bytes(bad), CIFAR10)
            except InvalidInputError:
                damaged += 1
            else:
                assert images.shape == (2, 3, 32, 32) and labels.min() >= 0 and labels.max() < 10
    assert damaged > 1000


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"labels": [1, 2, 3]}, "'data'"),
        ({"data": ROWS}, "'labels'"),
        ({"data": ROWS, "fine_labels": [1, 2, 3]}, "'labels'"),
        ({"data": ROWS[:, :-1], "labels": [1, 2, 3]}, "3072"),
        ({"data": IMAGES, "labels": [1, 2, 3]}, "3072"),
        ({"data": ROWS[:0], "labels": []}, "3072"),
        ({"data": ROWS.astype(np.int32), "labels": [1, 2, 3]}, "uint8"),
        ({"data": ROWS.tolist(), "labels": [1, 2, 3]}, "uint8"),
        ({"data": ROWS.astype(np.float32), "labels": [1, 2, 3]}, "whole numbers"),
        ({"data": ROWS, "labels": [1, 2]}, "for 3 images"),
        ({"data": ROWS, "labels": [1, 2, "3"]}, "whole"),
        ({"data": ROWS, "labels": [1, 2, None]}, "whole"),
        ({"data": ROWS, "labels": [1, 2, True]}, "whole"),
        ({"data": ROWS, "labels": "123"}, "whole"),
        ({"data": ROWS, "labels": [1, 2, 10]}, "0 to 9"),
        ({"data": ROWS, "labels": [-1, 2, 3]}, "0 to 9"),
        ({"data": ROWS, "labels": [1, 2, 2**70]}, "whole"),
        ([1, 2, 3], "dict"),
        (None, "dict"),
    ],
)
def test_batches_that_do_not_fit_are_refused(fields: Any, match: str) -> None:
    with pytest.raises(InvalidInputError, match=match) as error:
        read_batch("data='x'", "data_batch_1", pickle.dumps(fields), CIFAR10)
    assert "data='x': data_batch_1" in str(error.value) and "anew" in str(error.value)


@pytest.mark.parametrize("archived", [False, True])
def test_a_missing_batch_is_named(tmp_path: Path, archived: bool) -> None:
    files, *_ = cifar10_files()
    del files["cifar-10-batches-py/data_batch_4"]
    if archived:
        source = write_tar(tmp_path / "cifar10.tar", files)
    else:
        source = write_files(tmp_path, files) / "cifar-10-batches-py"
    refused(source, "lacks data_batch_4;.*anew")


def test_a_folder_in_place_of_a_batch_is_named(tmp_path: Path) -> None:
    source = write_files(tmp_path, cifar10_files()[0]) / "cifar-10-batches-py"
    (source / "data_batch_4").unlink()
    (source / "data_batch_4").mkdir()
    refused(source, "data_batch_4: it is a folder")
