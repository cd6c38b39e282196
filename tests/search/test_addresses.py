"""Keys of a storage never reach a file or a message."""

import json

import pytest
from click.testing import CliRunner

from search.addresses import check_address, shown, unfit
from search.cli import cli
from search.config import SweepConfig, load_sweep
from search.doctor import examine
from search.errors import UserError
from search.sweep import run_sweep

SECRET = "hunter2"
HIDING = [
    f"s3://me:{SECRET}@bucket/runs",
    f"s3://bucket/runs?access_key=me&secret_key={SECRET}",
    f"s3://{SECRET}@bucket",
    f"gs://bucket/runs?X-Goog-Signature={SECRET}",
    f"s3://[{SECRET}/runs",
]


@pytest.mark.parametrize("address", HIDING)
def test_a_key_in_a_sweep_file_is_refused_without_showing_it(address, tmp_path):
    file = tmp_path / "sweep.yaml"
    file.write_text(f"method: maml\nstorage: '{address}'\n")
    with pytest.raises(UserError, match="line 2, storage: A key must not stand") as caught:
        load_sweep(file)
    assert SECRET not in str(caught.value)
    with pytest.raises(UserError, match=r"--set storage=\.\.\.: A key") as caught:
        load_sweep(None, [f"storage={address}"])
    assert SECRET not in str(caught.value)
    assert SECRET not in shown(address).replace(f"[{SECRET}", "")


@pytest.mark.parametrize("address", HIDING[:4])
def test_a_key_on_the_command_line_is_not_repeated(address, tmp_path, monkeypatch):
    config = SweepConfig(method="maml")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("search.sweep.load_data", lambda _: pytest.fail("it went on"))
    with pytest.raises(UserError, match="A key must not stand") as caught:
        run_sweep(config, storage=address)
    assert SECRET not in str(caught.value)
    done = CliRunner().invoke(cli, ["sweep", "--storage", address], standalone_mode=False)
    assert "A key must not" in str(done.exception)  # and no directory s3: was made of it
    assert SECRET not in f"{done.exception}{done.output}"
    monkeypatch.setattr("search.doctor.load_data", lambda _: (_ for _ in ()).throw(UserError("no")))
    report = json.dumps(examine(config, storage=address).to_json())
    assert "A key must not stand" in report
    assert SECRET not in report


def test_a_value_that_is_no_yaml_is_not_repeated_either():
    with pytest.raises(UserError) as caught:
        load_sweep(None, [f"storage={{{SECRET}"])
    assert SECRET not in str(caught.value)


def test_addresses_without_keys_and_directories_are_fit():
    assert unfit("s3://bucket/runs?region=eu&endpoint_override=localhost:9000") == ""
    assert unfit("/mnt/runs") == shown("") == ""
    check_address("s3://bucket/runs?region=eu&endpoint_override=localhost:9000&scheme=http")


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("gs://bucket/runs", "a bucket as s3://BUCKET/PREFIX; found gs://bucket/runs. Mount it"),
        ("s3:///runs", "found s3:///runs"),
        ("s3://bucket/runs?anonymous=1", "may end with region, endpoint_override, scheme"),
    ],
)
def test_other_addresses_are_told_from_buckets(address, said):
    with pytest.raises(UserError) as caught:
        check_address(address)
    assert said in str(caught.value)


@pytest.mark.parametrize("word", ["results", "report"])
def test_a_run_in_a_bucket_is_fetched_before_it_is_looked_at(word):
    done = CliRunner().invoke(cli, [word, f"s3://me:{SECRET}@bucket/runs/a"])
    assert "s3://bucket/runs/a is in a bucket; bring it here with `fewtune fetch`" in done.output
    assert SECRET not in done.output


@pytest.mark.parametrize("words", [["resume"], ["extend", "--trials", "1"], ["fetch"], ["board"]])
def test_a_key_in_the_address_of_a_run_is_not_repeated(words):
    done = CliRunner().invoke(cli, [words[0], HIDING[0] + "/a", *words[1:]], standalone_mode=False)
    assert "A key must not stand" in str(done.exception)
    assert SECRET not in f"{done.exception}{done.output}"
