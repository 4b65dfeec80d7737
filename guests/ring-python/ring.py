"""A guest of the ring benchmark: watches one namespace and passes each new nonce on to the next. The rules are in ../ring/README.md."""

import json
import os

import wit_world
from api import send
from componentize_py_types import Err
from wit_world.imports.wasm_operator_controller_types import (
    Controller, Description, Failure_Retryable, Mapping_Nothing, Mapping_Object, Outcome_Done, Parts, PermissionRule,
    Representation, Resource, Retry, Watch,
)

GROUP = "ring.wasm-operator.dev"
ORIGIN = f"{GROUP}/origin"
PAGE = 4096  # bytes
ballast = None  # held as long as the instance lives


class WitWorld(wit_world.WitWorld):
    def describe(self):
        if not os.environ.get("IN_NAMESPACE") or not os.environ.get("OUT_NAMESPACE"):
            raise Err("the ring guest needs the environment variables `IN_NAMESPACE` and `OUT_NAMESPACE`")
        size = os.environ.get("HEAP_MEM_SIZE", "0")
        if not size.isdecimal():
            raise Err(f"`HEAP_MEM_SIZE` must be a number of bytes, not `{size}`")
        source, target = os.environ["IN_NAMESPACE"], os.environ["OUT_NAMESPACE"]
        kind = Resource(GROUP, "v1", "TestResource", "testresources")
        primary = Watch(kind, [source], "", "", Representation.FULL, Mapping_Object(), Parts.GENERATION, [])
        # So that the target is read from the host's cache.
        cached = Watch(kind, [target], "", "", Representation.FULL, Mapping_Nothing(), Parts(0), [])
        reads = ["get", "list", "watch"]
        return Description(
            controllers=[Controller("ring", primary, [cached])],
            permissions=[
                PermissionRule([GROUP], ["testresources"], reads, [], [source]),
                PermissionRule([GROUP], ["testresources"], reads + ["create", "update"], [], [target]),
            ],
        )

    def reconcile(self, request):
        global ballast
        ballast = ballast or allocate(int(os.environ.get("HEAP_MEM_SIZE", "0")))
        if request.content is not None:
            pass_on(json.loads(request.content), os.environ["OUT_NAMESPACE"])
        return Outcome_Done()


def pass_on(seen, namespace):
    name, nonce = seen["metadata"]["name"], seen["spec"]["nonce"]
    origin = seen["metadata"].get("annotations", {}).get(ORIGIN, "")
    if not origin.endswith(f"/{nonce}"):
        origin = f"{seen['metadata']['namespace']}/{nonce}"
    if origin == f"{namespace}/{nonce}":
        return  # the lap is over

    objects = f"/apis/{GROUP}/v1/namespaces/{namespace}/testresources"
    try:
        status, target = send("GET", f"{objects}/{name}?resourceVersion=0")
        if status == 404:
            target = {"apiVersion": f"{GROUP}/v1", "kind": "TestResource", "metadata": {"name": name, "namespace": namespace}}
            update = ("POST", objects)
        elif status == 200:
            there = target["metadata"].setdefault("annotations", {}).get(ORIGIN)
            if target["spec"]["nonce"] > nonce or (target["spec"] == seen["spec"] and there == origin):
                return  # overtaken, or there already
            # An update carries the version that was read: whoever wrote in between wins with a 409, and we look again.
            update = ("PUT", f"{objects}/{name}")
        else:
            raise OSError(target["message"])
        target["metadata"].setdefault("annotations", {})[ORIGIN] = origin
        target["spec"] = seen["spec"]
        status, answer = send(*update, target)
        if status not in (200, 201):
            raise OSError(answer["message"])
    except OSError as error:
        # Tried again with the host's backoff.
        raise Err(Failure_Retryable(Retry(f"cannot pass nonce {nonce} on to namespace `{namespace}`: {error}", None)))


def allocate(size):
    memory = bytearray(size)
    memory[::PAGE] = bytes(page % 255 + 1 for page in range(len(range(0, size, PAGE))))
    return memory
