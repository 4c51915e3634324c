"""Input defences against references of their own, and networks behind them as targets and as sources."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from torch import nn

from lightning_attack.attacks import NoAttack, pgd
from lightning_attack.common.windows import Windows
from lightning_attack.models import (
    JPEG,
    BitDepth,
    CropAndScale,
    Defended,
    Ensemble,
    FlipAndScales,
    GaussianFilter,
    MedianFilter,
    ModelError,
    Purifier,
    ResizeAndPad,
    SegmentationModel,
    TotalVariation,
    with_windows,
)
from lightning_attack.models.defences import Defence, DefendedView
from lightning_attack.models.denoising import divergence, gradient
from lightning_attack.models.fingerprint import fingerprint
from lightning_attack.predict.module import AttackModule

LEVELS = np.random.default_rng(0).integers(0, 256, (20, 26, 3), np.uint8)
IMAGE = torch.from_numpy(LEVELS).permute(2, 0, 1) / 255


def view(defence, image=IMAGE, seed=0):
    (one,) = defence.views(image, torch.Generator().manual_seed(seed))
    return one


class BothWaysRound(Defence):
    """A defence of a user: the image as it is and mirrored."""

    def views(self, image, draws):
        return [DefendedView(image), DefendedView(image.flip(-1), lambda logits: logits.flip(-1))]


def test_probabilities_of_views_are_averaged_where_their_pixels_were():
    torch.manual_seed(0)
    network = nn.Conv2d(3, 4, 3, padding=1)  # its kernel is not the same mirrored
    with torch.no_grad():
        as_it_is, mirrored = network(IMAGE[None]), network(IMAGE[None].flip(-1)).flip(-1)
        found = Defended(network, [BothWaysRound()]).eval()(IMAGE[None])
    expected = (as_it_is.softmax(1) + mirrored.softmax(1)) / 2
    assert not torch.allclose(as_it_is, mirrored, atol=0.01)
    assert torch.allclose(found.softmax(1), expected, atol=1e-6)


@pytest.mark.parametrize("quality", [1, 50, 75, 95])
def test_jpeg_is_that_of_libjpeg(quality):
    file = io.BytesIO()
    Image.fromarray(LEVELS).save(file, "JPEG", quality=quality)
    expected = np.array(Image.open(file))
    found = view(JPEG(quality)).image
    assert np.array_equal((found * 255).numpy().transpose(1, 2, 0), expected)
    assert torch.equal(found, torch.from_numpy(expected).permute(2, 0, 1) / 255)  # 8-bit levels are exact


@pytest.mark.parametrize("size", [1, 3, 5])
def test_median_is_that_of_scipy(size):
    expected = ndimage.median_filter(IMAGE.numpy(), (1, size, size), mode="nearest")
    assert np.array_equal(view(MedianFilter(size)).image.numpy(), expected)


@pytest.mark.parametrize("sigma", [0.3, 1.0, 2.5])
def test_blur_is_that_of_scipy(sigma):
    expected = ndimage.gaussian_filter(IMAGE.double().numpy(), (0, sigma, sigma), mode="nearest")
    assert np.allclose(view(GaussianFilter(sigma), IMAGE.double()).image.numpy(), expected, atol=1e-12)


def chambolle(image, weight, steps):
    """Pixel by pixel, as Chambolle (2004) writes it."""
    height, width = image.shape
    p = np.zeros((2, height, width))

    def div(i, j):
        down = (p[0, i, j] if i < height - 1 else 0) - (p[0, i - 1, j] if i else 0)
        return down + (p[1, i, j] if j < width - 1 else 0) - (p[1, i, j - 1] if j else 0)

    def divs():
        return np.array([[div(i, j) for j in range(width)] for i in range(height)])

    for _ in range(steps):
        v = divs() - image / weight
        for i in range(height):
            for j in range(width):
                g = np.array(
                    [v[i + 1, j] - v[i, j] if i < height - 1 else 0, v[i, j + 1] - v[i, j] if j < width - 1 else 0]
                )
                p[:, i, j] = (p[:, i, j] + 0.25 * g) / (1 + 0.25 * np.hypot(*g))
    return image - weight * divs()


def test_total_variation_is_that_of_a_plain_loop():
    image = IMAGE[:, :9, :7].double()
    expected = np.stack([chambolle(colour, 0.2, 12) for colour in image.numpy()]).clip(0, 1)
    assert np.allclose(view(TotalVariation(0.2, 12), image).image.numpy(), expected, atol=1e-12)


def test_total_variation_is_at_its_optimum():
    """P(u) - D(p) = weight (TV(u) - <u, div p>) bounds how far u is from the optimum, and divergence is the adjoint."""
    dual = torch.randn(2, 3, 20, 26, dtype=torch.float64)
    assert torch.isclose((divergence(dual) * IMAGE).sum(), -(dual * gradient(IMAGE.double())).sum())
    smooth = 0.25 + IMAGE.double() / 2  # nothing is cut off
    for weight in (0.02, 0.3):
        found = view(TotalVariation(weight, 600), smooth).image
        # u is optimal if, and only if, f - u is weight times a subgradient of TV at u: <f - u, u> = weight TV(u).
        length = gradient(found).norm(dim=0).sum()
        gap = weight * length - (found * (smooth - found)).sum()
        assert 0 <= gap < 5e-4 * weight * gradient(smooth).norm(dim=0).sum()


@pytest.mark.parametrize("bits", [1, 4, 8])
def test_bit_depth(bits):
    found = view(BitDepth(bits)).image
    levels = np.float32(2**bits - 1)
    assert np.array_equal(found.numpy(), np.rint(IMAGE.numpy() * levels) / levels)
    assert (found - IMAGE).abs().max() <= 0.5 / (2**bits - 1) + 1e-6
    assert bits < 8 or torch.allclose(found, IMAGE, atol=1e-7)


def bilinear(image, size):
    """Resized by scipy: the value between the pixels around the place that a pixel's centre comes from."""
    places = [(np.arange(n) + 0.5) * full / n - 0.5 for n, full in zip(size, image.shape[1:], strict=True)]
    grid = np.meshgrid(*places, indexing="ij")
    return np.stack([ndimage.map_coordinates(colour, grid, order=1, mode="nearest") for colour in image])


def box(inside):
    """The rows and columns that are not 0, as slices."""
    return tuple(slice(places.min(), places.max() + 1) for places in np.nonzero(inside))


def test_resized_images_are_those_of_scipy():
    bright = 0.1 + 0.9 * IMAGE.double()
    for seed in range(4):
        padded = view(ResizeAndPad(0.6), bright, seed).image.numpy()
        place = box(padded[0])
        small = padded[:, *place]
        assert np.allclose(small, bilinear(bright.numpy(), small.shape[1:]), atol=1e-12)
        assert np.isclose(padded.sum(), small.sum()), "black around it"
        for crop in CropAndScale(0.6).views(bright, torch.Generator().manual_seed(seed)):
            place = box(crop.undo(torch.ones(1, 1, 20, 26))[0, 0].numpy())
            assert np.allclose(crop.image.numpy(), bilinear(bright.numpy()[:, *place], (20, 26)), atol=1e-12)
    plain, mirrored = FlipAndScales([1.4]).views(bright, torch.Generator())
    assert np.allclose(plain.image.numpy(), bilinear(bright.numpy(), (28, 36)), atol=1e-12)
    assert torch.equal(mirrored.image, plain.image.flip(-1))


def test_what_is_moved_is_moved_back():
    ramp = torch.linspace(0, 1, 40).expand(3, 30, 40).contiguous()
    for seed in range(5):
        moved = view(ResizeAndPad(0.7), ramp, seed)
        assert moved.image.shape == ramp.shape
        back = moved.undo(moved.image[None])[0]
        assert (back - ramp).abs().max() < 0.03, "up to the interpolation"
    assert not torch.equal(view(ResizeAndPad(0.7), ramp, 1).image, view(ResizeAndPad(0.7), ramp, 2).image)
    views = FlipAndScales([0.5, 1.5]).views(ramp, torch.Generator())
    assert [one.image.shape[-2:] for one in views] == [(15, 20)] * 2 + [(45, 60)] * 2
    assert all((one.undo(one.image[None])[0] - ramp).abs().max() < 0.03 for one in views)


def test_crops_cover_the_image():
    ramp = torch.linspace(0, 1, 40).expand(3, 30, 40).contiguous()
    for seed in range(4):
        views = CropAndScale(0.5).views(ramp, torch.Generator().manual_seed(seed))
        assert len(views) in (2, 4), "two where a crop is as high as the image"
        covered = torch.stack([one.undo(torch.ones(1, 1, 30, 40)) for one in views]).sum(0)
        assert covered.min() > 0.99, "every pixel is in a crop"
        for one in views:
            back, inside = one.undo(one.image[None])[0], one.undo(torch.ones(1, 3, 30, 40))[0] > 0
            assert ((back - ramp).abs()[inside] < 0.03).all(), "up to the interpolation"
    (whole,) = CropAndScale(1.0).views(ramp, torch.Generator())
    assert torch.equal(whole.image, ramp)


def test_probabilities_of_several_views_are_averaged():
    network = nn.Conv2d(3, 4, 3, padding=1)
    mirrored = network(IMAGE[None].flip(-1)).flip(-1)
    expected = (network(IMAGE[None]).softmax(1) + mirrored.softmax(1)) / 2
    found = Defended(network, [FlipAndScales([1.0])])(IMAGE[None])
    assert torch.allclose(found.softmax(1), expected, atol=1e-6)


def test_defences_come_one_after_another_and_do_not_know_the_batch():
    network = nn.Conv2d(3, 4, 3, padding=1)
    defended = Defended(network, [ResizeAndPad(0.5), JPEG(50)], seed=3)
    images = torch.rand(3, 3, 16, 18)
    together = defended(images)
    alone = torch.cat([defended(image[None]) for image in images.flip(0)]).flip(0)
    assert torch.equal(together, alone)
    other = Defended(network, [ResizeAndPad(0.5), JPEG(50)], seed=4)
    assert not torch.equal(other(images), together)
    assert defended.name == "conv2d_resize_and_pad_jpeg"
    exchanged = Defended(network, [JPEG(50), ResizeAndPad(0.5)], seed=3)
    ways = [defended, other, exchanged, Defended(network, [ResizeAndPad(0.5), JPEG(51)], seed=3)]
    assert len({*map(fingerprint, ways)}) == 4, "the settings are part of the network"


def test_the_sign_of_zero_draws_nothing_else():
    defended = Defended(nn.Identity(), [ResizeAndPad(0.5)])
    images = torch.zeros(1, 3, 8, 8)
    images[..., 2] = 1
    assert torch.equal(defended(images), defended(torch.where(images == 0, -0.0, images)))


def test_as_a_target_and_as_a_source():
    network = SegmentationModel(nn.Conv2d(3, 4, 3, padding=1), name="net")
    defended = Defended(network, [BitDepth(3)], name="bits")
    batch = {"image": torch.rand(2, 3, 16, 16), "name": ["a", "b"], "index": torch.arange(2)}
    output = AttackModule(network, pgd(steps=2), {"bits": defended}).predict_step(batch, 0)
    assert output.preds.keys() == {"net", "bits"}
    clean = torch.round(batch["image"] * 7) / 7
    assert torch.equal(output.preds["bits"]["clean"], network(clean).argmax(1))
    with pytest.raises(ModelError, match=r"'net' is behind defences, .* it can be a target"):
        AttackModule(defended, pgd(steps=2), {"net": network})
    AttackModule(defended, NoAttack(), {"net": network})
    through = Defended(network, [BitDepth(3)], straight_through=True)
    image = batch["image"][:1].requires_grad_()
    (found,) = torch.autograd.grad(through(image).square().sum(), image)
    rounded = (torch.round(image * 7) / 7).detach().requires_grad_()
    (expected,) = torch.autograd.grad(network(rounded).square().sum(), rounded)
    assert torch.allclose(found, expected, atol=1e-5)


def test_purifiers(tmp_path):
    class Darker(nn.Module):
        def forward(self, images):
            return images * 2 - 0.5

    image = IMAGE[None]
    expected = (image * 2 - 0.5).clamp(0, 1)
    assert torch.equal(view(Purifier(Darker())).image, expected[0])
    torch.export.save(torch.export.export(Darker(), (image,)), tmp_path / "darker.pt2")
    assert torch.equal(view(Purifier(str(tmp_path / "darker.pt2"))).image, expected[0])
    with pytest.raises(ModelError, match=r"Purifier: returned \(1, 4, 20, 26\) for an image \(1, 3, 20, 26\)"):
        view(Purifier(nn.Conv2d(3, 4, 1)))
    with pytest.raises(ModelError, match=r"not exported for images of size \[20, 20\] .*; set data.size"):
        view(Purifier(str(tmp_path / "darker.pt2")), IMAGE[..., :20])
    with pytest.raises(ModelError, match=r"no file 'nowhere.pt2'"):
        Purifier("nowhere.pt2")


def test_windows_are_the_networks():
    """An image is defended whole, and seen in windows: not the other way round."""
    torch.manual_seed(0)
    network, defence = nn.Conv2d(3, 4, 5, padding=2), JPEG(20)
    for made in (SegmentationModel(network), Ensemble([network, nn.Conv2d(3, 4, 3, padding=1)])):
        defended = with_windows(Defended(made, [defence]).eval(), Windows(12, 0.5))
        found = defended(IMAGE[None])
        expected = with_windows(made, Windows(12, 0.5))(view(defence).image[None])
        assert torch.equal(found, expected)
        assert not torch.equal(with_windows(defended, None)(IMAGE[None]), found)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: JPEG(0), "quality=0 must be 1 to 100"),
        (lambda: BitDepth(9), "bits=9 must be 1 to 8"),
        (lambda: MedianFilter(2), "size=2 must be odd"),
        (lambda: GaussianFilter(0.0), "sigma=0.0 must be above 0"),
        (lambda: CropAndScale(0.4), "smallest=0.4 must be 0.5 to 1"),
        (lambda: TotalVariation(0.0), "weight=0.0 must be above 0"),
        (lambda: TotalVariation(steps=0), "steps=0 must be 1 or more"),
        (lambda: ResizeAndPad(1.2), "smallest=1.2 must be above 0 and at most 1"),
        (lambda: FlipAndScales([]), "must be one or more numbers above 0"),
        (lambda: Defended(nn.Identity(), []), "one or more defences, such as JPEG"),
    ],
)
def test_settings_are_checked(make, says):
    with pytest.raises(ModelError, match=says):
        make()
