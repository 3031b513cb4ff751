"""Tables of code names."""

from telemetry.names import GRPC_CODE_CLASSES, GRPC_CODES, GRPC_LABELS, grpc_code_label, grpc_code_name


def test_every_grpc_code_has_a_name_a_label_and_a_class() -> None:
    assert len(GRPC_CODES) == len(GRPC_LABELS) == len(GRPC_CODE_CLASSES) == 17
    for name, label in zip(GRPC_CODES[2:], GRPC_LABELS[2:], strict=True):
        assert name.replace("_", "").lower() == label.lower()


def test_grpc_code_outside_the_table_stays_a_number() -> None:
    assert (grpc_code_name(14), grpc_code_label(14)) == ("UNAVAILABLE", "Unavailable")
    assert (grpc_code_name(-1), grpc_code_label(17)) == ("-1", "17")
