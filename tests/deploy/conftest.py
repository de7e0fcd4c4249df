"""What is built once for all tests of a run."""

import pytest

import image as images


@pytest.fixture(scope="session")
def image(tmp_path_factory):
    """The image of docker/Dockerfile with the binary under test, for `contained.Container`."""
    return images.build(tmp_path_factory.mktemp("image"))
