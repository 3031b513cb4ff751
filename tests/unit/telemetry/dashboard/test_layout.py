"""Where nodes stand: by call direction, apart from each other, and the same each time."""

from itertools import combinations, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemetry.dashboard.layout import MAX_NODES, arrange

NAMES = st.sampled_from([f"app{number}" for number in range(12)])
EDGES = st.lists(st.tuples(NAMES, NAMES), max_size=30)


def test_callee_stands_right_of_its_caller() -> None:
    laid = arrange([], [("web", "cart"), ("cart", "stock"), ("web", "stock")])
    assert [laid.nodes[name][0] for name in ("web", "cart", "stock")] == [0, 1, 2]
    assert laid.columns == 3


def test_edge_over_a_layer_bends_round_what_stands_there() -> None:
    laid = arrange([], [("web", "cart"), ("cart", "stock"), ("web", "stock")])
    (bend,) = laid.bends["web", "stock"]
    assert bend[0] == 1
    assert abs(bend[1] - laid.nodes["cart"][1]) >= 0.5
    assert laid.bends["web", "cart"] == ()


def test_cycle_is_laid_out_with_its_bends_from_the_caller_on() -> None:
    laid = arrange([], [("a", "b"), ("b", "c"), ("c", "a")])
    assert sorted(laid.nodes[name][0] for name in "abc") == [0, 1, 2]
    (long,) = (edge for edge, bends in laid.bends.items() if bends)
    assert abs(laid.nodes[long[0]][0] - laid.nodes[long[1]][0]) == 2


def test_call_to_itself_moves_nothing() -> None:
    assert arrange(["a"], [("a", "a")]) == arrange(["a"], [])


def test_apps_without_a_call_stand_below_in_rows() -> None:
    laid = arrange(["web", "cart", *(f"idle{number}" for number in range(6))], [("web", "cart")])
    assert laid.columns == 4
    assert {laid.nodes[f"idle{number}"][1] for number in range(6)} == {1, 2}


def test_nothing_is_laid_out_as_nothing() -> None:
    laid = arrange([], [])
    assert (laid.nodes, laid.columns, laid.rows) == ({}, 0, 0)


def test_two_lines_that_need_not_cross_do_not() -> None:
    laid = arrange([], [("a", "z"), ("b", "y"), ("a", "x"), ("b", "x")])
    assert (laid.nodes["a"][1] < laid.nodes["b"][1]) == (laid.nodes["z"][1] < laid.nodes["y"][1])


def test_more_than_anybody_reads_is_refused() -> None:
    with pytest.raises(ValueError, match=f"more than {MAX_NODES}"):
        arrange([f"app{number}" for number in range(MAX_NODES + 1)], [])


def test_long_edges_of_a_tangle_go_straight() -> None:
    names = [f"app{number:03}" for number in range(MAX_NODES)]
    laid = arrange([], [(src, dst) for src in names[::5] for dst in names if src < dst])
    assert not any(laid.bends.values())
    assert len(laid.nodes) == MAX_NODES


@given(st.lists(NAMES, max_size=12), EDGES)
def test_nodes_keep_apart_and_order_of_input_does_not_matter(
    nodes: list[str], edges: list[tuple[str, str]]
) -> None:
    laid = arrange(nodes, edges)
    assert laid == arrange(reversed(nodes), reversed(edges))
    assert laid.nodes.keys() == {*nodes, *(end for edge in edges for end in edge)}
    for (one, at), (other, there) in combinations(laid.nodes.items(), 2):
        assert at[0] != there[0] or abs(at[1] - there[1]) > 0.99, (one, other)
    for column, row in laid.nodes.values():
        assert 0 <= column < laid.columns
        assert 0 <= row < laid.rows


@given(EDGES)
def test_calls_without_a_cycle_all_go_right(edges: list[tuple[str, str]]) -> None:
    onward = [(min(edge), max(edge)) for edge in edges if edge[0] != edge[1]]
    laid = arrange([], onward)
    assert all(laid.nodes[src][0] < laid.nodes[dst][0] for src, dst in onward)


@given(EDGES)
def test_every_edge_bends_once_in_each_layer_between_its_ends(edges: list[tuple[str, str]]) -> None:
    laid = arrange([], edges)
    for (src, dst), bends in laid.bends.items():
        columns = [laid.nodes[src][0], *(bend[0] for bend in bends), laid.nodes[dst][0]]
        steps = {after - before for before, after in pairwise(columns)}
        assert steps in ({1.0}, {-1.0})
