"""Every manifest, overlay and set of chart values renders, reproducibly, to what Kubernetes takes."""

import copy

import kubernetes_validate
import pytest

from house import APIS, KUBERNETES, VERSIONS, documents, kustomize, oldest, renders, run


@pytest.fixture(scope="module")
def rendered():
    return {name: documents(text) for name, text in renders()}


@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_is_valid_to_the_letter(rendered, version):
    wrong = []
    for name, objects in rendered.items():
        for document in objects:
            if document["apiVersion"] in APIS:
                continue
            try:
                kubernetes_validate.validate(copy.deepcopy(document), version, strict=True)
            except Exception as error:  # noqa: BLE001: it has no common base
                wrong.append(f"{name}: {document['kind']} {document['metadata']['name']}: {error}")
    assert not wrong, "\n".join(wrong)


def test_what_is_wrong_is_found():
    (deployment,) = [d for d in documents(kustomize(".")) if d["kind"] == "Deployment"]
    for path, value in [(("spec", "replicaz"), 3), (("spec", "minReadySeconds"), "soon")]:
        broken = copy.deepcopy(deployment)
        broken[path[0]][path[1]] = value
        for version in VERSIONS:
            with pytest.raises(kubernetes_validate.ValidationError):
                kubernetes_validate.validate(broken, version, strict=True)


def test_renders_are_reproducible(rendered):
    again = {name: documents(text) for name, text in renders()}
    assert again == rendered


def test_an_old_kustomize_renders_the_same(rendered):
    for name, objects in rendered.items():
        if name.startswith("kubernetes"):
            folder = KUBERNETES / name.removeprefix("kubernetes").lstrip("/")
            assert documents(run(oldest("kubectl"), "kustomize", folder).stdout) == objects, name
