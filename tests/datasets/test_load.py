"""Loading images and rows from folders and files, and refusing what is broken."""

import io
import os
import struct
import zipfile

import numpy as np
import pytest
from PIL import Image

from skgradood.datasets import load_images


def save(path, values, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(values)).save(path, **options)


def ramp(height=4, width=6, channels=None, seed=0):
    shape = (height, width) if channels is None else (height, width, channels)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


# --- folders ---------------------------------------------------------------------------------


def test_folder_is_read_recursively_in_sorted_order(tmp_path):
    pictures = {"b.png": ramp(seed=1), "a/z.png": ramp(seed=2), "a/y.BMP": ramp(seed=3)}
    for name, values in pictures.items():
        save(tmp_path / name, values)
    (tmp_path / "notes.txt").write_text("not an image")
    (tmp_path / "._b.png").write_bytes(b"what some file managers leave behind")
    loaded = load_images(tmp_path)
    assert loaded.names == ["a/y.BMP", "a/z.png", "b.png"]
    assert loaded.data.dtype == np.uint8
    np.testing.assert_array_equal(loaded.data, [pictures[name] for name in loaded.names])
    assert loaded.n_ignored == 2
    assert loaded.feature_names is None
    assert loaded.skipped == []


def test_hidden_folders_are_ignored(tmp_path):
    root = tmp_path / ".data"  # the user names it: it may be hidden itself
    for name in ("a.png", "sub/b.png", ".thumbs/t.png", "sub/.cache/deep/t.png", ".own.png"):
        save(root / name, ramp())
    loaded = load_images(root)
    assert loaded.names == ["a.png", "sub/b.png"]
    assert loaded.n_ignored == 3


def test_links_to_folders_are_counted(tmp_path):
    save(tmp_path / "elsewhere" / "b.png", ramp())
    (tmp_path / "root").mkdir()
    for name in ("one", "two"):
        (tmp_path / "root" / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(
        ValueError, match=r"no image files \(0 other .*; 2 links to folders were no"
    ):
        load_images(tmp_path / "root")
    save(tmp_path / "root" / "a.png", ramp())
    loaded = load_images(tmp_path / "root")
    assert (loaded.names, loaded.n_links, loaded.n_ignored) == (["a.png"], 2, 0)


def test_a_folder_that_may_not_be_read_is_not_passed_over_in_silence(tmp_path, monkeypatch):
    for name in ("a.png", "secret/b.png", ".hidden/c.png"):
        save(tmp_path / name, ramp())
    scan = os.scandir

    def guarded(folder):
        if os.path.basename(folder) in ("secret", ".hidden"):
            raise PermissionError(13, "Permission denied", folder)
        return scan(folder)

    monkeypatch.setattr(os, "scandir", guarded)
    with pytest.raises(PermissionError, match="secret"):
        load_images(tmp_path)
    loaded = load_images(tmp_path, on_error="skip")
    assert (loaded.names, loaded.skipped) == (["a.png"], ["secret"])


def test_messages_name_files_by_their_way_from_the_folder(tmp_path):
    save(tmp_path / "a" / "x.png", ramp(4, 6))
    save(tmp_path / "b" / "x.png", ramp(5, 7))
    with pytest.raises(ValueError, match=r"a/x.png has 4 x 6 .*b/x.png has 5 x 7"):
        load_images(tmp_path)
    (tmp_path / "b" / "x.png").write_bytes(b"no image")
    with pytest.warns(UserWarning, match=r"skipped, among them b/x\.png"):
        load_images(tmp_path, on_error="skip")


def test_colour_folder_and_luma(tmp_path):
    colour = ramp(channels=3)
    save(tmp_path / "colour.png", colour)
    save(tmp_path / "grey.png", ramp())
    auto = load_images(tmp_path).data
    np.testing.assert_array_equal(auto[0], colour)
    np.testing.assert_array_equal(auto[1], np.repeat(ramp()[..., None], 3, axis=2))
    grey = load_images(tmp_path, mode="grey").data
    luma = colour @ np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(grey[0], luma, atol=0.51)
    np.testing.assert_array_equal(grey[1], ramp())
    np.testing.assert_array_equal(load_images(tmp_path / "grey.png", mode="rgb").data, auto[1:])


def test_mixed_sizes_name_two_files_and_the_remedy(tmp_path):
    save(tmp_path / "first.png", ramp(4, 6))
    save(tmp_path / "second.png", ramp(5, 7))
    with pytest.raises(ValueError, match=r"first.png has 4 x 6 .*second.png has 5 x 7.*size=\(H"):
        load_images(tmp_path)
    resized = load_images(tmp_path, size=(8, 3)).data
    assert resized.shape == (2, 8, 3)
    flat = np.full((9, 9), 77, np.uint8)
    save(tmp_path / "first.png", flat)
    np.testing.assert_array_equal(load_images(tmp_path, size=(8, 3)).data[0], 77)


def test_sixteen_bit_is_scaled_not_clipped(tmp_path):
    eight = ramp()
    save(tmp_path / "deep.png", eight.astype(np.uint16) * 257 + 100)
    np.testing.assert_array_equal(load_images(tmp_path).data[0], eight)


def test_palette_transparency_bilevel_and_cmyk(tmp_path):
    colour = ramp(channels=3)
    Image.fromarray(colour[:, :, 0]).convert("P").save(tmp_path / "1.png")
    opaque = np.dstack([colour, np.full(colour.shape[:2], 255, np.uint8)])
    clear = np.dstack([colour, np.zeros(colour.shape[:2], np.uint8)])
    save(tmp_path / "2.png", opaque)
    save(tmp_path / "3.png", clear)
    Image.fromarray(colour[:, :, 0] > 127).save(tmp_path / "4.png")
    Image.new("CMYK", (6, 4), (0, 255, 255, 0)).save(tmp_path / "5.jpg", quality=100)
    data = load_images(tmp_path).data
    np.testing.assert_array_equal(data[0], np.repeat(colour[:, :, :1], 3, axis=2))
    np.testing.assert_array_equal(data[1], colour)
    np.testing.assert_array_equal(data[2], 255)
    np.testing.assert_array_equal(data[3][..., 0], np.where(colour[:, :, 0] > 127, 255, 0))
    np.testing.assert_allclose(data[4], np.broadcast_to([255, 0, 0], (4, 6, 3)), atol=3)


def test_float_pixels_are_refused(tmp_path):
    save(tmp_path / "float.tiff", np.ones((4, 4), np.float32))
    with pytest.raises(ValueError, match=r"float.tiff.*floating-point"):
        load_images(tmp_path)


def test_camera_orientation_is_applied(tmp_path):
    values = ramp()
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by a quarter, clockwise
    save(tmp_path / "turned.png", values, exif=exif)
    np.testing.assert_array_equal(load_images(tmp_path).data[0], np.rot90(values, -1))


def test_frames_beyond_the_first_are_announced(tmp_path):
    frames = [Image.fromarray(ramp(seed=seed)) for seed in (0, 1)]
    frames[0].save(tmp_path / "film.tiff", save_all=True, append_images=frames[1:])
    with pytest.warns(UserWarning, match=r"1 files hold several frames.*film.tiff"):
        loaded = load_images(tmp_path)
    np.testing.assert_array_equal(loaded.data, [ramp(seed=0)])


@pytest.mark.parametrize("damage", ["header", "data", "empty"])
def test_a_broken_image_is_named_or_skipped_and_counted(tmp_path, damage):
    save(tmp_path / "good.png", ramp(64, 64))
    save(tmp_path / "bad.png", ramp(64, 64))
    whole = (tmp_path / "bad.png").read_bytes()
    broken = {"header": b"no image at all", "data": whole[: len(whole) // 2], "empty": b""}
    (tmp_path / "bad.png").write_bytes(broken[damage])
    with pytest.raises(ValueError, match=r"bad.png cannot be read"):
        load_images(tmp_path)
    with pytest.warns(UserWarning, match=r"1 image files .* skipped"):
        loaded = load_images(tmp_path, on_error="skip")
    assert loaded.names == ["good.png"]
    assert loaded.skipped == ["bad.png"]
    np.testing.assert_array_equal(loaded.data, [ramp(64, 64)])


def test_a_file_that_may_not_be_read_is_skipped_like_a_broken_one(tmp_path, monkeypatch):
    for name in ("good.png", "secret.png"):
        save(tmp_path / name, ramp())
    opened = Image.open

    def guarded(path, **options):
        if path.name == "secret.png":
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, **options)

    monkeypatch.setattr(Image, "open", guarded)
    with pytest.raises(PermissionError, match=r"secret\.png"):
        load_images(tmp_path)
    with pytest.warns(UserWarning, match=r"1 image files .* secret\.png.*denied"):
        loaded = load_images(tmp_path, on_error="skip")
    assert loaded.skipped == ["secret.png"]
    np.testing.assert_array_equal(loaded.data, [ramp()])


def test_a_link_that_leads_nowhere_is_skipped_like_a_broken_file(tmp_path):
    save(tmp_path / "good.png", ramp())
    (tmp_path / "link.png").symlink_to(tmp_path / "gone.png")
    with pytest.raises(FileNotFoundError, match=r"link\.png"):
        load_images(tmp_path)
    with pytest.warns(UserWarning, match="1 image files .* skipped"):
        assert load_images(tmp_path, on_error="skip").skipped == ["link.png"]


def test_nothing_to_load(tmp_path):
    (tmp_path / "readme.txt").write_text("x")
    with pytest.raises(ValueError, match=r"no image files \(1 other files were ignored\)"):
        load_images(tmp_path)
    (tmp_path / "bad.png").write_bytes(b"x")
    with pytest.raises(ValueError, match="none of the 1 image files"):
        load_images(tmp_path, on_error="skip")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_images(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"'.txt'; expected a folder"):
        load_images(tmp_path / "readme.txt")


@pytest.mark.parametrize(
    "options",
    [
        {"mode": "grau"},
        {"on_error": "ignore"},
        {"size": (3,)},
        {"size": (0, 4)},
        {"size": 4},
        {"size": "ab"},
        {"size": (4.5, 3)},
    ],
)
def test_wrong_options(tmp_path, options):
    with pytest.raises(ValueError, match=next(iter(options))):
        load_images(tmp_path, **options)


# --- arrays ----------------------------------------------------------------------------------


def test_npz_keys(tmp_path):
    images, labels = ramp(3, 4, 5), np.arange(3)
    np.savez(tmp_path / "a.npz", images=images, labels=labels)
    np.savez_compressed(tmp_path / "b.npz", X=images, y=labels)
    np.savez(tmp_path / "c.npz", anything=images)
    for name in "abc":
        loaded = load_images(tmp_path / f"{name}.npz")
        np.testing.assert_array_equal(loaded.data, images)
        assert loaded.names == ["0", "1", "2"]
    np.savez(tmp_path / "d.npz", one=images, two=images)
    with pytest.raises(ValueError, match=r"d.npz .*\['one', 'two'\]"):
        load_images(tmp_path / "d.npz")


@pytest.mark.parametrize("dtype", [">f8", "<f4", "float64", ">i2", "bool"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_npy_rows_of_any_byte_order(tmp_path, dtype, order):
    rows = np.asarray(ramp(5, 3).astype(dtype), order=order)
    np.save(tmp_path / "rows.npy", rows)
    loaded = load_images(tmp_path / "rows.npy").data
    np.testing.assert_array_equal(loaded, rows)
    assert loaded.dtype.isnative
    assert loaded.flags.c_contiguous


def test_images_off_the_grid_are_refused(tmp_path):
    for values in (np.random.default_rng(0).random((2, 4, 4)), np.full((2, 4, 4), 300)):
        np.save(tmp_path / "images.npy", values)
        with pytest.raises(ValueError, match=r"images.npy .*0\.\.\.255"):
            load_images(tmp_path / "images.npy")
    np.save(tmp_path / "images.npy", np.full((2, 4, 4), 200, np.int64))
    assert load_images(tmp_path / "images.npy").data.dtype == np.uint8


@pytest.mark.parametrize("layout", [(2, 4, 6, 3), (2, 3, 4, 6)])
def test_size_and_mode_of_arrays(tmp_path, layout):
    last = ramp(2 * 4 * 6, 3).reshape(2, 4, 6, 3)
    images = last if layout[-1] == 3 else last.transpose(0, 3, 1, 2)
    np.save(tmp_path / "images.npy", images)
    np.testing.assert_array_equal(load_images(tmp_path / "images.npy").data, images)
    grey = load_images(tmp_path / "images.npy", mode="grey", size=(4, 6)).data
    np.testing.assert_allclose(grey, last @ np.array([0.299, 0.587, 0.114]), atol=0.51)
    assert load_images(tmp_path / "images.npy", size=(8, 8)).data.shape == (2, 8, 8, 3)


def test_a_missing_number_in_an_array_is_named(tmp_path):
    rows = ramp(5, 3).astype(float)
    rows[3, 1] = np.nan
    np.save(tmp_path / "rows.npy", rows)
    with pytest.raises(ValueError, match=r"rows.npy has 1 missing .* data row 3, column 1"):
        load_images(tmp_path / "rows.npy")


@pytest.mark.parametrize("channels", [3, 4])
def test_one_colour_picture_is_not_resized_as_many_grey_ones(tmp_path, channels):
    np.save(tmp_path / "one.npy", ramp(10, 12, channels))
    with pytest.raises(ValueError, match=r"one.npy .*10 grey images of 12 x .*\(1, H, W, 3\)"):
        load_images(tmp_path / "one.npy", size=(8, 8))
    same = load_images(tmp_path / "one.npy", size=(12, channels)).data
    np.testing.assert_array_equal(same, ramp(10, 12, channels))


def test_wrong_dimensions(tmp_path):
    np.save(tmp_path / "line.npy", np.zeros(4))
    with pytest.raises(ValueError, match=r"line.npy .*shape \(4,\)"):
        load_images(tmp_path / "line.npy")


def _npy_bytes(array, **options):
    stream = io.BytesIO()
    np.save(stream, array, **options)
    return stream.getvalue()


def _huge_header():
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000, 1000), }\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + b"\0" * 64


HOSTILE = {
    "truncated": _npy_bytes(np.zeros((50, 4)))[:-8],
    "padded": _npy_bytes(np.zeros((50, 4))) + b"12345678",
    "pickle": _npy_bytes(np.array([{}], dtype=object), allow_pickle=True),
    "declares far too much": _huge_header(),
    "no npy": b"not an array",
    "empty": b"",
    "expression as header": b"\x93NUMPY\x01\x00\x10\x00__import__('os')",
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_npy_and_npz_are_refused_by_name(tmp_path, case):
    (tmp_path / "bad.npy").write_bytes(HOSTILE[case])
    with pytest.raises(ValueError, match=r"bad\.npy"):
        load_images(tmp_path / "bad.npy")
    with zipfile.ZipFile(tmp_path / "bad.npz", "w") as archive:
        archive.writestr("images.npy", HOSTILE[case])
    with pytest.raises(ValueError, match=r"bad\.npz"):
        load_images(tmp_path / "bad.npz")


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.95])
def test_truncated_npz(tmp_path, keep):
    np.savez_compressed(tmp_path / "part.npz", images=ramp(20, 20, 20))
    whole = (tmp_path / "part.npz").read_bytes()
    (tmp_path / "part.npz").write_bytes(whole[: int(keep * len(whole))])
    with pytest.raises(ValueError, match="part"):
        load_images(tmp_path / "part.npz")


def test_damaged_npz_member(tmp_path):
    np.savez(tmp_path / "flipped.npz", images=ramp(20, 20, 20))
    content = bytearray((tmp_path / "flipped.npz").read_bytes())
    content[len(content) // 2] ^= 255
    (tmp_path / "flipped.npz").write_bytes(content)
    with pytest.raises(ValueError, match="flipped"):
        load_images(tmp_path / "flipped.npz")
