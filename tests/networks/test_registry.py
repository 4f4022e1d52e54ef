"""Networks by name and by import path, and errors that teach."""

from __future__ import annotations

import contextlib

import pytest
import torch
from torch import nn

from ssdkd_env.errors import InvalidInputError
from ssdkd_env.networks import NETWORKS, build_network
from ssdkd_env.networks.convnet import ConvNet
from ssdkd_env.networks.deeplab import DEEPLABS
from ssdkd_env.networks.registry import GENERATORS
from ssdkd_env.registry import resolve_import_path
from tests.own_networks import NUMBER, DenseNet

OPTIONS = {"num_classes": 3, "in_channels": 2}


def test_networks_are_built_by_name_and_by_import_path() -> None:
    assert isinstance(build_network("student_arch", "convnet", OPTIONS, seed=0), ConvNet)
    assert isinstance(build_network("student_arch", "tests.own_networks:DenseNet", OPTIONS, seed=0), DenseNet)


@pytest.mark.parametrize("arch", ["convnet", "tests.own_networks:DropoutNet"])
def test_initial_weights_depend_on_the_seed_alone(arch: str) -> None:
    options = {"num_classes": 3}
    torch.manual_seed(1)
    first = build_network("student_arch", arch, options, seed=7).state_dict()
    torch.manual_seed(2)
    second = build_network("student_arch", arch, options, seed=7).state_dict()
    other = build_network("student_arch", arch, options, seed=8).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize(
    ("arch", "options"), [("convnet", OPTIONS), ("convnet", {}), ("tests.own_networks:no_module", OPTIONS)]
)
def test_building_leaves_the_global_generator_alone_even_when_it_fails(arch: str, options: dict[str, int]) -> None:
    torch.manual_seed(4)
    before = torch.get_rng_state()
    with contextlib.suppress(InvalidInputError):
        build_network("student_arch", arch, options, seed=9)
    assert torch.equal(before, torch.get_rng_state())


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(InvalidInputError, match="student_arch='resnet'") as error:
        build_network("student_arch", "resnet", OPTIONS, seed=0)
    assert all(name in str(error.value) for name in NETWORKS)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "path",
    [
        "no_such_package.nets:make",
        "tests.no_such_module:make",
        "tests.own_networks:no_such_attribute",
        "tests.own_networks:",
        ":make",
        ".own_networks:make",
    ],
)
def test_a_bad_import_path_names_the_argument(path: str) -> None:
    with pytest.raises(InvalidInputError, match="teacher_arch") as error:
        build_network("teacher_arch", path, OPTIONS, seed=0)
    assert path in str(error.value)
    assert "\n" not in str(error.value)


def test_an_import_path_gives_any_attribute() -> None:
    assert resolve_import_path("task", "tests.own_networks:NUMBER") == NUMBER


def test_a_factory_that_refuses_the_options_names_argument_and_options() -> None:
    with pytest.raises(InvalidInputError, match=r"student_arch.*num_classes"):
        build_network("student_arch", "tests.own_networks:no_arguments", OPTIONS, seed=0)
    with pytest.raises(InvalidInputError, match=r"student_arch.*widths"):
        build_network("student_arch", "convnet", OPTIONS | {"widths": (1, 2)}, seed=0)


def test_an_attribute_that_cannot_be_called_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="student_arch"):
        build_network("student_arch", "tests.own_networks:NUMBER", OPTIONS, seed=0)


def test_a_factory_that_returns_no_module_is_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"generator_arch.*list.*torch\.nn\.Module"):
        build_network("generator_arch", "tests.own_networks:no_module", OPTIONS, seed=0)


@pytest.mark.parametrize("arch", sorted(NETWORKS))
def test_every_registered_network_takes_the_options_of_its_role_and_answers_in_its_shape(arch: str) -> None:
    images, latents = (2, 2, 16, 16), (2, 4)
    generator = arch in GENERATORS
    with torch.device("meta"):
        network = NETWORKS[arch](latent_dim=4, image_shape=images[1:]) if generator else NETWORKS[arch](**OPTIONS)
        assert isinstance(network, nn.Module)
        shape = tuple(network.eval()(torch.zeros(latents if generator else images)).shape)
    assert shape == (images if generator else (2, 3, 16, 16) if arch in DEEPLABS else (2, 3))
