"""Small images, trees and archives, and the difficulty of a data set."""

import io
import zipfile
import zlib

import numpy as np
from PIL import Image


def encode(seed=0, size=(20, 20), mode="RGB", kind="PNG"):
    """An image file of random pixels, as bytes."""
    rng = np.random.default_rng(seed)
    image = Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
    file = io.BytesIO()
    image.convert(mode).save(file, kind)
    return file.getvalue()


def write_tree(root, files):
    """Relative path -> bytes, on disk."""
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


def write_zip(path, files):
    """Relative path or ZipInfo -> bytes, in an archive."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def class_files(classes, images=4, prefix="", **kwargs):
    """Class names -> files of a class-per-folder tree."""
    return {
        f"{prefix}{name}/{i:02d}.png": encode(seed=zlib.crc32(f"{name} {i}".encode()), **kwargs)
        for name in classes
        for i in range(images)
    }


def nearest_centroid(images, shots, episodes=300, ways=5, queries=15, seed=0):
    """Accuracy of nearest centroid on raw pixels, [episodes]; no rotations among the classes."""
    rng = np.random.default_rng(seed)
    upright = np.array([i for i, name in enumerate(images.names) if "@" not in name])
    accuracy = []
    for _ in range(episodes):
        picked = []
        for c in rng.choice(upright, ways, replace=False):
            rows = rng.choice(images.counts[c], shots + queries, replace=False)
            picked.append(images.of(c)[rows].reshape(shots + queries, -1) / 255.0)
        x = np.stack(picked)
        centroids = x[:, :shots].mean(axis=1)
        query = x[:, shots:].reshape(ways * queries, -1)
        distance = ((query[:, None] - centroids[None]) ** 2).sum(axis=-1)
        accuracy.append((distance.argmin(axis=1) == np.repeat(np.arange(ways), queries)).mean())
    return np.array(accuracy)
