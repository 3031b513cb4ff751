from policies.reading import own_schema, own_traffic, schema
from policies.reading.effects import CONFIGURATION, RESILIENCY
from policies.reading.own_effects import ACCESS_POLICY, TRAFFIC
from proxy.reference.page import PAGE, covering, effect_rows, field_paths, page, run_file_rows

REMEDY = "write it anew with `make reference` (python -m proxy.reference.page) and commit it with your change"


def test_page_is_what_the_code_says() -> None:
    assert page() == PAGE.read_text(encoding="utf-8"), f"{PAGE} is not current: {REMEDY}"


def test_every_field_of_a_resource_has_an_effect_and_no_entry_is_stale() -> None:
    for model, effects in (
        (schema.Configuration, CONFIGURATION),
        (schema.Resiliency, RESILIENCY),
        (own_schema.AccessPolicy, ACCESS_POLICY),
        (own_traffic.Traffic, TRAFFIC),
    ):
        assert {covering(path, effects) for path in field_paths(model)} == set(effects)
        assert len(list(effect_rows(model, effects))) == len(effects)


def test_run_file_rows_hold_every_key_once() -> None:
    keys = [key for key, _, _ in run_file_rows()]
    assert len(keys) == len(set(keys))
    assert {"`grpcServices`", "`dependsOn`", "`appDirPath`", "`common`"} <= set(keys)
