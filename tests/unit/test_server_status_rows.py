"""What `waypost status` says of events, of views that are being built, and of the archive."""

from __future__ import annotations

from server.commands.render import status_rows
from waypost.admin.v1 import admin_pb2


def test_a_build_is_told_while_there_is_one() -> None:
    build = admin_pb2.ViewBuild(
        views=["visits", "fees"], stage="writing patient_id", done=2_000, total=12_000
    )
    rows = dict(status_rows(admin_pb2.GetStatusResponse(build=build)))
    assert rows["building"] == "visits, fees: writing patient_id, 2,000 of 12,000"
    failed = admin_pb2.ViewBuild(views=["visits"], stage="failed: no column 'fee'")
    assert dict(status_rows(admin_pb2.GetStatusResponse(build=failed)))["building"].endswith(
        "no column 'fee'"
    )
    assert "building" not in dict(status_rows(admin_pb2.GetStatusResponse()))


def test_the_last_archive_of_a_partition_is_told() -> None:
    part = admin_pb2.PartitionStatus(figures={"written_at_us": 2e6, "archived_at_us": 1e6})
    rows = [row for row in status_rows(admin_pb2.GetStatusResponse(partitions=[part])) if "archive" in row[0]]
    assert rows == [("  last archive", "1970-01-01 00:00:01Z")]


def test_files_that_cannot_be_written_are_told() -> None:
    part = admin_pb2.PartitionStatus(figures={"rows_waiting": 1_200})
    rows = dict(status_rows(admin_pb2.GetStatusResponse(partitions=[part])))
    assert rows["  NOT WRITTEN"] == "1,200 rows wait: the data folder cannot be written"
    part = admin_pb2.PartitionStatus(figures={"rows_waiting": 0, "events": 1})
    assert "  NOT WRITTEN" not in dict(status_rows(admin_pb2.GetStatusResponse(partitions=[part])))


def test_events_that_were_refused_are_told_by_reason() -> None:
    told = admin_pb2.GetStatusResponse(events_refused={"WRONG_TYPE": 1_200, "OUTLIER": 3})
    assert dict(status_rows(told))["events refused"] == "3 OUTLIER, 1,200 WRONG_TYPE"
    assert dict(status_rows(admin_pb2.GetStatusResponse()))["events refused"] == "0"


def test_events_that_did_not_count_and_state_are_told() -> None:
    figures = {"late": 1, "ahead": 0, "dead": 2, "duplicates": 1, "state_bytes_written": 5_330}
    rows = dict(
        status_rows(admin_pb2.GetStatusResponse(partitions=[admin_pb2.PartitionStatus(figures=figures)]))
    )
    assert rows["  not counted"] == "1 late, 2 not applicable, 1 sent again"
    assert rows["  state written"] == "5.33 KB"
