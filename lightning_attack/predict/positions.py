"""`Positions`: where in the data set the images of a run are, which seeds their random numbers."""

from __future__ import annotations

from collections.abc import Sequence

from lightning.pytorch import Trainer

from lightning_attack.predict.batches import Batch, BatchError

_HINTS = {
    "index": "'index' is the position in the data set, not in the batch",
    "name": "'name' may hold folders, such as 'town/image_1'",
}


class Positions:
    """Finds the positions of images that come without `index`, and sees to it that no image comes twice.

    In a `Trainer.predict` with a `DataLoader` the position is the one that the loader's sampler drew, as Lightning
    notes it: it does not depend on batch size, order, workers or the number of processes. Without a sampler (a stream,
    a list of batches, `predict_step` called by hand) images are counted as they come; of several processes each counts
    its own, in steps: process r of n has r, r + n, r + 2n, ...

    Example:
        >>> positions = Positions()
        >>> positions.of_batch(None, 0, 3), positions.of_batch(None, 1, 2), positions.of_batch(None, 0, 1)
        ([0, 1, 2], [3, 4], [0])
    """

    def __init__(self) -> None:
        self._count = 0
        self._indices: set[int] = set()
        self._names: set[str] = set()

    def begin(self) -> None:
        """Forget the images of an earlier run."""
        self._count = 0
        self._indices.clear()
        self._names.clear()

    def of_batch(self, trainer: Trainer | None, batch_idx: int, count: int) -> list[int]:
        """The positions of the `count` images of a batch.

        Args:
            trainer: what runs the batches; None: nobody does.
            batch_idx: number of the batch in this process, from 0; 0 begins anew.
            count: number of images.

        Raises:
            BatchError: the batch has more or fewer images than its sampler drew.
        """
        drawn = _drawn(trainer, batch_idx)
        if drawn is not None and len(drawn) != count:
            raise BatchError(
                f"a batch has {count} images, but {len(drawn)} were drawn from the data set, so their positions are "
                "not known; have the loader give 'index' too"
            )
        if batch_idx == 0:
            self._count = 0
        first, self._count = self._count, self._count + count
        if drawn is not None:
            return drawn
        rank, processes = (0, 1) if trainer is None else (trainer.global_rank, trainer.world_size)
        return [rank + number * processes for number in range(first, first + count)]

    def check_unique(self, batch: Batch) -> None:
        """Raise `BatchError` if an image of the batch has the index or the name of one that came before it.

        The files of the second would take the place of the first one's.
        """
        for index, name in zip(batch["index"].tolist(), batch["name"], strict=True):
            for key, value, known in (("index", index, self._indices), ("name", name, self._names)):
                if value in known:
                    raise BatchError(
                        f"two images of the run have the {key} {value!r}; each needs its own, for its files: "
                        f"{_HINTS[key]}"
                    )
            self._indices.add(index)
            self._names.add(name)


def _drawn(trainer: Trainer | None, batch_idx: int) -> list[int] | None:
    """What the sampler of the running prediction drew for a batch; None where there is no such sampler."""
    if trainer is None or not trainer.predicting:
        return None
    sampler = getattr(trainer.predict_dataloaders, "batch_sampler", None)
    batches: Sequence[list[int]] = getattr(sampler, "seen_batch_indices", ())
    return [*batches[batch_idx]] if batch_idx < len(batches) else None
