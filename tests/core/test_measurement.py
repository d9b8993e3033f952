"""A report prints as its table."""

from rizbin.core.measurement import Measurement, Report


def test_a_report_prints_its_table() -> None:
    one = Measurement(name="zero_shot/top1", value=95.6, protocol="How.", baseline=7.2, chance=5.9, images=1000)
    report = Report(measurements=(one,), left_out=(("knn/top1", "No labels."),), images=1000, source="scenes")
    assert str(report) == report.table() == f"{report}"
    assert str(report).splitlines() == [
        "On 1,000 images of scenes.",
        "                   value    random    chance  measured on",
        "zero_shot/top1      95.6       7.2       5.9  1,000 images",
        "knn/top1: not measured. No labels.",
    ]
