"""The reference in the repository is the one that its command writes."""

from docs.reference import FILE, reference
from search import registry
from search.config import SweepConfig
from search.keys import keys
from search.metrics import METRICS

TEXT = reference()


def test_the_file_is_what_the_command_writes():
    assert FILE.read_text(encoding="utf-8") == TEXT, "the models changed: run `make docs`"


def test_every_key_setting_and_metric_has_its_row():
    settings = [key for name in registry.METHODS for key in registry.defaults(name)]
    names = [*(key.name for key in keys(SweepConfig)), *settings, *METRICS]
    assert len(names) > 90
    assert [name for name in names if f"\n| `{name}` | " not in TEXT] == []


def test_every_row_has_as_many_cells_as_its_head():
    for table in TEXT.split("\n\n"):
        lines = table.splitlines()
        if table.startswith("| "):
            assert len({line.replace("\\|", "").count("|") for line in lines}) == 1, lines[0]


def test_lists_that_the_schema_does_not_know_are_written_out():
    assert "lambda_adaptation \\| maml \\| meta_distillation" in TEXT
    assert "cifar-fs \\| folder \\| glyphs" in TEXT
