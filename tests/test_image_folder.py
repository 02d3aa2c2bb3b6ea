"""A folder of anyone's pictures: what is read is what a viewer shows, and what is left out is told."""

import io
import json
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ganbench
from PIL import Image

from ganbench import datasets, disk_cache, image_files, image_folder
from ganbench.errors import Refused
from ganbench.image_files import View

GRAY = (1, 8, 8)
COLOR = (3, 8, 8)


def flat(mode: str, color) -> Image.Image:
    return Image.new(mode, (8, 8), color)


def sixteen_bits(value: int) -> Image.Image:
    return Image.fromarray(np.full((8, 8), value, np.uint16))


def palette(transparent: bool) -> tuple[Image.Image, dict]:
    image = flat("P", 1)
    image.putpalette([255, 0, 0, 0, 0, 255])
    return image, {"transparency": 1} if transparent else {}


def rotated() -> tuple[Image.Image, dict]:
    """Left half black, and a note that the right edge is the top."""
    image = flat("L", 255)
    image.paste(0, (0, 0, 4, 8))
    exif = Image.Exif()
    exif[0x0112] = 6
    return image, {"exif": exif}


def animated() -> tuple[Image.Image, dict]:
    return flat("L", 40), {"save_all": True, "append_images": [flat("L", 200)]}


# By name: the image (and options) to save, the suffix, the shape to read, and the pixel of its top left corner.
PICTURES: dict[str, tuple] = {
    "8-bit gray": (flat("L", 77), ".png", GRAY, [77]),
    "16-bit gray": (sixteen_bits(0x8080), ".png", GRAY, [0x80]),
    "16-bit gray, dark": (sixteen_bits(257 * 3), ".png", GRAY, [3]),
    "16-bit gray TIFF": (sixteen_bits(0xFFFF), ".tiff", COLOR, [255] * 3),
    "1 bit": (flat("1", 1), ".png", GRAY, [255]),
    "palette": (palette(False), ".png", COLOR, [0, 0, 255]),
    "transparent palette": (palette(True), ".png", COLOR, [255, 255, 255]),
    "transparent": (flat("RGBA", (200, 0, 0, 0)), ".png", COLOR, [255, 255, 255]),
    "16-bit gray PGM": (sixteen_bits(257 * 40), ".pgm", GRAY, [40]),
    "16-bit negative": ((sixteen_bits(257 * 3), {"tiffinfo": {262: 0}}), ".tiff", GRAY, [252]),
    "half transparent": (flat("RGBA", (0, 0, 0, 128)), ".png", COLOR, [127] * 3),
    "transparent gray": (flat("LA", (0, 0)), ".png", GRAY, [255]),
    "one color transparent": ((flat("RGB", (1, 2, 3)), {"transparency": (1, 2, 3)}), ".png", COLOR, [255] * 3),
    "CMYK": (flat("CMYK", (0, 255, 255, 0)), ".tiff", COLOR, [255, 0, 0]),
    "rotated": (rotated(), ".png", GRAY, [0]),
    "animated": (animated(), ".gif", GRAY, [40]),
    "color made gray": (flat("RGB", (255, 0, 0)), ".png", GRAY, [76]),
    "WebP": ((flat("RGB", (10, 20, 30)), {"lossless": True}), ".webp", COLOR, [10, 20, 30]),
}


def save(file: Path, picture) -> Path:
    image, options = picture if isinstance(picture, tuple) else (picture, {})
    file.parent.mkdir(parents=True, exist_ok=True)
    image.save(file, **options)
    return file


@pytest.mark.parametrize("name", PICTURES)
def test_what_is_read_is_what_is_shown(name: str, tmp_path: Path) -> None:
    picture, suffix, shape, pixel = PICTURES[name]
    (read,) = image_folder.load_images([save(tmp_path / f"a{suffix}", picture)], View(shape))
    assert read[:, 0, 0].tolist() == pytest.approx(pixel, abs=1)
    if name == "rotated":
        assert read[0, :, 0].tolist() == [0] * 4 + [255] * 4 and read[0, 0].tolist() == [0] * 8


def test_transparent_pixels_show_the_background(tmp_path: Path) -> None:
    file = save(tmp_path / "a.png", flat("RGBA", (200, 0, 0, 0)))
    for background, pixel in (("black", [0, 0, 0]), ("#010203", [1, 2, 3])):
        assert image_folder.load_images([file], View(COLOR, background))[0, :, 0, 0].tolist() == pixel


@pytest.mark.parametrize("image", [flat("F", 0.5), flat("I", 70000)], ids=["float", "32 bits"])
def test_numbers_without_a_range_are_refused(image: Image.Image, tmp_path: Path) -> None:
    file = save(tmp_path / "a.tiff", image)
    with pytest.raises(Refused, match=r"^1 of 1 images cannot be read: .*a\.tiff .*no known range; save"):
        image_folder.load_images([file], View(GRAY))


def photos(folder: Path, n: int = 12, first: int = 0) -> list[Path]:
    return [save(folder / f"{i:03d}.png", flat("RGB", (i, 0, 255 - i))) for i in range(first, first + n)]


def test_what_is_left_out_is_told(tmp_path: Path) -> None:
    """And what is linked is taken, once; a loop ends."""
    root = tmp_path / "photos"
    photos(root)
    photos(tmp_path / "elsewhere", 3, first=100)
    (root / "linked").symlink_to(tmp_path / "elsewhere")
    (root / "again").symlink_to(tmp_path / "elsewhere")
    (root / "loop").symlink_to(root)
    save(root / ".thumbnails/small.png", flat("L", 1))
    for name in ("._000.png", "notes.txt", "live.heic", "table.h5", "drawing.eps", "README"):
        (root / name).write_bytes(b"x")
    run = root / "outputs/run/mine"
    save(run / "samples/000000064.png", flat("L", 1))
    for name in ("status.json", "config.yaml"):
        (run / name).write_text("{}")
    found = datasets.folder(str(root), COLOR)
    left_out = {"hidden": 2, ".txt": 1, ".heic": 1, ".h5": 1, ".eps": 1, "without a suffix": 1, "run folder": 1}
    assert found.facts == {"train": 12, "held_out": 3, "copies": 0, "left_out": left_out}
    told = image_folder.describe_left_out(left_out)
    assert told == "left out: 1 .eps, 1 .h5, 1 .heic, 1 .txt, 2 hidden, 1 run folder, 1 without a suffix"


def test_copies_across_the_split_are_counted(tmp_path: Path) -> None:
    photos(tmp_path / "train")
    photos(tmp_path / "test", 4, first=10)  # the first two once more
    found = datasets.folder(str(tmp_path), COLOR)
    assert (len(found.train), len(found.test), found.facts["copies"]) == (12, 4, 2)


@pytest.mark.parametrize("name", ["test", "val", "VALID"])
def test_folders_that_say_what_is_held_out(name: str, tmp_path: Path) -> None:
    photos(tmp_path / "train/cats")
    photos(tmp_path / name, 3, first=200)
    photos(tmp_path / "more", 2, first=100)
    found = datasets.folder(str(tmp_path), COLOR)
    assert sorted(found.train[:, 0, 0, 0].tolist()) == list(range(12))
    assert sorted(found.test[:, 0, 0, 0].tolist()) == [200, 201, 202]
    assert found.facts["left_out"] == {"outside train and test": 2}


def test_another_folder_is_held_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos(tmp_path / "photos")
    photos(tmp_path / "photos/kept", 3, first=200)
    monkeypatch.chdir(tmp_path / "photos")  # the same folder by other names
    found = datasets.folder(str(tmp_path / "photos"), COLOR, held_out="./kept")
    assert (len(found.train), sorted(found.test[:, 0, 0, 0].tolist())) == (12, [200, 201, 202])


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda root: None, {"root": "nowhere"}, r"dataset\.root=nowhere does not exist"),
        (lambda root: None, {"held_out": "nowhere"}, r"dataset\.held_out=nowhere does not exist"),
        (lambda root: (root / "none").mkdir(), {"held_out": "none"}, r"dataset\.held_out=none must hold at least 2"),
        (lambda root: (root / "a.heic").write_bytes(b""), {"root": "few"}, r"found 1 \(left out: 2 \.heic\)"),
        (lambda root: None, {"test_share": 0.95}, r"leaves 1 image to train on, and 2 or more are needed"),
    ],
)
def test_folders_that_cannot_be_used(
    change: Callable, options: dict, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos(tmp_path / "photos")
    photos(tmp_path / "few", 1)
    for name in ("a.heic", "b.heic"):
        (tmp_path / "few" / name).write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    change(tmp_path)
    with pytest.raises(Refused, match=message):
        datasets.folder(**({"root": "photos", "shape": COLOR} | options))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read_is_refused(tmp_path: Path) -> None:
    photos(tmp_path)
    closed = tmp_path / "closed"
    closed.mkdir(mode=0)
    with pytest.raises(Refused, match=r"closed cannot be read \(Permission denied\); make it readable"):
        datasets.folder(str(tmp_path), COLOR)


# A format each, as Pillow writes it; those it only reads are left.
FORMATS = {
    suffix: kind
    for suffix, kind in {
        ".avif": "AVIF", ".blp": "BLP", ".bmp": "BMP", ".dds": "DDS", ".dib": "DIB", ".gif": "GIF", ".icns": "ICNS",
        ".ico": "ICO", ".im": "IM", ".jpg": "JPEG", ".jp2": "JPEG2000", ".msp": "MSP", ".pcx": "PCX", ".png": "PNG",
        ".ppm": "PPM", ".qoi": "QOI", ".sgi": "SGI", ".tga": "TGA", ".tif": "TIFF", ".webp": "WEBP", ".xbm": "XBM",
    }.items()
    if Image.init() is not None and kind in Image.SAVE and kind in Image.OPEN
}  # fmt: skip
MODES = {"MSP": "1", "XBM": "1", "BLP": "P"}


def encoded(kind: str) -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(noise).convert(MODES.get(kind, "RGB")).save(out, kind)
    return out.getvalue()


@pytest.mark.slow
@pytest.mark.parametrize("suffix", FORMATS)
def test_however_a_file_is_damaged_it_is_named(suffix: str, tmp_path: Path) -> None:
    """Cut at many places, and bytes flipped: it is read, or refused in one sentence with its name."""
    whole = encoded(FORMATS[suffix])
    rng = np.random.default_rng(1)
    cut = [whole[: len(whole) * k // 12] for k in range(12)] + [whole[:k] for k in range(1, 40, 3)]
    flipped = []
    for _ in range(40):
        content = bytearray(whole)
        for place in rng.integers(min(len(whole), 200), size=3):
            content[place] ^= int(rng.integers(1, 256))
        flipped.append(bytes(content))
    refused = 0
    for i, content in enumerate([*cut, *flipped]):
        file = tmp_path / f"{i}{suffix}"
        file.write_bytes(content)
        try:
            assert image_folder.load_images([file], View(COLOR)).shape == (1, *COLOR)
        except Refused as error:
            refused += 1
            assert str(error).startswith(f"1 of 1 images cannot be read: {file} (") and "\n" not in str(error)
    assert refused > 5


def test_all_damaged_files_are_told_at_once(tmp_path: Path) -> None:
    for i, file in enumerate(photos(tmp_path)):
        if i % 2:
            file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(Refused, match=r"^6 of 12 .*001\.png \(.*003\.png .*005\.png .*; and 3 more; repair"):
        datasets.folder(str(tmp_path), COLOR)


@pytest.mark.slow
def test_a_run_says_what_it_found(tmp_path: Path) -> None:
    root = tmp_path / "my photos"
    for i, pixels in enumerate(np.random.default_rng(0).integers(0, 256, (200, 40, 30), dtype=np.uint8)):
        save(root / f"{i}.png", Image.fromarray(pixels))
    (root / "a.heic").write_bytes(b"x")
    options = (
        "dataset=folder",
        f"dataset.root='{root}'",
        "experiment=smoke",
        "metric=fd_lenet",
        "dataset.shape=[1,32,32]",
    )
    done = ganbench(*options, "wandb=disabled", "name=a", "device=cpu", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "200 images: 160 to train on, 40 held out; left out: 1 .heic" in done.stderr + done.stdout
    status = json.loads((tmp_path / "outputs/run/a/status.json").read_text())
    assert status["data"] == {"train": 160, "held_out": 40, "copies": 0, "left_out": {".heic": 1}}
    footing = json.loads((tmp_path / "outputs/run/a/footing.json").read_text())
    assert footing["machine"]["images_found"] == status["data"]


def test_images_are_decoded_once_and_again_when_a_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GANBENCH_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "photos"
    root.mkdir()
    for i in range(12):
        Image.new("L", (8, 8), i).save(root / f"{i:02d}.png")
    files = sorted(root.iterdir())
    decoded: list[Path] = []
    decode = image_folder.read_picture
    monkeypatch.setattr(image_folder, "read_picture", lambda file, *how: decoded.append(file) or decode(file, *how))

    def load(
        files: list[Path] = files, shape: tuple[int, int, int] = (1, 8, 8), background: str = "white"
    ) -> list[int]:
        return image_folder.load_images(files, View(shape, background))[:, 0, 0, 0].tolist()

    assert load() == load() == list(range(12)) and len(decoded) == 12
    others = (files[:11], (1, 8, 8)), (files, (1, 4, 4)), (files, (1, 8, 8), "black"), (files[::-1], (1, 8, 8))
    for n, other in enumerate(others, 1):
        load(*other)
        assert len(decoded) == 12 + sum(len(each[0]) for each in others[:n])
    decoded.clear()
    before = files[3].stat()
    Image.new("L", (8, 8), 77).save(files[3])
    os.utime(files[3], ns=(before.st_atime_ns, before.st_mtime_ns))  # as copies that keep the time
    assert load()[3] == 77 and len(decoded) == 12
    monkeypatch.setenv("GANBENCH_CACHE", "")
    assert load()[3] == 77 and len(decoded) == 24


def test_runs_that_begin_together_decode_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GANBENCH_CACHE", str(tmp_path))
    made: list[int] = []

    def make() -> torch.Tensor:
        made.append(1)
        time.sleep(0.3)  # the others come meanwhile
        return torch.arange(5)

    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda _: disk_cache.cached("key", "numbers", make), range(4)))
    assert len(made) == 1 and all(torch.equal(x, torch.arange(5)) for x in found)


def test_what_is_no_file_is_left_out_and_any_name_is_read(tmp_path: Path) -> None:
    photos(tmp_path)
    (tmp_path / "nowhere.png").symlink_to("gone.png")
    (tmp_path / "loop.png").symlink_to("loop.png")
    os.mkfifo(tmp_path / "pipe.png")
    Image.new("L", (8, 8)).save(Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png")))
    found = datasets.folder(str(tmp_path), COLOR)
    assert found.facts["left_out"] == {"broken link or no file": 3}
    assert found.facts["train"] + found.facts["held_out"] == 13


def test_what_runs_make_is_no_data_wherever_the_root_lies(tmp_path: Path) -> None:
    photos(tmp_path / "wandb/offline-run-20260101_101010-abc123/files/media/images")
    photos(tmp_path)
    assert datasets.folder(str(tmp_path), COLOR).facts["left_out"] == {"run folder": 1}
    samples = tmp_path / "outputs/run/a/samples"
    photos(samples)
    for name in ("status.json", "config.yaml"):
        (samples.parent / name).write_text("")
    for root in (samples, tmp_path / "wandb/offline-run-20260101_101010-abc123/files/media/images"):
        with pytest.raises(Refused, match="lies in the folder of a run"):
            datasets.folder(str(root), COLOR)


def test_sixteen_bits_with_a_transparent_value_show_the_background() -> None:
    pixels = np.full((8, 8), 257 * 40, np.uint16)
    pixels[:, 4:] = 257 * 90
    image = Image.fromarray(pixels)
    image.info["transparency"] = 257 * 90
    shown = np.asarray(image_files.as_shown(image, "red"))
    assert shown[0, 0].tolist() == [40] * 3 and shown[0, 7].tolist() == [255, 0, 0]
