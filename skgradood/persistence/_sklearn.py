"""The state of scikit-learn's detectors that compiled code reads: checked before it does."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.ensemble import IsolationForest
from sklearn.neighbors import BallTree, KDTree, LocalOutlierFactor
from sklearn.svm import OneClassSVM
from sklearn.tree import ExtraTreeRegressor
from sklearn.tree._tree import NODE_DTYPE, Tree

_NO_CHILD = -1


def restore_svm(svm: OneClassSVM, state: dict[str, Any]) -> None:
    """Give a OneClassSVM its attributes; ValueError unless they fit together."""
    if "support_vectors_" in state:
        _check_fitted_svm(state)
    vars(svm).update(state)


def _check_fitted_svm(state: dict[str, Any]) -> None:
    """Compare array sizes: libsvm, in C, reads as many numbers as one promises of the other."""
    n_vectors, n_features = np.shape(state["support_vectors_"])
    expected = {
        "support_": (n_vectors,),
        "_dual_coef_": (1, n_vectors),
        "dual_coef_": (1, n_vectors),
        "_intercept_": (1,),
        "intercept_": (1,),
        "_n_support": (2,),
    }
    wrong = [name for name, shape in expected.items() if np.shape(state.get(name, ())) != shape]
    if wrong or any(count != n_vectors for count in state["_n_support"]):
        raise ValueError(
            f"the OneClassSVM has {n_vectors} support vectors, but other numbers of "
            f"{', '.join(wrong) or '_n_support'}"
        )
    if state.get("_sparse") is not False or state.get("n_features_in_") != n_features:
        raise ValueError(
            f"the OneClassSVM has support vectors of {n_features} features and expects others"
        )


# Search trees by what LocalOutlierFactor calls them.
_SEARCH_TREES = {"kd_tree": KDTree, "ball_tree": BallTree, "brute": None}


def export_lof(lof: LocalOutlierFactor) -> dict[str, Any]:
    """Take the attributes of a LocalOutlierFactor, without the search tree that its rows make."""
    return {name: value for name, value in vars(lof).items() if name != "_tree"}


def restore_lof(lof: LocalOutlierFactor, state: dict[str, Any]) -> None:
    """Give a LocalOutlierFactor its attributes; ValueError unless they fit together."""
    if "_fit_X" in state:
        state = state | {"_tree": _search_tree(state)}
    vars(lof).update(state)


def _search_tree(state: dict[str, Any]) -> Any:
    rows, method = state["_fit_X"], str(state.get("_fit_method"))
    _require(method in _SEARCH_TREES, f"LocalOutlierFactor knows no method {method!r}")
    n, n_features = np.shape(rows)
    fits = (
        state.get("n_samples_fit_") == n
        and state.get("n_features_in_") == n_features
        and np.shape(state.get("_lrd", ())) == (n,)
        and np.shape(state.get("_distances_fit_X_", ())) == (n, state.get("n_neighbors_"))
    )
    _require(fits, f"the LocalOutlierFactor has {n} rows of {n_features} features, and others")
    make = _SEARCH_TREES[method]
    if make is None:
        return None
    metric, options = state.get("effective_metric_"), state.get("effective_metric_params_")
    _require(type(metric) is str, f"LocalOutlierFactor knows no metric {metric!r}")
    return make(rows, leaf_size=state.get("leaf_size"), metric=metric, **(options or {}))


# What a forest computes of its nodes when it is fitted, one array a tree.
_PATH_LENGTHS = ("_average_path_length_per_tree", "_decision_path_lengths")
_OF_TREES = ("estimator_", "estimators_", *_PATH_LENGTHS)


def export_forest(forest: IsolationForest) -> dict[str, Any]:
    """Take the attributes of an IsolationForest, with the nodes of all trees in one table."""
    state = {name: value for name, value in vars(forest).items() if name not in _OF_TREES}
    if "estimators_" not in vars(forest):
        return state
    trees = [estimator.tree_ for estimator in forest.estimators_]
    nodes = np.concatenate([tree.__getstate__()["nodes"] for tree in trees])
    return state | {
        "_sample_weight": None,
        "tree_parameters": forest.estimator_.get_params(deep=False),
        "tree_seeds": np.array([estimator.random_state for estimator in forest.estimators_]),
        "tree_sizes": np.array([tree.node_count for tree in trees]),
        "tree_depths": np.array([tree.max_depth for tree in trees]),
        "nodes": {name: np.ascontiguousarray(nodes[name]) for name in NODE_DTYPE.names},
        "values": np.concatenate([tree.value for tree in trees]),
        **{name: np.concatenate(getattr(forest, name)) for name in _PATH_LENGTHS},
    }


def restore_forest(forest: IsolationForest, state: dict[str, Any]) -> None:
    """Give an IsolationForest its attributes; ValueError unless every tree is one."""
    if "tree_sizes" in state:
        state = _with_trees(state)
    vars(forest).update(state)


def _with_trees(saved: dict[str, Any]) -> dict[str, Any]:
    state = dict(saved)
    sizes = np.asarray(state.pop("tree_sizes"))
    nodes, values = _node_table(state.pop("nodes"), sizes), state.pop("values")
    lengths = [state.pop(name) for name in _PATH_LENGTHS]
    per_tree = [state.pop("tree_seeds"), state.pop("tree_depths"), state["estimators_features_"]]
    _require(all(len(part) == len(sizes) for part in per_tree), "trees of an IsolationForest lack")
    fits = np.shape(values) == (len(nodes), 1, 1) and values.dtype == np.float64
    fits = fits and all(np.shape(part) == (len(nodes),) for part in lengths)
    _require(fits, "the nodes of an IsolationForest have other numbers of values")
    template = ExtraTreeRegressor(**state.pop("tree_parameters"))
    ends = np.cumsum(sizes)[:-1]
    estimators = [
        _tree_estimator(template, *parts)
        for parts in zip(*per_tree, np.split(nodes, ends), np.split(values, ends), strict=True)
    ]
    of_trees = {
        name: tuple(np.split(part, ends)) for name, part in zip(_PATH_LENGTHS, lengths, strict=True)
    }
    return state | {"estimator_": template, "estimators_": estimators} | of_trees


def _node_table(columns: dict[str, np.ndarray], sizes: np.ndarray) -> np.ndarray:
    """The nodes of all trees, as scikit-learn's compiled code lays them out."""
    fits = (
        sizes.ndim == 1 and sizes.dtype.kind == "i" and bool((sizes > 0).all()) and len(sizes) > 0
    )
    _require(fits, "an IsolationForest must have trees of one node or more")
    _require(
        set(columns) == set(NODE_DTYPE.names)
        and all(np.shape(column) == (sizes.sum(),) for column in columns.values()),
        f"the nodes of an IsolationForest have {sorted(columns)} here, where this version of "
        f"scikit-learn has {sorted(NODE_DTYPE.names)}, one for each node; was the file saved under "
        "another?",
    )
    nodes = np.zeros(int(sizes.sum()), dtype=NODE_DTYPE)
    for name, column in columns.items():
        _require(column.dtype == NODE_DTYPE[name], f"the nodes' {name} have dtype {column.dtype}")
        nodes[name] = column
    return nodes


def _tree_estimator(
    template: ExtraTreeRegressor,
    seed: Any,
    depth: Any,
    features: np.ndarray,
    nodes: np.ndarray,
    values: np.ndarray,
) -> ExtraTreeRegressor:
    n_features = len(features)
    _check_nodes(nodes, n_features)
    tree = Tree(n_features, np.array([1], dtype=np.intp), 1)
    tree.__setstate__(
        {"max_depth": int(depth), "node_count": len(nodes), "nodes": nodes, "values": values}
    )
    estimator = ExtraTreeRegressor(**template.get_params()).set_params(random_state=int(seed))
    vars(estimator).update(
        n_features_in_=n_features, n_outputs_=1, max_features_=n_features, tree_=tree
    )
    return estimator


def _check_nodes(nodes: np.ndarray, n_features: int) -> None:
    """Make sure of what compiled code follows: children come later, and features exist."""
    left, right, feature = nodes["left_child"], nodes["right_child"], nodes["feature"]
    is_leaf = (left == _NO_CHILD) & (right == _NO_CHILD)
    position = np.arange(len(nodes))
    inner_fits = (
        (np.minimum(left, right) > position)
        & (np.maximum(left, right) < len(nodes))
        & (feature >= 0)
        & (feature < n_features)
    )
    _require(
        bool((is_leaf | inner_fits).all()),
        f"a node of an IsolationForest leads outside its tree of {len(nodes)} nodes, or asks for "
        f"another than {n_features} features",
    )


def _require(condition: bool, complaint: str) -> None:
    if not condition:
        raise ValueError(complaint)
