"""Classes whose state needs more than its attributes written down."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from sklearn.ensemble import IsolationForest
from sklearn.neighbors import LocalOutlierFactor
from sklearn.pipeline import Pipeline
from sklearn.svm import OneClassSVM

from skgradood.models import GenerativeNet
from skgradood.models._fitted import LikelihoodModel, module_of
from skgradood.models._state import TRAINING_OPTIONS, ModuleRecipe
from skgradood.persistence._fisher import FISHER_CLASSES, export_part, restore_part
from skgradood.persistence._sklearn import (
    export_forest,
    export_lof,
    restore_forest,
    restore_lof,
    restore_svm,
)

_RECIPE = ("factory", "arguments", "dtype")


class Codec(NamedTuple):
    """How the state of a class is taken from an object and given to a new one."""

    export: Callable[[Any], dict[str, Any]]
    restore: Callable[[Any, dict[str, Any]], None]


def _export_attributes(instance: Any) -> dict[str, Any]:
    return dict(vars(instance))


def _restore_attributes(instance: Any, state: dict[str, Any]) -> None:
    vars(instance).update(state)


def _export_net(net: GenerativeNet) -> dict[str, Any]:
    # The estimator's own state for pickling: arrays, and the recipe that makes the module.
    state = net.__getstate__()
    state.pop("_sklearn_version", None)
    # What takes part in training only may be large, or an arbitrary object.
    state["callbacks"] = None
    for name in list(state):
        if name in TRAINING_OPTIONS or name == "train_split" or name.startswith("outliers__"):
            del state[name]
    if "_recipe" in state:
        state["_recipe"] = {name: getattr(state["_recipe"], name) for name in _RECIPE}
    return state


def _restore_net(net: GenerativeNet, state: dict[str, Any]) -> None:
    if "_recipe" in state:
        recipe = ModuleRecipe(**state["_recipe"])
        if not (isinstance(recipe.factory, type) and issubclass(recipe.factory, torch.nn.Module)):
            raise ValueError(f"{recipe.factory!r} is not a torch module")
        state = state | {"_recipe": recipe}
    net.__setstate__(state)


def _export_likelihood(likelihood: LikelihoodModel) -> dict[str, Any]:
    return {name: value for name, value in vars(likelihood).items() if name != "module"}


def _restore_likelihood(likelihood: LikelihoodModel, state: dict[str, Any]) -> None:
    # The module is the estimator's own, not a copy of it.
    module = module_of(state["estimator"])
    if not isinstance(module, torch.nn.Module):
        raise ValueError(f"a likelihood model holds {type(module).__name__} as its module")
    vars(likelihood).update(state, module=module)


def _export_pipeline(pipeline: Pipeline) -> dict[str, Any]:
    # A cache belongs to one machine's disk, and is read by unpickling.
    return dict(vars(pipeline)) | {"memory": None}


def _restore_pipeline(pipeline: Pipeline, state: dict[str, Any]) -> None:
    if state.get("memory") is not None:
        raise ValueError("a saved Pipeline has no cache; a cache is read by unpickling")
    vars(pipeline).update(state)


_CODECS: dict[type, Codec] = {
    GenerativeNet: Codec(_export_net, _restore_net),
    LikelihoodModel: Codec(_export_likelihood, _restore_likelihood),
    Pipeline: Codec(_export_pipeline, _restore_pipeline),
    IsolationForest: Codec(export_forest, restore_forest),
    LocalOutlierFactor: Codec(export_lof, restore_lof),
    OneClassSVM: Codec(_export_attributes, restore_svm),
    **dict.fromkeys(FISHER_CLASSES, Codec(export_part, restore_part)),
}
# What estimators hold, and is none itself.
PARTS = (LikelihoodModel, *FISHER_CLASSES)
_PLAIN = Codec(_export_attributes, _restore_attributes)


def codec_of(cls: type) -> Codec:
    """Return the codec of a class; attributes are written down as they are by default."""
    return _CODECS.get(cls, _PLAIN)
