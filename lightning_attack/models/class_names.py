"""Do a network and a data set that both know the names of their classes have them in the same order?"""

from __future__ import annotations

from collections.abc import Sequence

from lightning_attack.models.wrapper import ModelError, SegmentationModel

_SAME = (
    ("aeroplane", "airplane", "plane"),
    ("motorbike", "motorcycle"),
    ("tvmonitor", "tv", "television", "monitor"),
    ("pottedplant", "plantpot"),
    ("sofa", "couch"),
    ("bicycle", "bike"),
)
"""Names of one class in PASCAL VOC, COCO and ADE20K, in the spelling of `_plain`."""
_SYNONYMS = {name: names[0] for names in _SAME for name in names}
_SHOWN = 12
"""Of more classes than these, an error shows the places where the orders differ."""


def check_class_order(name: str, model: SegmentationModel, classes: Sequence[str]) -> None:
    """Compare the class names of a network, or of an ensemble's members, with those of the data.

    Names are compared without case, spaces, hyphens and underscores. Names that only one side has, such as `LABEL_0`,
    say nothing.

    Args:
        name: of the network, for messages.
        model: the network; if it does not know its classes (`classes` is None), nothing is compared.
        classes: of the data, as many as the network's.

    Raises:
        ModelError: most names are known on both sides, and some of these stand at different places; the message has the
            groups of `ClassMap` that bring them into the data's order.

    Example:
        >>> from torch import nn
        >>> model = SegmentationModel(nn.Identity(), 3)
        >>> model.classes = ("background", "dog", "cat")
        >>> check_class_order("net", model, ["Background", "dog", "cat"])
        >>> check_class_order("net", model, ["cat", "background", "dog"])
        Traceback (most recent call last):
            ...
        lightning_attack.models.wrapper.ModelError: the classes of 'net' are those of the data in another order:
          network: 0 background, 1 dog, 2 cat
          data:    0 cat, 1 background, 2 dog
        put a ClassMap around the network, where ... is; or correct the classes of the dataset, if these are wrong
          {class_path: ClassMap, init_args: {network: ..., groups: [[2], [0], [1]]}}
    """
    for number, member in enumerate(getattr(model, "members", ())):
        check_class_order(f"{name}[{number}]", member, classes)
    known = model.classes
    # A class of the user's may have something else under this name.
    if not isinstance(known, tuple | list) or len(known) != len(classes) or not all(map(_is_text, known)):
        return
    ours, theirs = _places(known), _places(classes)
    shared = ours.keys() & theirs.keys()
    if 2 * len(shared) < len(classes) or all(ours[one] == theirs[one] for one in shared):
        return
    differing = [place for place in range(len(classes)) if _plain(known[place]) != _plain(classes[place])]
    shown = differing if len(classes) > _SHOWN else range(len(classes))
    lists = [", ".join(f"{place} {names[place]}" for place in shown) for names in (known, classes)]
    raise ModelError(
        f"the classes of '{name}' are those of the data in another order:\n"
        f"  network: {lists[0]}\n  data:    {lists[1]}\n{_remedy(ours, theirs, len(classes))}"
    )


def _remedy(ours: dict[str, int], theirs: dict[str, int], count: int) -> str:
    order = {place: ours[name] for name, place in theirs.items() if name in ours}
    left = [place for place in range(count) if place not in order]
    unused = [place for place in range(count) if place not in order.values()]
    if len(left) > 1 and left != unused:
        return (
            f"put a ClassMap around it, with one group for each class of the data; which classes of the network are "
            f"the data's {', '.join(map(str, left))}, the names do not say"
        )
    groups = [[(order | dict(zip(left, unused, strict=True)))[place]] for place in range(count)]
    return (
        "put a ClassMap around the network, where ... is; or correct the classes of the dataset, if these are wrong\n"
        f"  {{class_path: ClassMap, init_args: {{network: ..., groups: {groups}}}}}"
    )


def _places(names: Sequence[str]) -> dict[str, int]:
    """Where each name stands; those that stand twice are left out."""
    plain = [_plain(name) for name in names]
    return {name: place for place, name in enumerate(plain) if name and plain.count(name) == 1}


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _plain(name: str) -> str:
    """A name as it is compared.

    Example:
        >>> _plain("Traffic_light"), _plain("__background__"), _plain("airplane")
        ('trafficlight', 'background', 'aeroplane')
    """
    letters = "".join(letter for letter in name.casefold() if letter.isalnum())
    return _SYNONYMS.get(letters, letters)
