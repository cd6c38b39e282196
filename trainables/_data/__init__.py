"""Image sources by name -> class-indexed uint8 arrays: the only reader of image files.

``load`` decodes a source once into a cache that all processes of a node map read-only.
Needs numpy and Pillow alone.
"""

from dataclasses import replace
from pathlib import Path

from trainables._data import cifar_fs, folder, glyphs, mini_imagenet, omniglot
from trainables._data._builder import Builder
from trainables._data._cache import cache_folder, fetch, key_of
from trainables._data._decode import decode_image
from trainables._data._source import Request, Source, root_of
from trainables._data.dataset import (
    SPLITS,
    DataError,
    Dataset,
    ImageSet,
    LoadReport,
    check_shape,
)
from trainables._data.folder import read_class_folders

__all__ = [
    "SOURCES",
    "SPLITS",
    "DataError",
    "Dataset",
    "ImageSet",
    "LoadReport",
    "Source",
    "check_shape",
    "decode_image",
    "describe",
    "load",
    "missing",
    "prepare",
    "read_class_folders",
]

_SOURCES: dict[str, Source] = {
    module.SOURCE.name: module.SOURCE
    for module in (cifar_fs, folder, glyphs, mini_imagenet, omniglot)
}
SOURCES: tuple[str, ...] = tuple(sorted(_SOURCES))
SIZES = (8, 512)  # sides of images, pixels


def describe(source: str) -> Source:
    """What a source is, expects and defaults to.

    Raises:
        DataError: there is no source of that name.
    """
    if source not in _SOURCES:
        raise DataError(f"There is no data source '{source}'; there are {', '.join(SOURCES)}.")
    return _SOURCES[source]


def load(  # noqa: PLR0913  each is a setting a user may give
    source: str,
    *,
    root: Path | None = None,
    size: int | None = None,
    channels: int | None = None,
    split: Path | None = None,
    seed: int = 0,
    cache: Path | None = None,
) -> Dataset:
    """A source as arrays, decoded now or found in the cache.

    Args:
        source: one of ``SOURCES``.
        root: where its files lie; None means the folder in FEWTUNE_DATA.
        size: side of the square images in pixels; None means the source's own.
        channels: 1 (grey) or 3 (colour); None means the source's own.
        split: lists of classes instead of the source's own split.
        seed: for what a source draws: its alphabets, or its split by class.
        cache: where decoded images are kept; None means FEWTUNE_CACHE, else ~/.cache/fewtune.

    Raises:
        DataError: the source is missing, wrong or unusable as asked.
    """
    known = describe(source)
    request = _request(known, root, size, channels, split, seed)
    plan = known.plan(request)

    def build(folder: Path) -> Builder:
        builder = Builder(folder, known.name, request.size, request.channels)
        try:
            plan.build(builder)
        except BaseException:
            builder.close()
            raise
        return builder

    key = key_of(request, plan.identity, seeded=known.seeded)
    found = fetch(cache_folder(cache), key, build)
    return replace(found, report=replace(found.report, origin=plan.origin))


def missing(source: str, *, root: Path | None = None, split: Path | None = None) -> str | None:
    """What keeps a source from being loaded, as a sentence; None where nothing does.

    Looks for files and lists; decodes nothing.
    """
    known = describe(source)
    try:
        known.plan(_request(known, root, None, None, split, 0)).check()
    except DataError as error:
        return str(error)
    return None


def prepare(source: str, root: Path | None = None) -> Path:
    """Bring a source's files under a root, or verify the ones there.

    Returns:
        The root; for a source that needs no files, the cache it was drawn into.

    Raises:
        DataError: it cannot be downloaded from here; the sentence says what to put where.
    """
    known = describe(source)
    if not known.expects:
        load(source)
        return cache_folder(None)
    folder = root_of(root)
    if folder is None:
        raise DataError(
            "Say where the data should go: set FEWTUNE_DATA to a folder, or give a path."
        )
    known.fetch(folder)
    return folder


def _request(
    known: Source,
    root: Path | None,
    size: int | None,
    channels: int | None,
    split: Path | None,
    seed: int,
) -> Request:
    if size is not None and not SIZES[0] <= size <= SIZES[1]:
        raise DataError(f"Images are made {SIZES[0]} to {SIZES[1]} pixels wide; {size} was asked.")
    if channels not in (None, 1, 3):
        raise DataError(f"Images have 1 (grey) or 3 (colour) channels; {channels} was asked.")
    if split is not None and not Path(split).exists():
        raise DataError(f"The split {split} does not exist.")
    return Request(
        source=known.name,
        root=root_of(root),
        size=size or known.size,
        channels=channels or known.channels,
        split=None if split is None else Path(split),
        seed=seed,
    )
