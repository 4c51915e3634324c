"""`OddPhotos`: the half of PASCAL VOC on which no attack of this project was tuned."""

from lightning_attack.data import VOCSegmentation


class OddPhotos(VOCSegmentation):
    """The photos at odd positions of a split, see `search_transfer.py`.

    Args:
        root: see `VOCSegmentation`.
        split: see `VOCSegmentation`.
    """

    def __init__(self, root: str, split: str = "val") -> None:
        super().__init__(root, split)
        self.names = self.names[1::2]
