"""Sets of torch functions by what they do to the batch dimension, and how to look inside one."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

_NAMESPACES = (torch, torch.Tensor, F, torch.special, torch.linalg, torch._C._nn)


def spellings(*names: str) -> frozenset[Callable]:
    """Every callable that torch offers under a name: function, method, operator, in place."""
    found = set()
    for name in names:
        for form in (name, f"{name}_", f"__{name}__", f"__r{name}__", f"__i{name}__"):
            for namespace in _NAMESPACES:
                function = getattr(namespace, form, None)
                if callable(function):
                    found.add(function)
    return frozenset(found)


def attributes(*names: str) -> frozenset[Callable]:
    """The getters of tensor attributes, as a torch function mode sees them."""
    return frozenset(getattr(torch.Tensor, name).__get__ for name in names)


def _pointwise_names() -> list[str]:
    """Names of torch's operators that are pointwise in all their forms."""
    names = {name for namespace in _NAMESPACES for name in dir(namespace) if name[0] != "_"}
    return [name for name in names if _is_pointwise(getattr(torch.ops.aten, name, None))]


def _is_pointwise(packet: Any) -> bool:
    if not isinstance(packet, torch._ops.OpOverloadPacket):
        return False
    overloads = [getattr(packet, name) for name in packet.overloads()]
    # max and min are pointwise for two tensors, and a reduction with a dimension.
    has_dim = any(arg.name == "dim" for o in overloads for arg in o._schema.arguments)
    return not has_dim and any(torch.Tag.pointwise in o.tags for o in overloads)


# Names of operators of which an output element is a function of the elements in its place.
POINTWISE = frozenset(_pointwise_names())

# Output element = function of the elements at the same place, after broadcasting.
ELEMENTWISE = spellings(
    *("add", "sub", "subtract", "mul", "multiply", "div", "divide", "true_divide", "truediv"),
    *("pow", "float_power", "rsub", "maximum", "minimum", "fmax", "fmin", "where", "lerp"),
    *("addcmul", "addcdiv", "atan2", "arctan2", "hypot", "logaddexp", "logaddexp2", "xlogy"),
    *("xlog1py", "fmod", "remainder", "clamp", "clip", "clamp_min", "clamp_max", "copysign"),
    *("eq", "ne", "lt", "le", "gt", "ge", "isclose", "logical_and", "logical_or"),
    *("logical_xor", "floor_divide", "floordiv", "mod", "copy", "masked_fill", "heaviside"),
    *("broadcast_tensors", "mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss"),
)

# The same of one tensor; with what only changes how a tensor is stored.
ELEMENTWISE_OF_ONE = spellings(
    *POINTWISE,
    *("detach", "clone", "contiguous", "to", "float", "double", "half", "bfloat16", "type"),
    *("long", "int", "bool", "cpu", "cuda", "type_as", "requires_grad", "conj", "neg", "abs"),
    *("relu", "gelu", "silu", "softplus", "logsigmoid", "hardtanh", "relu6", "elu", "selu"),
    *("alias", "nan_to_num", "sigmoid", "tanh"),
) | attributes("data", "real", "imag")

# Elements along one dimension depend on each other.
NORMALISATIONS = spellings("softmax", "log_softmax")

# Their second tensor tells a dtype and a device.
CASTS = spellings("to", "type_as")

# Their second tensor tells a shape.
IN_THE_SHAPE_OF = spellings("expand_as", "view_as", "reshape_as")

# What broadcasts a tensor, and has the derivative one: beside constants, and not subtracted.
SPREADING = spellings("add", "sub", "subtract", "expand", "expand_as", "broadcast_to") - {
    torch.Tensor.__rsub__
}
DIFFERENCES = spellings("sub", "subtract")

# Tensors of constants: in the shape or with the dtype of the first argument, or of sizes that
# tensors tell.
CREATIONS = spellings(
    *("zeros", "ones", "empty"),
    *("zeros_like", "ones_like", "full_like", "empty_like"),
    *("new_zeros", "new_ones", "new_full", "new_empty", "new_tensor", "new"),
)

# Of these, what holds nothing yet: neither a number that is given, nor a copy.
BLANKS = CREATIONS - spellings("full_like", "new_full", "new_tensor", "new")

# Output elements are input elements in other places (or constants).
MOVES = (
    spellings(
        *("transpose", "permute", "movedim", "moveaxis", "swapaxes", "swapdims", "t", "adjoint"),
        *("reshape", "view", "view_as", "reshape_as", "flatten", "unflatten", "ravel"),
        *("unsqueeze", "squeeze", "expand", "expand_as", "broadcast_to"),
        *("repeat", "tile", "repeat_interleave", "select", "narrow", "index_select", "getitem"),
        *("cat", "concat", "concatenate", "stack", "hstack", "vstack", "dstack", "column_stack"),
        *("chunk", "split", "split_with_sizes", "tensor_split", "hsplit", "vsplit", "unbind"),
        *("roll", "flip", "fliplr", "flipud", "rot90", "pixel_shuffle", "pixel_unshuffle"),
        *("channel_shuffle", "diagonal", "take_along_dim", "meshgrid", "pad", "gather"),
    )
    | attributes("T", "mT", "H", "mH")
    | frozenset({torch.Tensor.unfold})
)

# Moves in which tensors beside the first act by their values.
INDEXING = spellings("getitem", "index_select", "take_along_dim", "repeat_interleave", "gather")

GATHERS = spellings("gather", "take_along_dim")

# What tells where data are not zero.
POSITIONS = spellings("nonzero", "argwhere")
# The same, of a condition alone.
CHOICES = spellings("where")

SORTS = spellings("sort")

# Of a batch of sequences, those of each time after those of the time before, and back.
PACKINGS = spellings("_pack_padded_sequence", "_pad_packed_sequence")

# What picks elements at places told by integers or masks, and what writes there: a value in the
# place of another, or sums of both.
PICKS = spellings("getitem", "index_select", "gather")
INDEX_COPIES = spellings("setitem", "index_copy", "index_fill")
SUMS_AT_PLACES = spellings("index_add", "index_put", "index_reduce")
MASKED_COPIES = spellings("masked_scatter")
SCATTERS = spellings("scatter", "scatter_add", "scatter_reduce")
# Of these, what has a dimension before the index.
ALONG_A_DIMENSION = spellings(
    *("index_select", "index_copy", "index_fill", "index_add", "index_reduce", "gather"),
    *("scatter", "scatter_add", "scatter_reduce"),
)
PLACINGS = INDEX_COPIES | SUMS_AT_PLACES | SCATTERS | MASKED_COPIES

PADDING = spellings("pad")

REDUCTIONS = spellings(
    *("sum", "mean", "amax", "amin", "logsumexp", "prod", "any", "all", "std", "var"),
    *("argmax", "argmin", "nansum", "nanmean", "count_nonzero"),
)

# Differentiation inside a log-likelihood would run the cuts' backward too early.
DIFFERENTIATION = frozenset({torch.autograd.grad, torch.autograd.backward, torch.Tensor.backward})

# Draws: of numbers of a size, in the shape of a tensor (with what fills one so), and by numbers in
# tensors or into one.
DRAWS_OF_A_SIZE = frozenset({torch.randn, torch.rand, torch.randint})
DRAWS_LIKE: dict[Callable, Callable] = {
    torch.randn_like: torch.Tensor.normal_,
    torch.rand_like: torch.Tensor.uniform_,
    torch.randint_like: torch.Tensor.random_,
}
DRAWS_OF_CLASSES = spellings("multinomial", "_sample_dirichlet")
DIFFERENTIABLE_DRAWS = spellings("_standard_gamma", "_sample_dirichlet")
DRAWS = (
    DRAWS_OF_A_SIZE
    | DRAWS_LIKE.keys()
    | DIFFERENTIABLE_DRAWS
    | spellings("bernoulli", "normal", "poisson", "multinomial", "binomial")
    | spellings("uniform", "exponential", "log_normal", "geometric", "cauchy", "random")
)

# Functions with a Python body inside which numbers are drawn.
DRAWING_BODIES = frozenset({F.gumbel_softmax})

DROPOUTS = frozenset({F.dropout, torch.dropout})

RANDOM = DRAWS | DRAWING_BODIES | DROPOUTS

# What a tensor says of itself without its values; asked for more often than anything is computed.
METADATA = spellings(
    *("size", "dim", "len", "numel", "nelement", "stride", "is_floating_point", "is_complex"),
    *("is_contiguous", "element_size", "get_device", "ndimension"),
) | attributes("shape", "dtype", "device", "ndim", "layout", "requires_grad", "is_cuda")

_ASKS_FOR_OVERRIDES = (
    "has_torch_function",
    "has_torch_function_unary",
    "has_torch_function_variadic",
)


@functools.cache
def body_of(function: Callable) -> Callable[..., Any] | None:
    """The body of a torch function written in Python, so that the calls inside it are seen.

    Such a function first asks whether somebody overrides it and would come straight back to the
    mode; the copy returned here asks nobody. None for functions without a Python body.
    """
    if not isinstance(function, types.FunctionType):
        return None
    if not any(name in function.__code__.co_names for name in _ASKS_FOR_OVERRIDES):
        return None
    namespace = dict(function.__globals__)
    namespace.update(dict.fromkeys(_ASKS_FOR_OVERRIDES, _nobody_overrides))
    copy = types.FunctionType(
        function.__code__,
        namespace,
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy


def _nobody_overrides(*_: Any) -> bool:
    return False


@functools.cache
def is_in_place(function: Callable) -> bool:
    """Whether a function writes into its first argument, by the name it has."""
    name = getattr(function, "__name__", "")
    return (name.endswith("_") and not name.endswith("__")) or name.startswith("__i")


def out_of_place(function: Callable) -> Callable | None:
    """The function that returns what one that works in place writes; None where there is none."""
    name = getattr(function, "__name__", "")
    name = f"__{name[3:]}" if name.startswith("__i") else name.removesuffix("_")
    return getattr(torch.Tensor, name, None)


def plain(function: Callable) -> Callable:
    """The function of torch's that an ATen operator is, or what is given."""
    if isinstance(function, torch._ops.OpOverload) and function._overloadname == "default":
        function = function.overloadpacket
    if not isinstance(function, torch._ops.OpOverloadPacket):
        return function
    space, _, name = function._qualified_op_name.partition("::")
    for namespace in (torch, torch._C._nn) if space == "aten" else ():
        found = getattr(namespace, name, None)
        if isinstance(found, types.BuiltinFunctionType):
            return found
    return function


def name_of(function: Callable) -> str:
    """A name that users recognise."""
    return torch.overrides.resolve_name(function) or getattr(function, "__name__", repr(function))
