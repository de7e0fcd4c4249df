"""What kubectl and Helm send by generated clients: an object in Kubernetes' own binary form.

Only of the kinds that they do send so to the stand-in for a cluster: Helm keeps each release in a Secret. The answer
may be JSON; it is among what they accept.
"""

import base64

MAGIC = b"k8s\0"

# Numbers and names of fields, and how their bytes are read. A list of pairs, where fields repeat, becomes a map.
METADATA = {1: ("name", bytes.decode), 3: ("namespace", bytes.decode), 5: ("uid", bytes.decode),
            6: ("resourceVersion", bytes.decode), 11: ("labels", {}), 12: ("annotations", {})}
KINDS = {
    "Secret": {2: ("data", {"value": lambda value: base64.b64encode(value).decode()}), 3: ("type", bytes.decode)},
    "Namespace": {2: (None, None), 3: (None, None)},
    "DeleteOptions": {},
}


def varint(data, at):
    number = shift = 0
    while True:
        number |= (data[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if data[at - 1] < 0x80:
            return number, at


def fields(data):
    """Number and value of each field: bytes, or an integer."""
    at = 0
    while at < len(data):
        tag, at = varint(data, at)
        if tag & 7 == 0:
            value, at = varint(data, at)
        elif tag & 7 == 2:
            length, at = varint(data, at)
            value, at = data[at:at + length], at + length
        else:
            raise ValueError(f"a field of wire type {tag & 7}")
        yield tag >> 3, value


def message(data, known):
    said = {}
    for number, value in fields(data):
        name, read = known.get(number, (None, None))
        if name is None or value == b"":
            continue
        if isinstance(read, dict):
            pair = dict(fields(value))
            said.setdefault(name, {})[pair[1].decode()] = read.get("value", bytes.decode)(pair.get(2, b""))
        else:
            said[name] = read(value)
    return said


def document(body):
    """The object that a body holds, as it would be in JSON. ValueError: of a kind that is not read here."""
    envelope = dict(fields(body.removeprefix(MAGIC)))
    about = {number: value.decode() for number, value in fields(envelope[1])}
    if about[2] not in KINDS:
        raise ValueError(f"a {about[2]} in protobuf is not understood here: give kubectl a file (-f)")
    said = {"apiVersion": about[1], "kind": about[2]}
    if about[2] != "DeleteOptions":
        known = {1: ("metadata", lambda data: message(data, METADATA)), **KINDS[about[2]]}
        said |= message(envelope[2], known)
    return said
