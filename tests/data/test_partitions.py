from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.data.test_sources import config, whole
from tfctr.config import ConfigError
from tfctr.data.partitions import PartitionedReader
from tfctr.data.sources import open_source

DAYS = {"2024-01-01": "a", "2024-01-02": "b", "__HIVE_DEFAULT_PARTITION__": "c"}


@pytest.mark.parametrize("prefix", ["", "{folder}/", "file://{folder}/"])
@pytest.mark.parametrize("format", ["csv", "jsonl", "parquet"])
def test_a_folder_gives_a_column_that_its_files_lack(tmp_path, format, prefix):
    for day, user in DAYS.items():
        folder = tmp_path / "log" / f"day={day}" / f"city={quote('Ä/b=c', safe='')}"
        folder.mkdir(parents=True)
        if format == "parquet":
            table = pa.table({"user_id": [user], "click": [1], "time": [7]})
            pq.write_table(table, folder / "part-0.parquet")
        elif format == "csv":
            (folder / "part-0.csv").write_text(f"user_id,click,time\n{user},1,7\n")
        else:
            line = f'{{"user_id": "{user}", "click": 1, "time": 7}}\n'
            (folder / "part-0.jsonl").write_text(line)
    for path in ("log", "log/day=*", "log/day=*/*/part-?.*", "**/city=*/*"):
        events = prefix.format(folder=tmp_path) + path
        log = open_source(config(tmp_path, {"format": format, "events": events})).events
        assert set(log.names()) == {"user_id", "click", "time", "day", "city"}
        good, bad = whole(log, ["day", "user_id", "city"])
        found = [
            (day, user if format == "parquet" else user.decode(), city)
            for _, day, user, city in good
        ]
        assert found == [
            ("2024-01-01", "a", "Ä/b=c"),
            ("2024-01-02", "b", "Ä/b=c"),
            (None, "c", "Ä/b=c"),
        ]
        assert bad == []
        assert [row[1:] for row in whole(log, ["city"])[0]] == [("Ä/b=c",)] * 3


def log_of(tmp_path, names, events, header="user_id,click,time"):
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{header}\na,1,7\n")
    return open_source(config(tmp_path, {"format": "csv", "events": events}))


def test_a_column_of_the_files_comes_before_that_of_the_folder(tmp_path):
    log = log_of(tmp_path, ["time=9/a.csv"], "time=9/a.csv").events
    assert not isinstance(log, PartitionedReader)
    assert whole(log, ["time"])[0] == [(0, b"7")]


def test_a_key_that_a_file_lacks_is_no_column(tmp_path):
    log = log_of(tmp_path, ["day=1/a.csv", "b.csv"], ["day=1/a.csv", "b.csv"]).events
    assert log.names() == ("user_id", "click", "time")


def test_only_folders_that_the_config_names_count(tmp_path):
    names = ("user_id", "click", "time")
    log = log_of(tmp_path / "seed=1", ["a.csv", "day=1/day=2/a.csv"], "a.csv").events
    assert log.names() == names
    log = open_source(config(tmp_path / "seed=1", {"format": "csv", "events": "day=1"})).events
    assert log.names() == (*names, "day")
    assert whole(log, ["day"])[0] == [(0, "2")]  # of the inner folder
    whole_path = {"format": "csv", "events": f"{tmp_path}/seed=1/a.csv"}
    assert open_source(config("elsewhere", whole_path)).events.names() == (*names, "seed")


def test_a_folder_whose_name_is_no_text_is_named(tmp_path):
    log = log_of(tmp_path, ["day=%ff/a.csv"], "day=*").events
    with pytest.raises(ConfigError, match=r"day=%ff/a\.csv: .*UTF-8"):
        whole(log, ["day"])


def test_a_file_that_is_moved_to_another_day_changes_the_fingerprint(tmp_path):
    source = log_of(tmp_path, ["day=1/a.csv"], "day=*")
    before = source.fingerprint()
    assert before[0][0] == "day=1/a.csv"
    (tmp_path / "day=1").rename(tmp_path / "day=2")
    after = open_source(config(tmp_path, {"format": "csv", "events": "day=*"})).fingerprint()
    assert after != before
