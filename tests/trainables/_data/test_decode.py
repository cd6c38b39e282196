"""Every kind of image file ends as the same kind of array; everything else as a named problem."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from tests.trainables._data.helpers import encode
from trainables._data import DataError, decode_image
from trainables._data._decode import (
    BROKEN,
    CORRUPT,
    MAX_PIXELS,
    OVERSIZE,
    UNSUPPORTED,
    ImageProblemError,
    decode,
    probe_channels,
    quiet_pillow,
)


def saved(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def reason_of(data, size=8, channels=3):
    with quiet_pillow(), pytest.raises(ImageProblemError) as problem:
        decode(data, size, channels)
    return problem.value.reason


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        ("1", "PNG"),
        ("L", "PNG"),
        ("LA", "PNG"),
        ("P", "PNG"),
        ("RGB", "PNG"),
        ("RGBA", "PNG"),
        ("CMYK", "JPEG"),
        ("L", "JPEG"),
        ("RGB", "JPEG"),
        ("RGB", "BMP"),
        ("P", "GIF"),
        ("RGB", "WEBP"),
        ("RGB", "TIFF"),
        ("RGB", "PPM"),
    ],
)
def test_every_mode_and_format_becomes_square_uint8(mode, kind, channels):
    pixels = decode_image(encode(mode=mode, kind=kind, size=(30, 20)), 12, channels)
    assert pixels.shape == (channels, 12, 12)
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous


def test_an_image_of_the_right_size_is_kept_pixel_for_pixel():
    data = encode(size=(16, 16))
    expected = np.moveaxis(np.asarray(Image.open(io.BytesIO(data))), -1, 0)
    np.testing.assert_array_equal(decode_image(data, 16, 3), expected)


def test_the_centred_square_is_cut_out():
    wide = np.zeros((10, 30, 3), np.uint8)
    wide[:, 10:20] = 200
    assert (decode_image(saved(Image.fromarray(wide)), 10, 3) == 200).all()
    assert (decode_image(saved(Image.fromarray(wide.transpose(1, 0, 2))), 10, 3) == 200).all()


def test_shrinking_averages_instead_of_picking_pixels():
    checker = (np.indices((64, 64)).sum(axis=0) % 2 * 255).astype(np.uint8)
    pixels = decode_image(saved(Image.fromarray(checker)), 8, 1)
    assert abs(pixels.astype(int) - 127).max() <= 4


def test_exif_orientation_turns_the_image():
    upright = np.zeros((8, 8, 3), np.uint8)
    upright[:4] = 255  # light above
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held so that the stored rows run from right to left
    stored = Image.fromarray(np.rot90(upright, 1).copy())
    pixels = decode_image(saved(stored, "PNG", exif=exif), 8, 3)
    np.testing.assert_array_equal(pixels, np.moveaxis(upright, -1, 0))


def test_transparency_lies_on_white():
    clear = Image.new("RGBA", (8, 8), (10, 20, 30, 0))
    assert (decode_image(saved(clear), 8, 3) == 255).all()
    palette = Image.new("P", (8, 8), 0)
    assert (decode_image(saved(palette, transparency=0), 8, 1) == 255).all()


def test_sixteen_bits_keep_their_upper_byte():
    levels = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1024
    data = saved(Image.fromarray(levels))
    np.testing.assert_array_equal(decode_image(data, 8, 1)[0], (levels >> 8).astype(np.uint8))


def test_a_large_photograph_is_decoded_small_and_looks_the_same():
    ramp = np.tile(np.linspace(0, 255, 2000).astype(np.uint8), (2000, 1))
    pixels = decode_image(saved(Image.fromarray(ramp), "JPEG", quality=95), 20, 1)
    expected = np.linspace(0, 255, 20 * 2 + 1)[1::2]
    assert abs(pixels[0].astype(float) - expected).max() < 6


def test_decoding_a_photograph_small_costs_no_detail():
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 256, (100, 100), dtype=np.uint8).repeat(4, axis=0).repeat(4, axis=1)
    data = saved(Image.fromarray(blocks), "JPEG", quality=95)
    whole = Image.open(io.BytesIO(data)).resize((100, 100), Image.Resampling.BICUBIC)
    difference = decode_image(data, 100, 1)[0].astype(int) - np.asarray(whole, dtype=int)
    assert abs(difference).mean() < 8
    assert np.asarray(whole).std() > 40


def test_a_strip_stays_cheap():
    assert decode_image(saved(Image.new("L", (60_000, 1), 7)), 84, 1).shape == (1, 84, 84)


def test_a_file_and_its_bytes_give_the_same(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(encode(3))
    np.testing.assert_array_equal(decode_image(path, 8, 3), decode_image(encode(3), 8, 3))


@pytest.mark.parametrize("data", [b"", b"no image", encode()[:200], encode(kind="JPEG")[:300]])
def test_broken_bytes_are_a_corrupt_image(data):
    assert reason_of(data) == CORRUPT


def bomb(side):
    """A PNG that says it is huge and holds nothing."""

    def chunk(kind, body):
        crc = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + crc

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    data = zlib.compress(bytes(1000))
    parts = chunk(b"IHDR", header), chunk(b"IDAT", data), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize("side", [9_500, 12_000, 60_000])
def test_a_bomb_is_refused_by_its_size_not_unpacked(side):
    assert side * side > MAX_PIXELS
    assert reason_of(bomb(side)) == OVERSIZE


def test_a_bomb_is_refused_also_where_the_process_has_lifted_pillows_limit(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert reason_of(bomb(12_000)) == OVERSIZE


def test_a_format_outside_the_list_is_not_opened():
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n"
    assert reason_of(postscript) == CORRUPT


def test_pixels_without_a_scale_are_unsupported():
    assert reason_of(saved(Image.new("F", (8, 8), 0.5), "TIFF")) == UNSUPPORTED


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP"])
def test_flipped_bytes_never_raise_anything_else(kind):
    rng = np.random.default_rng(0)
    whole = bytearray(encode(mode="RGB", kind=kind))
    outcomes = {"image": 0, "problem": 0}
    with quiet_pillow():
        for _ in range(150):
            data = bytearray(whole)
            for at in rng.integers(0, min(len(data), 300), 3):
                data[at] = int(rng.integers(256))
            try:
                decode(bytes(data), 8, 3)
                outcomes["image"] += 1
            except ImageProblemError:
                outcomes["problem"] += 1
            assert probe_channels(bytes(data)) in (None, 1, 3)
    assert sum(outcomes.values()) == 150
    assert outcomes["problem"] > 0


def test_native_channels_are_reported():
    with quiet_pillow():
        assert decode(encode(mode="L"), 8, 3).native_channels == 1
        assert decode(encode(mode="RGB"), 8, 1).native_channels == 3
        assert probe_channels(encode(mode="L")) == 1
        assert probe_channels(encode(mode="P")) == 3
        assert probe_channels(b"no image") is None


def test_errors_of_decode_image_are_sentences(tmp_path):
    with pytest.raises(DataError, match=r"cannot be used \(corrupt image\): a readable PNG"):
        decode_image(b"no image", 8, 3)
    with pytest.raises(DataError, match=r"absent\.png cannot be read: No such file"):
        decode_image(tmp_path / "absent.png", 8, 3)


def test_what_counts_as_broken_does_not_hide_interrupts():
    assert not any(issubclass(KeyboardInterrupt, kind) for kind in BROKEN)
