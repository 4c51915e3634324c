"""Adversarial images that somebody else made: every form in which they come, and what is said of the rest."""

import io
import pickle
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_attack.common.shards import ShardWriter
from lightning_attack.data import DataError, ImageFolder, SegmentationDataModule
from lightning_attack.data.arrays import ArrayFile

NAMES = ("a", "b/c", "b/d")
SIZE = (12, 20)
NOT_SQUARE = ("crop", "pad", "long_side", "stretch")


def photo(number, size=SIZE):
    return np.random.default_rng(number).integers(0, 256, (*size, 3), np.uint8)


def changed(image, levels=8, seed=0):
    """The image with every value moved by up to so many levels, and one by exactly so many."""
    change = np.random.default_rng(seed).integers(-levels, levels + 1, image.shape)
    change[3, 5, 1] = levels if image[3, 5, 1] < 128 else -levels
    return np.clip(image.astype(int) + change, 0, 255).astype(np.uint8)


PHOTOS = [photo(number) for number in range(3)]
ADVERSARIAL = [changed(image) for image in PHOTOS]


@pytest.fixture
def folder(tmp_path):
    for name, image in zip(NAMES, PHOTOS, strict=True):
        path = tmp_path / "photos" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    (tmp_path / "adv" / "b").mkdir(parents=True)
    return tmp_path


def data(folder, root="adv", **arguments):
    return SegmentationDataModule(ImageFolder(str(folder / "photos")), adversarial_root=str(folder / root), **arguments)


def loaded(folder, root="adv", **arguments):
    module = data(folder, root, **arguments)
    module.check()
    return torch.cat([batch["adversarial"] for batch in module.predict_dataloader()])


def chw(images):
    return np.stack(images).transpose(0, 3, 1, 2)


def unit(images):
    return torch.from_numpy(chw(images)).float() / 255


def fill(folder, write):
    for name, image in zip(NAMES, ADVERSARIAL, strict=True):
        write(str(folder / "adv" / name), image)


ONE_BY_ONE = {
    "png": lambda path, image: Image.fromarray(image).save(f"{path}.png"),
    "npy, 3xHxW, float": lambda path, image: np.save(f"{path}.npy", image.transpose(2, 0, 1) / np.float32(255)),
    "npy, 1xHxWx3, uint8": lambda path, image: np.save(f"{path}.npy", image[None]),
    "npz": lambda path, image: np.savez_compressed(f"{path}.npz", image=image, label=np.zeros(SIZE)),
    "pt": lambda path, image: torch.save(torch.from_numpy(image / np.float32(255)), f"{path}.pt"),
}


@pytest.mark.parametrize("write", ONE_BY_ONE.values(), ids=ONE_BY_ONE)
def test_a_file_for_each_photo(folder, write):
    fill(folder, write)
    assert torch.equal(loaded(folder, batch_size=2, adversarial_eps="8/255"), unit(ADVERSARIAL))


def test_jpeg_is_read_as_it_decodes(folder):
    fill(folder, lambda path, image: Image.fromarray(image).save(f"{path}.JPG", format="jpeg"))
    decoded = [np.array(Image.open(folder / "adv" / f"{name}.JPG")) for name in NAMES]
    assert torch.equal(loaded(folder), unit(decoded))
    with pytest.raises(DataError, match=r"3 of 3 adversarial images exceed data.adversarial_eps, the worst: .*\.JPG"):
        data(folder, adversarial_eps="8/255").check()


def test_shards_of_a_run(folder):
    """Of an image that was attacked again, the one in the later part of the run counts."""
    parts = {"0000_0000.tar": [0, 1, 0], "0000_0001.tar": [2], "0001_0000.tar": [0]}
    for name, numbers in parts.items():
        writer = ShardWriter(folder / "adv" / name)
        for number in numbers:
            content = io.BytesIO()
            image = ADVERSARIAL[number] if name == "0001_0000.tar" or number else PHOTOS[0]
            Image.fromarray(image).save(content, format="png")
            writer.append(f"{NAMES[number]}.png", content.getvalue())
        writer.close()
    assert torch.equal(loaded(folder, batch_size=2, adversarial_eps="8/255"), unit(ADVERSARIAL))
    assert torch.equal(loaded(folder, num_workers=1), unit(ADVERSARIAL))
    assert torch.equal(loaded(folder, "adv/0001_0000.tar", limit=1), unit(ADVERSARIAL[:1]))
    with pytest.raises(DataError, match=r"1 of 3 photos have no adversarial image in '.*0000_0000.tar': 'b/d'"):
        loaded(folder, "adv/0000_0000.tar")
    Image.fromarray(PHOTOS[0]).save(folder / "adv" / "a.png")
    with pytest.raises(DataError, match=r"a.png' and '.*0001_0000.tar/a.png' are both for the photo 'a'"):
        loaded(folder)


ALL_IN_ONE = {
    "all.pt": lambda path: torch.save(torch.from_numpy(chw(ADVERSARIAL)), path),
    "all.npy": lambda path: np.save(path, np.stack(ADVERSARIAL)),
    "all.npz": lambda path: np.savez_compressed(path, x_adv=chw(ADVERSARIAL), x=chw(PHOTOS), y=np.zeros(3)),
    "names.npz": lambda path: np.savez(path, **dict(zip(NAMES, ADVERSARIAL, strict=True))),
    "names.pt": lambda path: torch.save(dict(zip(NAMES, unit(ADVERSARIAL), strict=True)), path),
}


@pytest.mark.parametrize("name", ALL_IN_ONE)
def test_one_file_for_all_photos(folder, name):
    ALL_IN_ONE[name](folder / name)
    assert torch.equal(loaded(folder, name, batch_size=3, adversarial_eps=8 / 255), unit(ADVERSARIAL))
    # As many as the whole data set: each by its place there, whatever part of it the run takes.
    assert torch.equal(loaded(folder, name, every=2), unit(ADVERSARIAL[::2]))
    assert torch.equal(loaded(folder, name, num_workers=2), unit(ADVERSARIAL))


def test_as_many_images_as_the_run_has_photos(folder):
    np.save(folder / "some.npy", np.stack(ADVERSARIAL[::2]))
    assert torch.equal(loaded(folder, "some.npy", every=2), unit(ADVERSARIAL[::2]))
    with pytest.raises(DataError, match="holds 2 images, but the run has 3 photos and the data set 3"):
        loaded(folder, "some.npy")


@pytest.mark.parametrize("save_type", ["float", "int"])
def test_a_file_of_torchattacks(folder, save_type):
    """Written by the package itself."""
    torchattacks = pytest.importorskip("torchattacks", reason="the peer is optional")
    torch.manual_seed(0)
    attack = torchattacks.PGD(nn.Conv2d(3, 4, 1), eps=8 / 255, alpha=2 / 255, steps=5)
    clean = unit(PHOTOS)
    loader = DataLoader(TensorDataset(clean, torch.zeros(3, *SIZE, dtype=torch.int64)), batch_size=2)
    attack.save(loader, folder / "adv.pt", verbose=False, save_clean_inputs=True, save_type=save_type)
    saved = torch.load(folder / "adv.pt")["adv_inputs"]
    found = loaded(folder, "adv.pt")
    assert (found - clean).abs().max() > 6 / 255
    assert torch.equal(found, saved if save_type == "float" else saved.float() / 255)
    if save_type == "float":
        loaded(folder, "adv.pt", adversarial_eps="8/255")


@pytest.mark.parametrize(
    "arguments", [*({"size": (16, 18), "fit": fit} for fit in NOT_SQUARE), {"size_divisor": 8}], ids=str
)
def test_images_of_either_size_go_through_the_geometry_of_the_run(folder, arguments):
    """The photos themselves as adversarial images: nothing may differ from the clean ones, whatever the geometry."""
    clean = torch.cat([batch["image"] for batch in data(folder, "photos", **arguments).predict_dataloader()])
    assert clean.shape[-2:] != SIZE
    assert torch.equal(loaded(folder, "photos", **arguments), clean)
    np.save(folder / "seen.npy", clean.numpy())
    assert torch.equal(loaded(folder, "seen.npy", **arguments), clean)
    floating = torch.from_numpy(chw(PHOTOS)).double() / 255
    np.save(folder / "floats.npy", floating.numpy())
    assert (loaded(folder, "floats.npy", **arguments) - clean).abs().max() <= 1e-6


def test_the_budget_is_looked_at_in_the_size_in_which_an_image_comes(folder):
    fill(folder, ONE_BY_ONE["png"])
    small = {"size": (5, 7), "adversarial_eps": "8/255"}
    assert (loaded(folder, **small) - loaded(folder, "photos", **small)).abs().max() < 8 / 255
    with pytest.raises(DataError, match="3 of 3 adversarial images exceed"):
        loaded(folder, size=(5, 7), adversarial_eps="7/255")


def test_the_budget_names_the_worst_value(folder):
    far = [image.copy() for image in PHOTOS]
    far[0][1, 2, 0] ^= 16
    far[2][7, 11, 2] ^= 32
    far[2][0, 0, 0] ^= 16
    np.save(folder / "far.npy", np.stack(far))
    message = (
        r"^2 of 3 adversarial images exceed data.adversarial_eps, the worst: adversarial image number 2 of '.*far.npy' "
        r"is up to 32/255 from its photo, more than the budget of 8/255: at row 7, column 11, blue, and at 2 of 720 "
        r"values; --on_error=skip leaves them out$"
    )
    with pytest.raises(DataError, match=message):
        data(folder, "far.npy", adversarial_eps="8/255").check()
    lenient = data(folder, "far.npy", adversarial_eps="8/255", batch_size=3)
    lenient.on_error = "skip"
    lenient.check()
    (batch,) = lenient.predict_dataloader()
    assert batch["name"] == [NAMES[1]]
    assert [index for index, _, _ in batch["skipped"]] == [0, 2]
    assert torch.equal(loaded(folder, "far.npy", adversarial_eps="32/255"), unit(far))
    assert torch.equal(loaded(folder, "far.npy"), unit(far))


def test_missing_images_are_counted(folder):
    Image.fromarray(ADVERSARIAL[0]).save(folder / "adv" / "a.png")
    Image.fromarray(ADVERSARIAL[0]).save(folder / "adv" / "c.png")
    message = r"2 of 3 photos have no adversarial image in '.*adv': 'b/c', 'b/d'; there are 2 images, the first is 'a'"
    with pytest.raises(DataError, match=message):
        data(folder).check()
    np.savez(folder / "some.npz", a=ADVERSARIAL[0])
    with pytest.raises(DataError, match=r"2 of 3 photos have no .*'b/c', 'b/d'; there are 1 images, the first is 'a'"):
        data(folder, "some.npz").check()


def test_the_digest_knows_the_adversarial_image(folder):
    fill(folder, ONE_BY_ONE["png"])
    before = data(folder).digests(range(3))
    Image.fromarray(PHOTOS[1]).save(folder / "adv" / "b" / "c.png")
    after = data(folder).digests(range(3))
    assert [before[index] == after[index] for index in range(3)] == [True, False, True]


FLOATS = chw(ADVERSARIAL) / np.float32(255)
WRONG = {
    "0..255 as floats": (FLOATS * 255, r"float32 with values .*\[0, 1\] .* uint8: divide by 255, or convert"),
    "normalised": ((FLOATS - 0.5) / 0.25, r"with values -.*: undo the normalisation"),
    "NaN": (FLOATS * np.float32("nan"), "float32 with values nan..nan"),
    "cut to integers": ((FLOATS > 0.5).astype(np.uint8), "uint8 with values 0 and 1 only; were they in"),
    "integers": (chw(ADVERSARIAL).astype(np.int64), "is int64; expected uint8 in 0..255 or floating"),
    "another size": (FLOATS[..., 1:], r"is 3x12x19; its photo 'a' is 12x20 \(height x width\), with 3 colours"),
    "turned": (FLOATS.transpose(0, 1, 3, 2), "is 3x20x12; its photo 'a' is 12x20"),
    "grey": (FLOATS[:, :1], "is 1x12x20; its photo 'a' is 12x20"),
    "objects": (np.array([{}, 3]), "cannot be read"),
}


@pytest.mark.parametrize(("array", "message"), WRONG.values(), ids=WRONG)
def test_what_is_no_image_is_refused(folder, array, message):
    np.save(folder / "wrong.npy", array)
    with pytest.raises(DataError, match=message):
        data(folder, "wrong.npy").check()


def test_both_sizes_are_said(folder):
    np.save(folder / "wrong.npy", FLOATS[..., 1:])
    with pytest.raises(DataError, match=r"is 3x12x19; its photo 'a' is 16x16 or 12x20 \(.*as networks see it, or on"):
        data(folder, "wrong.npy", size=16).check()


class Bomb:
    def __reduce__(self):
        return exec, ("raise SystemExit('code of a file was run')",)


def _compressed(path):
    """A file of torch.save, packed again: a few kilobytes that would unpack to much."""
    plain = io.BytesIO()
    torch.save(torch.zeros(3, 3, 400, 400), plain)
    with zipfile.ZipFile(plain) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.namelist():
            new.writestr(entry, old.read(entry))


def _huge(path):
    """Says that it has 3 images of a billion pixels."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": (3, 3, 2**15, 2**15)}
    )
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("adv.npy", header.getvalue() + bytes(2**20))


UNTRUSTED = {
    "code.pt": (lambda path: torch.save({"adv_inputs": Bomb()}, path), "holds more than tensors and plain values"),
    "code.npy": (lambda path: path.write_bytes(pickle.dumps(Bomb())), "cannot be read"),
    "code.npz": (lambda path: np.savez(path, adv=np.array([Bomb()])), "no arrays that could be the images"),
    "packed.pt": (_compressed, "is compressed, which torch.save does not do"),
    "huge.npz": (_huge, r"is 3x32768x32768; its photo 'a' is 12x20"),
    "sparse.pt": (lambda path: torch.save(torch.zeros(3, 3, *SIZE).to_sparse(), path), "no arrays that could be"),
    "text.pt": (lambda path: path.write_text("no tensors"), "damaged, or holds more|cannot be read"),
    "number.pt": (lambda path: torch.save(3, path), "of type int; expected a tensor"),
    "cut.npz": (lambda path: path.write_bytes(b"PK\3\4 and nothing more"), "cannot be read"),
    "two.npz": (lambda path: np.savez(path, one=FLOATS, two=FLOATS), "has 2 arrays that could be the images .one 3x3x"),
}


@pytest.mark.parametrize("name", UNTRUSTED)
def test_files_of_strangers(folder, name):
    write, message = UNTRUSTED[name]
    write(folder / name)
    with pytest.raises(DataError, match=message):
        data(folder, name).check()


def test_an_array_is_unpacked_only_when_it_is_asked_for(folder):
    _huge(folder / "huge.npz")
    arrays = ArrayFile(folder / "huge.npz")
    assert arrays.forms["adv"].shape == (3, 3, 2**15, 2**15)
    np.savez_compressed(folder / "damaged.npz", adv=FLOATS)
    content = bytearray((folder / "damaged.npz").read_bytes())
    content[len(content) // 2] ^= 255
    (folder / "damaged.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"'adv' in '.*damaged.npz' cannot be read"):
        data(folder, "damaged.npz").check()


def test_places_and_budgets_that_cannot_be(folder):
    with pytest.raises(DataError, match=r"data.adversarial_root: no folder '.*nowhere'"):
        data(folder, "nowhere")
    fill(folder, ONE_BY_ONE["png"])
    np.save(folder / "adv" / "a.npy", ADVERSARIAL[0])
    with pytest.raises(DataError, match=r"a.npy' and '.*a.png' are both for the photo 'a'; remove one"):
        data(folder)
    for eps in (0, -1, 8, "8/0", "much"):
        with pytest.raises(ValueError, match="must be above 0 and at most 1, such as 8/255"):
            data(folder, "photos", adversarial_eps=eps)
    with pytest.raises(ValueError, match="give adversarial_root"):
        SegmentationDataModule(ImageFolder(str(folder / "photos")), adversarial_eps="8/255")


@pytest.mark.filterwarnings("ignore")  # torch warns of what it finds in damaged files
@pytest.mark.parametrize("name", ["all.npy", "all.npz", "all.pt", "names.npz"])
def test_no_damage_of_a_file_gives_another_error(folder, name):
    ALL_IN_ONE[name](folder / name)
    content = (folder / name).read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for number in range(60):
        damaged = bytearray(content[: rng.integers(len(content))] if number % 3 == 0 else content)
        for _ in range(number % 3):
            # Mostly where the file says what is in it: at its head and at its end.
            place = rng.integers(300) if rng.integers(2) else -1 - rng.integers(min(300, len(damaged)))
            damaged[place] = rng.integers(256)
        (folder / name).write_bytes(damaged)
        try:
            assert loaded(folder, name).shape == (3, 3, *SIZE)
        except DataError:
            refused += 1
    assert refused > 20
