"""What is held against the data and the machine before anything costs time."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from search import findings, registry
from search.addresses import shown
from search.databases import JOURNAL
from search.entries import samples
from search.errors import UserError
from search.loggers import check_loggers
from search.points import corners
from search.proposals import completed
from spaces._domains import spell
from trainables._data import Dataset, check_shape, load

if TYPE_CHECKING:
    from collections.abc import Mapping

    from search.config import SweepConfig
    from search.findings import Finding
    from spaces._domains import Value


def load_data(config: SweepConfig) -> Dataset:
    """Load a sweep's data, from the cache where it was decoded before, and check its tasks.

    Raises:
        DataError: The data is missing or wrong, or its classes cannot fill the tasks.
    """
    data = config.data
    found = load(
        data.source,
        root=data.path,
        size=data.size,
        channels=data.channels,
        split=data.split,
        seed=data.seed,
    )
    check_shape(found, data.ways, data.shots, data.queries)
    return found


def check_networks(config: SweepConfig, data: Dataset) -> None:
    """Hold the networks at the limits of the space against the images; imports torch.

    Not every combination is built: a misfit between these limits is found by its trial.

    Raises:
        UserError: One of them does not fit.
    """
    space, defaults = config.resolved_space(), registry.defaults(config.method)
    for corner in corners(space, defaults):
        try:
            check_network(config, corner.settings, data)
        except UserError as error:
            if not corner.moved:
                raise
            values = ", ".join(f"{name}: {spell(value)}" for name, value in corner.moved.items())
            raise UserError(
                f"The space has more than the images allow. With {values}: {error} Narrow the "
                "space."
            ) from error
    for index, point in enumerate(config.points):
        try:
            check_network(config, completed(space, defaults, point), data)
        except UserError as error:
            raise UserError(f"points[{index}] of the sweep file: {error}") from error


def check_network(config: SweepConfig, settings: Mapping[str, Value], data: Dataset) -> None:
    """Hold one configuration's network against the images; imports torch.

    Raises:
        UserError: It does not fit.
    """
    method, ways = registry.learner(config.method), config.data.ways
    try:
        method.cheap(settings, channels=data.channels, size=data.size, ways=ways)
    except ValueError as error:
        said = " ".join(str(error).split())
        raise UserError(f"This configuration cannot be trained: {said}") from error


def checkpoints(config: SweepConfig) -> dict[str, str]:
    """Return the students that trials start from, each with the digest of its content.

    An empty digest is a student that cannot be read.
    """
    domain = config.resolved_space().get("checkpoint")
    folders = [str(value) for value in samples(domain) if value] if domain is not None else []
    if not folders:
        return {}
    from trainables._core.student import content_of  # noqa: PLC0415 - most sweeps have none

    return {folder: content_of(Path(folder).expanduser()) for folder in folders}


def check_study(config: SweepConfig) -> None:
    """Reach the database of the study, where it is not the journal; imports Optuna then.

    Raises:
        UserError: It cannot be reached or used.
    """
    if config.study != JOURNAL:
        from search._storages import close_database, open_database  # noqa: PLC0415 - most sweeps have none

        close_database(open_database(config.study))


def check_followers(config: SweepConfig) -> None:
    """Hold the loggers of a sweep against what is installed; imports wandb where it is asked for.

    Raises:
        UserError: A logger's package is missing, or Weights & Biases has no API key.
    """
    check_loggers(config.loggers)
    if "wandb" in config.loggers:
        from search._wandb import check_signed_in  # noqa: PLC0415 - most sweeps have none

        check_signed_in()


@dataclass(frozen=True)
class Nodes:
    """What is known of the nodes before the first trial.

    Attributes:
        looks: What should be looked at, but stops nothing.
        afar: Whether trials save in the bucket, since a node lacks the directory, or may.
    """

    looks: list[Finding]
    afar: bool = False


def check_nodes(place: Path, bucket: str = "", *, scales: bool = False) -> Nodes:
    """Hold a cluster's nodes against each other and the storage, before the first trial; needs Ray.

    Args:
        place: The run's directory, which every node must write where there are several.
        bucket: The run's address; every node must write there where one lacks the directory.
        scales: Whether nodes come for trials that wait; those cannot be asked yet.

    Raises:
        UserError: What would stop the sweep, all of it.
    """
    from search import _nodes  # noqa: PLC0415 - Ray is imported by those alone who need it
    from search.probe import Question, marked, probe  # noqa: PLC0415

    if len(_nodes.nodes()) == 1:
        found = findings.of_disk({"this machine": probe(Question(str(place)))})
        afar = bool(bucket) and scales
    else:
        with marked(place) as marker:
            answers = _nodes.on_every_node(probe, Question(str(place), marker, bucket=bucket))
        found = findings.of_answers(answers, str(place), shown(bucket))
        said = {one.node.name: one.said for one in answers if one.said is not None}
        afar = bool(bucket) and findings.afar(said)
    stops = [one for one in found if one.state == "stops"]
    if stops:
        raise UserError(" ".join(f"{one.said} {one.remedy}".strip() for one in stops))
    return Nodes([one for one in found if one.state == "look"], afar)


def check_gpu(config: SweepConfig) -> None:
    """Hold what a trial asks for against this machine; imports torch where it asks for a GPU.

    Raises:
        UserError: It asks for a GPU and torch finds none.
    """
    wanted = config.resources.gpu
    if not wanted:
        return
    import torch  # noqa: PLC0415 - a sweep on CPUs does not wait for it here

    if not torch.cuda.is_available():
        raise UserError(
            f"The sweep file asks for {wanted:g} GPU (resources.gpu), and torch finds no CUDA GPU "
            "on this machine. Add `--set resources.gpu=0` to train on its CPU."
        )
