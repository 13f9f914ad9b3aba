"""A device that is none: tensors that say they are on `meta`, keep their values on the CPU, refuse what a GPU refuses.

What runs on it mixes no devices, reads no values behind PyTorch's back, and finds what the CPU finds, to the last bit.
It cannot say whether a kernel exists on a GPU, how fast it is, or how it rounds."""
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

META, CPU = torch.device("meta"), torch.device("cpu")
aten = torch.ops.aten
# may take tensors of both: copies, and elements of a tensor by indices on the CPU
BOTH = {aten.copy_, aten._to_copy, aten.index, aten.index_put_, aten.index_put, aten._index_put_impl_}


class Elsewhere(torch.Tensor):
    @staticmethod
    def __new__(cls, elem):
        return torch.Tensor._make_wrapper_subclass(cls, elem.shape, strides=elem.stride(), dtype=elem.dtype,
                                                   storage_offset=elem.storage_offset(), device=META)

    def __init__(self, elem): self.elem = elem

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None): return dispatch(func, args, kwargs or {})

    def tolist(self): return self.elem.tolist()  # a GPU gives it, after a wait

    def __repr__(self): return f"Elsewhere({self.elem})"


def dispatch(func, args, kwargs):
    "Compute on the CPU. RuntimeError for tensors of two devices, where a GPU would raise it."
    leaves = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, torch.Tensor)]
    there = [x for x in leaves if isinstance(x, Elsewhere)]
    here = [x for x in leaves if not isinstance(x, Elsewhere) and x.ndim]
    packet = func.overloadpacket
    if there and here and (packet not in BOTH or (packet is not aten.copy_ and not isinstance(args[0], Elsewhere))):
        raise RuntimeError(f"{func}: expected all tensors on one device")
    asked = kwargs.get("device")
    if asked is not None: kwargs = kwargs | {"device": CPU}
    goes_there = there if asked is None else torch.device(asked).type == "meta"
    if packet is aten.copy_: goes_there = isinstance(args[0], Elsewhere)
    known = {id(x.elem): x for x in there}
    plain = lambda x: x.elem if isinstance(x, Elsewhere) else x
    out = func(*tree_map(plain, args), **tree_map(plain, kwargs))
    if packet is aten._to_copy and asked is not None and any(out is x.elem for x in there): out = out.clone()
    wrap = (lambda x: (known[id(x)] if id(x) in known else Elsewhere(x)) if isinstance(x, torch.Tensor) else x)
    return tree_map(wrap, out) if goes_there else out


def _indices(places):
    "Lists among indices as tensors: of a list, too, `meta` keeps no values."
    if isinstance(places, tuple): return tuple(map(_indices, places))
    return torch.tensor(places) if isinstance(places, list) else places


class Values(TorchFunctionMode):
    "What PyTorch makes on `meta` out of Python's numbers has no values: it is made on the CPU and moved."
    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is torch.Tensor.__getitem__: args = (args[0], _indices(args[1]))
        if func not in (torch.tensor, torch.as_tensor) or kwargs.get("device") is None: return func(*args, **kwargs)
        device = kwargs.pop("device")
        return func(*args, **kwargs).to(device)


class Device(TorchDispatchMode):
    "Inside, `device='meta'` is a device with values."
    def __enter__(self):
        self.values = Values()
        self.values.__enter__()
        return super().__enter__()

    def __exit__(self, *error):
        super().__exit__(*error)
        self.values.__exit__(*error)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None): return dispatch(func, args, kwargs or {})


def back(x):
    "Values of a result, on the CPU."
    return tree_map(lambda v: v.elem.clone() if isinstance(v, Elsewhere) else v, x)
