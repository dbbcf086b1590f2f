"""EC2 and STS in front of moto: what AWS does and the emulator doesn't.

The rules that it adds, each from AWS's own guides:

1. One ClientToken makes one set of instances (or one volume); a repeat with the same parameters tells the same ones in
   their present state, also after they ended; with others it is IdempotentParameterMismatch. Zone and subnet belong to
   the token's scope: the same token in another zone makes another machine (EC2 guide, "Ensuring idempotency").
2. DescribeInstances knows the filter `client-token`.
3. Lists come in pages of at most MaxResults and at most `page_size`, with a NextToken.
4. A new instance may be unknown to reads for a while (`lag_seconds`): InvalidInstanceID.NotFound by id, absent from
   lists. Lists may show an older moment (`frozen`).
5. Only known access keys are let in: AuthFailure else.
6. A request that isn't in the service's model is refused: UnknownParameter.
7. Spot prices differ by type and zone.
8. An instance that was asked to end may take a while for it (`ending_seconds`).
9. EC2 may accept a request and end the instance for want of room: its state reason tells (`doom`).
10. Start, stop, reboot and a change of type need an instance that hasn't ended, and a type that there is; a start sets
    the launch time anew.
11. A second TerminateInstances succeeds like the first, also for an instance with network interfaces of its own.
12. RunInstances needs an image of the architecture of the type: InvalidParameterValue else.
13. AssumeRoleWithWebIdentity isn't signed, and takes known tokens only: InvalidIdentityToken else.
"""

from __future__ import annotations

import asyncio
import datetime
import hashlib
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode
from xml.etree import ElementTree as Xml

from cloudmesh.testing.proxy.core import Answer, Call, Upstream
from cloudmesh.testing.proxy.query import UnknownParameter, decode, parse_form

_XML = {"Content-Type": "text/xml;charset=UTF-8"}
_CREDENTIAL = re.compile(r"Credential=([^/]+)/\d+/([^/]+)/([^/]+)/")
_LISTS = {
    "DescribeInstances": "reservationSet",
    "DescribeInstanceTypes": "instanceTypeSet",
    "DescribeInstanceTypeOfferings": "instanceTypeOfferingSet",
    "DescribeSpotPriceHistory": "spotPriceHistorySet",
    "DescribeImages": "imagesSet",
    "DescribeVolumes": "volumeSet",
}
_TERMINATED = (
    b'<TerminateInstancesResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/"><instancesSet/>'
    b"</TerminateInstancesResponse>"
)
STS_VERSION = "2011-06-15"
UNSIGNED = frozenset({"AssumeRoleWithWebIdentity"})
TOKEN_OPERATIONS = frozenset({"RunInstances", "CreateVolume"})


@dataclass(slots=True)
class _Kept:
    fingerprint: str
    answer: Answer
    ids: tuple[str, ...]


@dataclass
class AwsDialect:
    """State and knobs of the mended emulator.

    Args:
        access_keys: Key ids that are let in, empty for all.
        page_size: Size of pages where the client asks for none.
        lag_seconds: How long a new instance stays unseen.
        blind_finds: Whether a look-up by client token is as late as a list.
        ending_seconds: How long a terminated instance is shutting down.
        repeats: Each page but the first begins with the last item of the one before.
        ignore_filters: Answer lists as if no filter was sent, as some emulators do.
        web_tokens: Tokens of workloads that are believed, empty for all.
    """

    access_keys: frozenset[str] = frozenset()
    page_size: int = 1000
    lag_seconds: float = 0.0
    blind_finds: bool = True
    ending_seconds: float = 0.0
    repeats: bool = False
    ignore_filters: bool = False
    web_tokens: frozenset[str] = frozenset()
    tokens: dict[tuple[str, str, str, str], _Kept] = field(default_factory=dict)
    young: dict[str, float] = field(default_factory=dict)
    """Moment from which an instance is seen."""
    ending: dict[str, float] = field(default_factory=dict)
    """Moment at which an instance has ended."""
    reasons: dict[str, str] = field(default_factory=dict)
    """State reason of instances that ended by themselves."""
    images: dict[str, str] = field(default_factory=dict)
    """Images of instances where they aren't those of the emulator."""
    launched: dict[str, str] = field(default_factory=dict)
    """Launch times of instances that were started again."""
    frozen: dict[str, tuple[str, str]] | None = None
    """States that lists show while they are stale, by instance."""
    _locks: dict[tuple[str, str, str, str], asyncio.Lock] = field(default_factory=dict)
    doom: str = ""
    """Reason for which new instances end at once, empty while there is room."""
    invalid: list[str] = field(default_factory=list)
    """Requests that the service's model doesn't allow."""

    def read(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> Call:
        """Names the operation and decodes its parameters."""
        form = parse_form(body)
        service = "sts" if form.get("Version") == STS_VERSION else self._service(headers)
        try:
            parameters = decode(service, form)
        except UnknownParameter as error:
            self.invalid.append(str(error))
            return Call("Invalid", method, target, {"message": str(error)}, headers, body)
        return Call(form["Action"], method, target, parameters, headers, body)

    def error(self, call: Call, status: int, code: str, message: str) -> Answer:
        """EC2's form of an error, which botocore takes for STS too."""
        root = Xml.Element("Response")
        entry = Xml.SubElement(Xml.SubElement(root, "Errors"), "Error")
        Xml.SubElement(entry, "Code").text = code
        Xml.SubElement(entry, "Message").text = message
        if call.operation in UNSIGNED or self._service(call.headers) == "sts":
            root = Xml.Element("ErrorResponse")
            entry = Xml.SubElement(root, "Error")
            Xml.SubElement(entry, "Type").text = "Sender" if status < 500 else "Receiver"
            Xml.SubElement(entry, "Code").text = code
            Xml.SubElement(entry, "Message").text = message
        Xml.SubElement(root, "RequestID").text = "00000000-0000-0000-0000-000000000000"
        return Answer(status, Xml.tostring(root), _XML)

    async def serve(self, call: Call, upstream: Upstream) -> Answer:
        """Answers a call."""
        key = self._credential(call.headers)[0]
        if call.operation in UNSIGNED:
            if self.web_tokens and call.parameters["WebIdentityToken"] not in self.web_tokens:
                return self.error(call, 400, "InvalidIdentityToken", "Couldn't verify the token's signature")
            return await upstream(call)
        if self.access_keys and key not in self.access_keys:
            message = "AWS was not able to validate the provided access credentials"
            return self.error(call, 401, "AuthFailure", message)
        if call.operation == "Invalid":
            return self.error(call, 400, "UnknownParameter", str(call.parameters["message"]))
        if call.operation == "RunInstances" and (refused := await self._mismatch(call, upstream)) is not None:
            return refused
        if call.operation in TOKEN_OPERATIONS and call.parameters.get("ClientToken"):
            return await self._once(call, upstream)
        if call.operation in _LISTS:
            return await self._list(call, upstream)
        if (refused := await self._unknown(call, upstream)) is not None:
            return refused
        if call.operation == "TerminateInstances" and self.ending_seconds:
            now = time.monotonic()
            for instance in call.parameters.get("InstanceIds") or ():
                self.ending.setdefault(instance, now + self.ending_seconds)
        answer = await upstream(call)
        if call.operation == "TerminateInstances" and b"InvalidNetworkInterfaceID.NotFound" in answer.body:
            return Answer(200, _TERMINATED, _XML)
        if call.operation == "RunInstances":
            await self._made(call, answer, upstream)
        if call.operation == "StartInstances":
            moment = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
            self.launched |= dict.fromkeys(call.parameters["InstanceIds"], moment)
        return answer

    async def _unknown(self, call: Call, upstream: Upstream) -> Answer | None:
        """The refusal of a call about an instance or a type that there isn't; the emulator takes some of them."""
        if call.operation in ("StartInstances", "StopInstances", "RebootInstances"):
            ids = tuple(call.parameters["InstanceIds"])
            there = await upstream(_internal(call, "DescribeInstances", ids))
            if there.status != 200:
                return there
            ended = [i for i, (_, name) in (await self._states(call, ids, upstream)).items() if name == "terminated"]
            message = f"The instance {', '.join(ended)} is not in a state from which it can be changed"
            return self.error(call, 400, "IncorrectInstanceState", message) if ended else None
        if call.operation == "ModifyInstanceAttribute" and (type_ := call.parameters.get("InstanceType")):
            known = await upstream(_internal(call, "DescribeInstanceTypes", (type_["Value"],), "InstanceType"))
            return known if known.status != 200 else None
        return None

    async def _mismatch(self, call: Call, upstream: Upstream) -> Answer | None:
        """The refusal of an image that the type can't run; the emulator takes any."""
        type_, image = str(call.parameters.get("InstanceType") or ""), str(call.parameters.get("ImageId") or "")
        found = []
        for operation, thing, name, tag in (
            ("DescribeInstanceTypes", type_, "InstanceType", "supportedArchitectures"),
            ("DescribeImages", image, "ImageId", "architecture"),
        ):
            if not thing:
                return None  # a launch template has it, or the emulator refuses
            answer = await upstream(_internal(call, operation, (thing,), name))
            if answer.status != 200:
                return answer
            root = _parse(answer.body)
            told = list(root.iter(_space(root) + tag))
            found.append([leaf.text or "" for element in told for leaf in (list(element) or [element])])
        types, images = found
        if not types or not images or images[0] in types:
            return None
        message = (
            f"The architecture '{types[-1]}' of the specified instance type does not match the architecture "
            f"'{images[0]}' of the specified AMI. Specify an instance type and an AMI that have matching "
            "architectures, and try again."
        )
        return self.error(call, 400, "InvalidParameterValue", message)

    # -- create once -------------------------------------------------------------------------------------------------

    async def _once(self, call: Call, upstream: Upstream) -> Answer:
        parameters = dict(call.parameters)
        placement = parameters.get("Placement") or {}
        place = str(
            parameters.get("SubnetId") or parameters.get("AvailabilityZone") or placement.get("AvailabilityZone")
        )
        scope = (call.operation, self._credential(call.headers)[1], place, str(parameters.pop("ClientToken")))
        async with self._locks.setdefault(scope, asyncio.Lock()):
            return await self._once_locked(call, scope, parameters, upstream)

    async def _once_locked(
        self, call: Call, scope: tuple[str, str, str, str], parameters: Mapping[str, Any], upstream: Upstream
    ) -> Answer:
        fingerprint = hashlib.sha256(repr(sorted(parameters.items())).encode()).hexdigest()
        kept = self.tokens.get(scope)
        if kept is None:
            answer = await upstream(call)
            if answer.status == 200:
                ids = await self._made(call, answer, upstream) if call.operation == "RunInstances" else ()
                self.tokens[scope] = _Kept(fingerprint, answer, ids)
            return answer
        if kept.fingerprint != fingerprint:
            message = "Arguments on this idempotent request are inconsistent with arguments used in previous request(s)"
            return self.error(call, 400, "IdempotentParameterMismatch", message)
        return await self._present(call, kept, upstream)

    async def _present(self, call: Call, kept: _Kept, upstream: Upstream) -> Answer:
        """The first answer again, with the states of now."""
        if not kept.ids:
            return kept.answer
        states = await self._states(call, kept.ids, upstream)
        root = _parse(kept.answer.body)
        space = _space(root)
        for item in root.iter(f"{space}item"):
            instance = item.find(f"{space}instanceId")
            state = item.find(f"{space}instanceState")
            if instance is not None and state is not None:
                _set_state(item, space, *states.get(instance.text or "", ("48", "terminated")))
        return Answer(200, _text(root), kept.answer.headers)

    async def _states(self, call: Call, ids: tuple[str, ...], upstream: Upstream) -> dict[str, tuple[str, str]]:
        answer = await upstream(_internal(call, "DescribeInstances", ids))
        found: dict[str, tuple[str, str]] = {}
        if answer.status != 200:
            return found
        root = _parse(answer.body)
        space = _space(root)
        for item in root.iter(f"{space}item"):
            instance, state = item.find(f"{space}instanceId"), item.find(f"{space}instanceState")
            if instance is not None and state is not None:
                found[instance.text or ""] = (state.findtext(f"{space}code", ""), state.findtext(f"{space}name", ""))
        return found

    async def _made(self, call: Call, answer: Answer, upstream: Upstream) -> tuple[str, ...]:
        if answer.status != 200:
            return ()
        root = _parse(answer.body)
        ids = tuple(element.text or "" for element in root.iter(f"{_space(root)}instanceId"))
        if self.lag_seconds:
            self.young |= dict.fromkeys(ids, time.monotonic() + self.lag_seconds)
        if self.doom:
            self.reasons |= dict.fromkeys(ids, self.doom)
            await upstream(_internal(call, "TerminateInstances", ids))
        return ids

    # -- lists -------------------------------------------------------------------------------------------------------

    async def _list(self, call: Call, upstream: Upstream) -> Answer:
        asked = set(call.parameters.get("InstanceIds") or ())
        tokens, body = self._without_token_filter(call)
        late = call.operation == "DescribeInstances" and (tokens is None or self.blind_finds)
        hidden = self._hidden() if late else set()
        if missing := asked & hidden:
            message = f"The instance ID '{min(missing)}' does not exist"
            return self.error(call, 400, "InvalidInstanceID.NotFound", message)
        answer = await upstream(Call(call.operation, call.method, call.target, call.parameters, call.headers, body))
        if answer.status != 200:
            return answer
        root = _parse(answer.body)
        space = _space(root)
        if call.operation == "DescribeInstances":
            self._mend_instances(root, space, hidden, tokens, self.frozen if late else None)
        if call.operation == "DescribeSpotPriceHistory":
            _spot_prices(root, space)
        return Answer(200, _text(self._page(root, space, call)), answer.headers)

    def _hidden(self) -> set[str]:
        now = time.monotonic()
        return {instance for instance, seen_from in self.young.items() if now < seen_from}

    def _mend_instances(
        self,
        root: Xml.Element,
        space: str,
        hidden: set[str],
        tokens: set[str] | None,
        frozen: Mapping[str, tuple[str, str]] | None,
    ) -> None:
        now = time.monotonic()
        holder = root.find(f"{space}reservationSet")
        for reservation in list(holder if holder is not None else ()):
            instances = reservation.find(f"{space}instancesSet")
            if instances is None or holder is None:
                continue
            for item in list(instances):
                name = item.findtext(f"{space}instanceId", "")
                strange = tokens is not None and item.findtext(f"{space}clientToken", "") not in tokens
                if name in hidden or strange or (frozen is not None and name not in frozen):
                    instances.remove(item)
                    continue
                if frozen is not None:
                    _set_state(item, space, *frozen[name])
                elif now < self.ending.get(name, 0.0):
                    _set_state(item, space, "32", "shutting-down")
                if name in self.reasons:
                    _set_reason(item, space, self.reasons[name])
                if name in self.launched and (time_ := item.find(f"{space}launchTime")) is not None:
                    time_.text = self.launched[name]
                if name in self.images and (image := item.find(f"{space}imageId")) is not None:
                    image.text = self.images[name]
            if not len(instances):
                holder.remove(reservation)

    def _without_token_filter(self, call: Call) -> tuple[set[str] | None, bytes]:
        """The values of the filter `client-token`, and the body that the emulator can serve."""
        form = parse_form(call.body)
        values: set[str] | None = None
        numbers = {match[1] for key in form if (match := re.fullmatch(r"Filter\.(\d+)\.Name", key))}
        kept: dict[str, str] = {k: v for k, v in form.items() if not re.match(r"(Filter\.|MaxResults$|NextToken$)", k)}
        position = 0
        for number in sorted(numbers, key=int):
            given = {k: v for k, v in form.items() if k.startswith(f"Filter.{number}.Value")}
            if form[f"Filter.{number}.Name"] == "client-token":
                values = set(given.values())
            elif not self.ignore_filters:
                position += 1
                kept[f"Filter.{position}.Name"] = form[f"Filter.{number}.Name"]
                kept |= {f"Filter.{position}.Value.{n}": v for n, v in _numbered(given.values())}
        if self.ignore_filters:
            values = None
        return values, _form(kept)

    def _page(self, root: Xml.Element, space: str, call: Call) -> Xml.Element:
        holder = root.find(space + _LISTS[call.operation])
        if holder is None or call.parameters.get("InstanceIds"):
            return root
        items = list(holder)
        size = min(int(call.parameters.get("MaxResults") or self.page_size), self.page_size)
        begin = int(str(call.parameters.get("NextToken") or "p0")[1:])
        for item in items:
            holder.remove(item)
        for item in items[max(0, begin - 1) if self.repeats else begin : begin + size]:
            holder.append(item)
        token = root.find(f"{space}nextToken")
        if token is not None:
            root.remove(token)
        if begin + size < len(items):
            Xml.SubElement(root, f"{space}nextToken").text = f"p{begin + size}"
        return root

    # -- small parts -------------------------------------------------------------------------------------------------

    @staticmethod
    def _credential(headers: Mapping[str, str]) -> tuple[str, str, str]:
        """Key id, region and service out of the signature."""
        match = _CREDENTIAL.search(headers.get("Authorization", ""))
        return (match[1], match[2], match[3]) if match else ("", "", "ec2")

    def _service(self, headers: Mapping[str, str]) -> str:
        return self._credential(headers)[2]


def _numbered(values: Any) -> list[tuple[int, str]]:
    return list(enumerate(values, 1))


def _form(values: Mapping[str, str]) -> bytes:
    return urlencode(values).encode()


def _parse(body: bytes) -> Xml.Element:
    return Xml.fromstring(body)  # noqa: S314 - the emulator's own answer


def _space(root: Xml.Element) -> str:
    """The XML namespace as ElementTree writes it in front of names."""
    match = re.match(r"\{.*\}", root.tag)
    return match[0] if match else ""


def _text(root: Xml.Element) -> bytes:
    if space := _space(root):
        Xml.register_namespace("", space[1:-1])
    text: bytes = Xml.tostring(root, xml_declaration=True, encoding="utf-8")
    return text


def _internal(call: Call, operation: str, ids: tuple[str, ...], name: str = "InstanceId") -> Call:
    """A call of the proxy's own, with the signature of the one that it serves."""
    form = {"Action": operation, "Version": "2016-11-15"} | {f"{name}.{n}": i for n, i in _numbered(ids)}
    return Call(operation, call.method, call.target, {}, call.headers, _form(form))


def _set_state(item: Xml.Element, space: str, code: str, name: str) -> None:
    state = item.find(f"{space}instanceState")
    for tag, value in (("code", code), ("name", name)):
        if state is not None and (element := state.find(space + tag)) is not None:
            element.text = value


def _set_reason(item: Xml.Element, space: str, code: str) -> None:
    held = item.find(f"{space}stateReason")
    reason = held if held is not None else Xml.SubElement(item, f"{space}stateReason")
    for child in list(reason):
        reason.remove(child)
    Xml.SubElement(reason, f"{space}code").text = code
    Xml.SubElement(reason, f"{space}message").text = f"{code}: told by the cloud"


def _spot_prices(root: Xml.Element, space: str) -> None:
    for item in root.iter(f"{space}item"):
        price = item.find(f"{space}spotPrice")
        seed = item.findtext(f"{space}instanceType", "") + item.findtext(f"{space}availabilityZone", "")
        if price is not None:
            number = int.from_bytes(hashlib.sha256(seed.encode()).digest()[:2], "big")
            price.text = f"0.{1000 + number % 9000:06d}"
