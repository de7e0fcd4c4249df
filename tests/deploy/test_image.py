"""The image: what its Dockerfile says, what is in it, and how a container of it behaves."""

from contained import Container


def test_it_says_its_version(image):
    with Container(image, ["version"]) as container:
        assert container.wait() == 0, container.stderr
        assert container.stdout.startswith("luminate ")
