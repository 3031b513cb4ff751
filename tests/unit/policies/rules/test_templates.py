from policies.rules.matcher import MAX_CLASSES
from policies.rules.path_readings import readings
from policies.rules.templates import Template, template_table
from tests.support.vectors import Vector, vectors


class Classes(Vector, frozen=True, kw_only=True):
    path: str
    met: list[list[int]] | None
    exact: tuple[str, ...] = ()
    folded: tuple[str, ...] = ()


@vectors("templates", "classes", Classes)
def test_path_meets_the_templates_of_all_its_readings(vector: Classes) -> None:
    templates = [Template(text) for text in vector.exact] + [
        Template(text, folds=True) for text in vector.folded
    ]
    found = template_table(templates).classes(vector.path)
    wanted = None if vector.met is None else sorted(map(tuple, vector.met))
    assert (None if found is None else sorted(found)) == wanted


def test_path_of_too_many_classes_can_not_be_judged() -> None:
    path = "/a/../b//c%2Fd%5C..%5Ce"
    found = readings(path) or ()
    assert len(found) > MAX_CLASSES
    assert template_table([Template(one) for one in found]).classes(path) is None
    assert template_table([Template("/b/{**}")]).classes(path) is not None


def test_table_without_templates_is_empty() -> None:
    assert not template_table(())
    assert template_table([Template("/")])
