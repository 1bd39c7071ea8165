"""Decoding against Pillow, and the geometry of crops and letterboxes by hand."""

import io
import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from dfdetect.media import decode as images
from dfdetect.media import headers, image_status, resize

_HEIGHT, _WIDTH = 24, 32


def _image(mode="RGB"):
    """Draws a smooth image, for lossy formats, whose corners differ."""
    y, x = np.mgrid[0:_HEIGHT, 0:_WIDTH]
    pixels = np.stack([x * 7, y * 9, 255 - x * 3 - y * 4], -1).clip(0, 255)
    return Image.fromarray(pixels.astype(np.uint8)).convert(mode)


def _translucent_image():
    image = _image("RGBA")
    alpha = np.arange(_WIDTH * _HEIGHT).reshape(_HEIGHT, _WIDTH) % 200 + 20
    image.putalpha(Image.fromarray(alpha.astype(np.uint8)))
    return image


def _encode(image, **options):
    file = io.BytesIO()
    image.save(file, **options)
    return file.getvalue()


def _sixteen_bit_png():
    gray = np.asarray(_image("L"))
    return _encode(Image.fromarray(gray.astype(np.uint16) * 257), format="PNG")


def _animated_webp(alpha=False, **options):
    """Encodes an animated WebP; with `alpha`, of a first frame below its size."""
    first = _image()
    if alpha:
        first = Image.new("RGBA", first.size)
        first.paste(_image().crop((4, 6, 21, 19)), (4, 6))
    later = [first.transpose(Image.Transpose.FLIP_LEFT_RIGHT)] * 2
    return _encode(first, format="WEBP", save_all=True, append_images=later, **options)


def _animated_gif():
    frames = [_image(), ImageOps.invert(_image())]
    return _encode(
        frames[0], format="GIF", save_all=True, append_images=frames[1:], comment=b"c"
    )


# Bytes and the largest mean difference from Pillow, in gray levels.
_READABLE = {
    "jpeg": (_encode(_image(), format="JPEG", quality=95), 2),
    "jpeg_progressive": (_encode(_image(), format="JPEG", progressive=True), 3),
    "jpeg_gray": (_encode(_image("L"), format="JPEG", quality=95), 2),
    "jpeg_cmyk": (_encode(_image("CMYK"), format="JPEG", quality=95), 4),
    "png": (_encode(_image(), format="PNG"), 0),
    "png_palette": (_encode(_image("P"), format="PNG"), 0),
    "png_alpha": (_encode(_image("RGBA"), format="PNG"), 0),
    "png_gray_alpha": (_encode(_image("LA"), format="PNG"), 0),
    "png_one_bit": (_encode(_image("1"), format="PNG"), 0),
    "bmp": (_encode(_image(), format="BMP"), 0),
    "bmp_alpha": (_encode(_image("RGBA"), format="BMP"), 0),
    "bmp_palette": (_encode(_image("P"), format="BMP"), 0),
    "gif": (_encode(_image(), format="GIF"), 0),
    "gif_animated": (_animated_gif(), 0),
    "webp": (_encode(_image(), format="WEBP", quality=95), 3),
    "webp_lossless": (_encode(_image(), format="WEBP", lossless=True), 0),
    "webp_alpha": (_encode(_image("RGBA"), format="WEBP", lossless=True), 0),
    "webp_translucent": (_encode(_translucent_image(), format="WEBP"), 5),
    "webp_translucent_lossless": (
        _encode(_translucent_image(), format="WEBP", lossless=True, exact=True),
        0,
    ),
    "webp_animated": (_animated_webp(quality=95), 3),
    "webp_animated_lossless": (_animated_webp(lossless=True), 0),
    "webp_animated_smaller": (_animated_webp(alpha=True, lossless=True), 0),
    "webp_animated_lossy_alpha": (_animated_webp(alpha=True, quality=95), 4),
}

_JPEG = _READABLE["jpeg"][0]
_PNG = _READABLE["png"][0]
_UNREADABLE = {
    "empty": b"",
    "text": b"This is not an image. " * 50,
    "jpeg_truncated": _JPEG[:-100],
    "jpeg_signature_only": _JPEG[:3],
    "png_truncated": _PNG[: len(_PNG) // 2],
    "png_damaged": _PNG[:60] + b"\0\1\2\3" + _PNG[64:],
    "gif_truncated": _READABLE["gif"][0][:-50],
    "webp_truncated": _READABLE["webp"][0][:-50],
    "webp_animated_truncated": _animated_webp(lossless=True)[:150],
    "webp_animated_without_frame": _animated_webp().replace(b"ANMF", b"ANMX"),
    "bmp_truncated": _READABLE["bmp"][0][:-50],
    "tiff": _encode(_image(), format="TIFF"),
}


def _by_pillow(image_bytes):
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(image_bytes)))
    return np.asarray(image.convert("RGB"))


def _exif(orientation, byte_order, kind=3):
    value = struct.pack(
        byte_order + {3: "HH", 4: "I", 8: "hh", 9: "i"}[kind],
        *([orientation, 0] if kind in (3, 8) else [orientation]),
    )
    entries = [(0x010F, 2, 4, b"abc\0"), (0x0112, kind, 1, value)]
    packed = struct.pack(byte_order + "HIH", 42, 8, len(entries))
    for tag, kind, count, value in entries:
        packed += struct.pack(byte_order + "HHI", tag, kind, count) + value
    mark = b"II" if byte_order == "<" else b"MM"
    return b"Exif\0\0" + mark + packed + b"\0\0\0\0"


def _segment(marker, content):
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def _jpeg_with(*segments):
    return _JPEG[:2] + b"".join(segments) + _JPEG[2:]


@pytest.mark.parametrize("name", _READABLE)
def test_decode_image_gives_the_pixels_of_pillow(name):
    image_bytes, tolerance = _READABLE[name]
    image = images.decode_image(tf.constant(image_bytes))
    assert image.dtype == tf.uint8 and image.shape == (_HEIGHT, _WIDTH, 3)
    difference = np.abs(image.numpy().astype(int) - _by_pillow(image_bytes))
    assert difference.mean() <= tolerance


def test_sixteen_bits_become_eight():
    image = images.decode_image(tf.constant(_sixteen_bit_png()))
    np.testing.assert_array_equal(image[..., 0], np.asarray(_image("L")))


def test_alpha_is_dropped():
    pixels = np.asarray(_image("RGBA")).copy()
    pixels[..., 3] = 0
    image = images.decode_image(_encode(Image.fromarray(pixels), format="PNG"))
    np.testing.assert_array_equal(image, pixels[..., :3])


@pytest.mark.parametrize("byte_order", ["<", ">"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(orientation, byte_order):
    exif = _segment(0xE1, _exif(orientation, byte_order))
    image_bytes = _jpeg_with(exif)
    expected = _by_pillow(image_bytes)
    image = images.decode_image(tf.constant(image_bytes))
    assert image.shape == expected.shape
    assert np.abs(image.numpy().astype(int) - expected).mean() < 2
    behind_others = _jpeg_with(
        _segment(0xE0, b"JFIF\0\1\1\0\0\1\0\1\0\0"),
        _segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x/>"),
        _segment(0xE2, b"\0" * 500),
        b"\xff\xff",
        exif,
    )
    np.testing.assert_array_equal(images.decode_image(behind_others), image)


def _png_with(exif, behind=False):
    """Builds a PNG with eXIf before or after the pixels, among other chunks."""
    data = b"eXIf" + exif
    chunk = struct.pack(">I", len(exif)) + data + struct.pack(">I", zlib.crc32(data))
    text = b"tEXtComment\0an eXIf of Exif"
    chunk = (
        struct.pack(">I", len(text) - 4)
        + text
        + struct.pack(">I", zlib.crc32(text))
        + chunk
    )
    place = _PNG.index(b"IEND") - 4 if behind else 33
    return _PNG[:place] + chunk + _PNG[place:]


def _with_prefix(webp):
    """Inserts "Exif" and two zeros before the content of the last chunk, EXIF."""
    place = webp.index(b"EXIF")
    exif = b"Exif\0\0" + webp[place + 8 :]
    body = webp[8:place] + b"EXIF" + struct.pack("<I", len(exif)) + exif
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _turned_files(orientation):
    image, exif = _image(), _exif(orientation, ">")[6:]
    webp = {"format": "WEBP", "lossless": True}
    return {
        "png": _png_with(exif),
        "png_behind": _png_with(_exif(orientation, "<")[6:], behind=True),
        "png_prefixed": _png_with(_exif(orientation, "<")),
        "webp": _encode(image, exif=exif, **webp),
        # Pillow takes the prefix off.
        "webp_prefixed": _with_prefix(_encode(image, exif=exif, **webp)),
        "webp_translucent": _encode(_translucent_image(), exif=exif, **webp),
        "webp_animated": _animated_webp(exif=exif, lossless=True),
        "jpeg_long": _jpeg_with(_segment(0xE1, _exif(orientation, ">", 4))),
        "jpeg_long_little": _jpeg_with(_segment(0xE1, _exif(orientation, "<", 4))),
        "jpeg_signed": _jpeg_with(_segment(0xE1, _exif(orientation, "<", 9))),
    }


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_of_other_files(orientation):
    files = _turned_files(orientation)
    packed, status = images.decode(tf.constant(list(files.values())))
    np.testing.assert_array_equal(status, [image_status.OK] * len(files))
    for (name, image_bytes), one in zip(files.items(), packed, strict=True):
        expected = _by_pillow(image_bytes)
        image = images.unpack(one).numpy()
        assert image.shape == expected.shape, name
        assert np.abs(image.astype(int) - expected).mean() < 2, name
        np.testing.assert_array_equal(image, images.decode_image(image_bytes))


@pytest.mark.parametrize("name", ["noise", "no_byte_order", "more_entries_than_bytes"])
def test_garbage_exif_of_other_files_is_upright(name):
    exif = _GARBAGE_EXIF[name]
    webp = _encode(_image(), format="WEBP", lossless=True, exif=exif)
    for image_bytes in (_png_with(exif[6:]), webp, _PNG[:33] + b"eXIf" * 40):
        header = headers.read(tf.constant(image_bytes))
        assert header[headers.ORIENTATION] == 1 and header[headers.HEIGHT] == _HEIGHT


def test_a_frame_of_webp_larger_than_it_says_is_not_decoded():
    animated = bytearray(_animated_webp(lossless=True))
    place = animated.index(b"VP8L")
    animated[place + 9 : place + 13] = struct.pack("<I", 16000 | 16000 << 14)
    _, status = images.decode(tf.constant([bytes(animated), _PNG]))
    np.testing.assert_array_equal(status, [image_status.UNREADABLE, image_status.OK])


_GARBAGE_EXIF = {
    "nothing": b"Exif\0\0",
    "no_byte_order": b"Exif\0\0" + b"XX" + b"\1" * 30,
    "directory_beyond_the_end": b"Exif\0\0II*\0\xff\xff\xff\xff",
    "more_entries_than_bytes": b"Exif\0\0II*\0\x08\0\0\0\xff\xff",
    "orientation_zero": _exif(0, "<"),
    "orientation_nine": _exif(9, ">"),
    "noise": b"Exif\0\0MM" + bytes(np.random.default_rng(1).bytes(200)),
}


@pytest.mark.parametrize("name", _GARBAGE_EXIF)
def test_garbage_exif_is_upright(name):
    image_bytes = _jpeg_with(_segment(0xE1, _GARBAGE_EXIF[name]))
    np.testing.assert_array_equal(
        images.decode_image(image_bytes), images.decode_image(_JPEG)
    )


@pytest.mark.parametrize("name", _UNREADABLE)
def test_decode_image_raises_on_bad_data(name):
    with pytest.raises(tf.errors.InvalidArgumentError):
        images.decode_image(tf.constant(_UNREADABLE[name]))


def _batch():
    turned = _jpeg_with(_segment(0xE1, _exif(6, ">")))
    good = [image_bytes for image_bytes, _ in _READABLE.values()] + [turned]
    batch = list(_UNREADABLE.values())
    for position, image_bytes in enumerate(good):
        batch.insert(2 * position, image_bytes)
    return batch, [image_bytes in good for image_bytes in batch]


def _check_batch(batch, good, packed, status):
    expected = [
        image_status.OK if is_good else image_status.UNREADABLE for is_good in good
    ]
    np.testing.assert_array_equal(status, expected)
    assert packed.dtype == tf.string and status.dtype == tf.int32
    for image_bytes, one, is_good in zip(batch, packed, good, strict=True):
        if is_good:
            np.testing.assert_array_equal(
                images.unpack(one), images.decode_image(image_bytes)
            )
        else:
            assert one.numpy() == b""


class _Decoder(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def decode(self, image_bytes):
        packed, status = images.decode(image_bytes)
        return {"packed": packed, "status": status}


@pytest.fixture(name="saved", scope="module")
def _saved(tmp_path_factory):
    directory = str(tmp_path_factory.mktemp("decoder"))
    decoder = _Decoder()
    tf.saved_model.save(decoder, directory, signatures={"decode": decoder.decode})
    return directory


def test_one_bad_file_marks_only_itself():
    batch, good = _batch()
    _check_batch(batch, good, *images.decode(tf.constant(batch)))


def test_decode_in_a_loaded_saved_model(saved):
    batch, good = _batch()
    decode = tf.saved_model.load(saved).signatures["decode"]
    result = decode(image_bytes=tf.constant(batch))
    _check_batch(batch, good, result["packed"], result["status"])
    result = decode(image_bytes=tf.constant([], tf.string))
    assert result["packed"].shape == (0,) and result["status"].shape == (0,)
    result = decode(image_bytes=tf.constant([b"bad"]))
    np.testing.assert_array_equal(result["status"], [image_status.UNREADABLE])


def test_decode_in_a_session(saved):
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        meta = tf.compat.v1.saved_model.load(session, ["serve"], saved)
        signature = meta.signature_def["decode"]
        batch, good = _batch()
        status = session.run(
            signature.outputs["status"].name,
            {signature.inputs["image_bytes"].name: np.array(batch, object)},
        )
    np.testing.assert_array_equal(status == image_status.OK, good)


def test_decode_in_a_data_set():
    batch, good = _batch()
    dataset = tf.data.Dataset.from_tensor_slices(batch).batch(len(batch))
    packed, status = next(iter(dataset.map(images.decode)))
    _check_batch(batch, good, packed, status)


def _promising(side):
    """Builds tiny files whose headers state images of `side` x `side`."""
    gif = bytearray(_READABLE["gif"][0])
    image = gif.index(b"\x2c", 13 + 3 * 2 ** ((gif[10] & 7) + 1))
    gif[image + 5 : image + 9] = struct.pack("<HH", side, side)
    bmp = bytearray(_READABLE["bmp"][0])
    bmp[18:26] = struct.pack("<ii", side, -side)
    jpeg = bytearray(_JPEG)
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = struct.pack(">HH", side, side)
    png = bytearray(_PNG)
    png[16:24] = struct.pack(">II", side, side)
    lossy = bytearray(_READABLE["webp"][0])
    assert lossy[12:16] == b"VP8 "
    lossy[26:30] = struct.pack("<HH", side, side)
    lossless = bytearray(_READABLE["webp_lossless"][0])
    assert lossless[12:16] == b"VP8L"
    lossless[21:25] = struct.pack("<I", (side - 1) | (side - 1) << 14)
    extended = b"RIFF\x1e\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0"
    extended += struct.pack("<I", side - 1)[:3] * 2
    return [bytes(x) for x in (gif, bmp, jpeg, png, lossy, lossless, extended)]


def test_too_large_is_told_from_the_header():
    files = _promising(9000)
    packed, status = images.decode(tf.constant([*files, _JPEG]))
    np.testing.assert_array_equal(
        status, [image_status.TOO_LARGE] * len(files) + [image_status.OK]
    )
    assert all(one == b"" for one in packed[:-1].numpy())


def test_max_pixels_is_the_largest_that_passes():
    batch = tf.constant([_JPEG, _PNG, b"", _READABLE["gif"][0]])
    _, status = images.decode(batch, max_pixels=_HEIGHT * _WIDTH)
    np.testing.assert_array_equal(status, [0, 0, image_status.UNREADABLE, 0])
    _, status = images.decode(batch, max_pixels=_HEIGHT * _WIDTH - 1)
    large = image_status.TOO_LARGE
    np.testing.assert_array_equal(
        status, [large, large, image_status.UNREADABLE, large]
    )


def test_later_frames_of_a_gif_are_not_decoded():
    gif = _animated_gif()
    last = gif.rindex(b"\x2c\0\0\0\0")
    bomb = gif[: last + 5] + struct.pack("<HH", 65535, 65535) + gif[last + 9 :]
    packed, status = images.decode(tf.constant([bomb]))
    np.testing.assert_array_equal(status, [image_status.OK])
    np.testing.assert_array_equal(images.unpack(packed[0]), images.decode_image(gif))


def test_damaged_bytes_never_fail_the_batch():
    random = np.random.default_rng(7)
    batch = []
    for image_bytes, _ in _READABLE.values():
        for _ in range(6):
            damaged = bytearray(image_bytes)
            for position in random.integers(0, min(len(damaged), 300), 4):
                damaged[position] = random.integers(256)
            batch.append(bytes(damaged[: random.integers(1, len(damaged) + 1)]))
    packed, status = images.decode(tf.constant([*batch, _JPEG]), max_pixels=10_000)
    assert status[-1] == image_status.OK
    assert set(status.numpy()) <= {
        image_status.OK,
        image_status.UNREADABLE,
        image_status.TOO_LARGE,
    }
    np.testing.assert_array_equal(status == image_status.OK, packed != b"")


def test_pack_and_unpack():
    image = np.asarray(_image())
    np.testing.assert_array_equal(images.unpack(images.pack(image)), image)


def _noise(height, width):
    random = np.random.default_rng(3)
    return random.integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("height", "width", "scaled"),
    [(40, 20, (16, 8)), (20, 40, (8, 16)), (16, 16, (16, 16)), (1, 90, (1, 16))],
)
def test_letterbox(height, width, scaled):
    image = _noise(height, width)
    boxed = resize.letterbox(image, 16).numpy()
    assert boxed.shape == (16, 16, 3) and boxed.dtype == np.float32
    inside = np.zeros([16, 16], bool)
    inside[: scaled[0], : scaled[1]] = True
    assert (boxed[~inside] == np.float32(resize.MEAN_PIXEL)).all()
    # A triangle of the width of the scale has the mean of the image, about.
    assert abs(boxed[inside].mean() - image.mean()) < 6
    assert boxed[inside].std() < image.std() * 1.01
    graph = tf.function(lambda x: resize.letterbox(x, 16))
    np.testing.assert_allclose(graph(image), boxed, atol=1e-3)


def test_letterbox_of_the_same_size_keeps_the_pixels():
    image = _noise(16, 16)
    np.testing.assert_array_equal(resize.letterbox(image, 16), image)


def test_letterbox_boxes_and_back():
    boxes = np.float32([[0.1, 0.2, 0.5, 1.0], [0.0] * 4])
    boxed = resize.letterbox_boxes(boxes, 100, 400)
    np.testing.assert_allclose(boxed[0], [0.025, 0.2, 0.125, 1.0])
    back = resize.unletterbox_boxes(boxed, 100, 400)
    np.testing.assert_allclose(back, boxes, rtol=1e-6)
    # What a detector says of the padding lies outside the image.
    outside = resize.unletterbox_boxes(tf.constant([[0.1, 0.1, 0.9, 0.2]]), 100, 400)
    np.testing.assert_allclose(outside, [[0.4, 0.1, 1.0, 0.2]], rtol=1e-6)


@pytest.mark.parametrize(
    "height, width, size",
    [(48, 64, 32), (64, 48, 100), (1, 300, 32), (300, 1, 32), (37, 53, 53), (9, 9, 9)],
)
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_resizes_as_tensorflow_does(height, width, size, dtype):
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(dtype)
    expected = tf.image.resize(image, [size, size], antialias=True)
    np.testing.assert_array_equal(resize.resize(image, size), expected)
    scale = size / max(height, width)
    extent = [max(round(side * scale), 1) for side in (height, width)]
    expected = tf.image.resize(image, extent, antialias=True)
    letterboxed = resize.letterbox(tf.constant(image), size)
    np.testing.assert_array_equal(letterboxed[: extent[0], : extent[1]], expected)


def test_resize_is_antialiased():
    stripes = np.zeros([64, 64, 3], np.uint8)
    stripes[:, ::2] = 255
    small = resize.resize(stripes, 8)
    assert small.dtype == tf.float32 and small.shape == (8, 8, 3)
    np.testing.assert_allclose(small, 127.5, atol=6)
    assert resize.resize(stripes, 64).dtype == tf.float32


def test_crop_heads_cuts_the_square_of_faceforensics():
    image = _noise(480, 640)
    boxes = np.float32([[40 / 480, 30 / 640, 160 / 480, 130 / 640], [0, 0, 1, 1]])
    crops = resize.crop_heads(tf.constant(image), tf.constant(boxes), 156, margin=1.3)
    assert crops.shape == (2, 156, 156, 3) and crops.dtype == tf.float32
    # x 2, y 22, side 156: at this size the crop is the pixels themselves.
    np.testing.assert_array_equal(crops[0], image[22 : 22 + 156, 2 : 2 + 156])
    np.testing.assert_array_equal(crops[1], resize.resize(image[:480, :480], 156))


def test_crop_heads_without_heads_and_in_a_graph():
    crop = tf.function(
        lambda image, boxes: resize.crop_heads(image, boxes, 8),
        input_signature=[
            tf.TensorSpec([None, None, 3], tf.uint8),
            tf.TensorSpec([None, 4]),
        ],
    )
    image, box = _noise(30, 40), np.float32([[0.2, 0.3, 0.5, 0.6]])
    assert crop(image, np.zeros([0, 4], np.float32)).shape == (0, 8, 8, 3)
    np.testing.assert_array_equal(
        crop(image, box), resize.crop_heads(image, tf.constant(box), 8)
    )


def test_crop_heads_wants_boxes():
    with pytest.raises(ValueError, match=r"boxes must be \[num_heads, 4\], got \(4,\)"):
        resize.crop_heads(tf.zeros([9, 9, 3]), tf.zeros([4]), 8)
