"""A client of the access ledger in plain Python: the shortest complete one.

    pip install -r requirements.txt
    python client.py --server 127.0.0.1:4590 --ledger VKEY --source demo/python --seed-file seed.hex
    python client.py --self-test ../vectors/ledger.json

It enrols a source, records a sealed batch, checks the receipt, repeats the batch, reads the whole
log back and verifies it, and shows what the ledger refuses. `formats.py` holds the byte formats;
this file only moves them over gRPC. To record from your own service, copy `Source`.
"""

import argparse
import os
import sys
import time
from dataclasses import replace
from pathlib import Path

import grpc
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from google.rpc import error_details_pb2, status_pb2

import vectors
from formats import (
    ED25519,
    Batch,
    Checkpoint,
    Invalid,
    LogCheck,
    VerifierKey,
    check_consistency,
    check_receipt,
    check_signature,
    enrolment_message,
    key_id,
    require,
    sha256,
)

# Compiles the .proto files as they are; a service runs `python -m grpc_tools.protoc` once instead.
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "proto"))
event_pb2 = grpc.protos("access_ledger/v1/event.proto")
entry_pb2 = grpc.protos("access_ledger/v1/entry.proto")
recorder_pb2, recorder_grpc = grpc.protos_and_services("access_ledger/v1/recorder.proto")
audit_pb2, audit_grpc = grpc.protos_and_services("access_ledger/v1/audit.proto")

CALL_SECONDS_MAX = 30
# A batch of 4 MiB and its entries fit into one message.
CHANNEL_OPTIONS = [("grpc.max_receive_message_length", 16 << 20)]


# --- Recording ------------------------------------------------------------------------------------


class Source:
    """A service that records: a name, a key, and numbers without gaps.

    A real one keeps its events on disk until their receipt is verified, and repeats the same batch
    until then: the ledger records a repeated batch only once.
    """

    def __init__(
        self, channel: grpc.Channel, ledger: VerifierKey, name: str, key: Ed25519PrivateKey
    ):
        self.recorder = recorder_grpc.RecorderServiceStub(channel)
        self.ledger, self.name, self.key = ledger, name, key
        self.public_key = key.public_key().public_bytes_raw()
        self.next_seq = 1

    def enrol(self) -> int:
        """Registers the source by its own signature; returns the index of the registration.

        Repeating the call is harmless, so a service does this at every start. What the answer
        claims is believed only when the log shows it (`verify_log`).
        """
        roles = [event_pb2.SOURCE_ROLE_RECORD]
        message = enrolment_message(self.ledger.name, self.name, self.public_key, roles, 0)
        request = recorder_pb2.EnrollRequest(
            source=self.name,
            public_key=self.public_key,
            roles=roles,
            enrolment=event_pb2.Enrolment(possession=self.key.sign(message)),
        )
        index = self.recorder.Enroll(request, timeout=CALL_SECONDS_MAX).index
        self.next_seq = self.state().last_seq + 1
        return index

    def state(self):
        request = recorder_pb2.GetSourceStateRequest(source=self.name)
        return self.recorder.GetSourceState(request, timeout=CALL_SECONDS_MAX)

    def seal(self, events: list[bytes]) -> Batch:
        return Batch.seal(self.ledger.name, self.key, self.name, self.next_seq, events)

    def append(self, batch: Batch) -> tuple["entry_pb2.Receipt", Checkpoint]:
        """Records a batch; returns its receipt, verified, and the checkpoint that it leads to."""
        sealed = entry_pb2.SealedBatch(
            source=batch.source,
            first_seq=batch.first_seq,
            events=batch.events,
            key_id=batch.key_id,
            signature=batch.signature,
        )
        request = recorder_pb2.AppendRequest(batch=sealed)
        receipt = self.recorder.Append(request, timeout=CALL_SECONDS_MAX).receipt
        head = check_receipt(
            batch,
            self.ledger,
            receipt.first_index,
            receipt.recorded_at,
            receipt.prev,
            list(receipt.inclusion_path),
            receipt.checkpoint,
        )
        self.next_seq = batch.first_seq + len(batch.events)
        return receipt, head


def access_event(ticket: int) -> bytes:
    """One access, encoded. These bytes are what is hashed: encode once, and keep them."""
    event = event_pb2.Event(
        event_id=os.urandom(16),
        correlation_id=f"ticket-{ticket}",
        tool=event_pb2.Tool(id="support-console", version="4.12.0"),
        actor=event_pb2.Principal(
            id="p-7c1f09",
            kind=event_pb2.PRINCIPAL_KIND_HUMAN,
            entity="Example Pte. Ltd.",
            entity_country="SG",
            office_country="SG",
            physical_country="SG",
            location_evidence=event_pb2.LOCATION_EVIDENCE_DEVICE_ATTESTED,
        ),
        access=event_pb2.Access(
            action=event_pb2.ACTION_READ,
            data=[
                event_pb2.Data(
                    dataset="accounts.profile",
                    subject_jurisdiction="US",
                    boundary=event_pb2.BOUNDARY_PROTECTED,
                    categories=[
                        event_pb2.DATA_CATEGORY_IDENTIFIER,
                        event_pb2.DATA_CATEGORY_CONTACT,
                    ],
                    # The ledger must not learn who the subject is: a keyed hash in a real service.
                    subject_tokens=[sha256(f"subject of {ticket}".encode())],
                    records=1,
                )
            ],
            purpose=event_pb2.PURPOSE_CUSTOMER_SUPPORT,
            justification="The user asks why the account is locked.",
            grant_id="grant-2041",
            outcome=event_pb2.OUTCOME_ALLOWED,
        ),
    )
    event.occurred_at.FromNanoseconds(time.time_ns())
    return event.SerializeToString()


# --- Auditing -------------------------------------------------------------------------------------


class Auditor:
    """Somebody who holds the ledger's verifier key, and believes nothing else."""

    def __init__(self, channel: grpc.Channel, ledger: VerifierKey):
        self.audit = audit_grpc.AuditServiceStub(channel)
        self.ledger = ledger

    def newest_checkpoint(self) -> Checkpoint:
        request = audit_pb2.GetCheckpointRequest()
        answer = self.audit.GetCheckpoint(request, timeout=CALL_SECONDS_MAX)
        return Checkpoint.open(answer.checkpoint, self.ledger)

    def verify_consistency(self, old: Checkpoint, new: Checkpoint) -> None:
        """That the ledger only grew between the two."""
        request = audit_pb2.GetConsistencyProofRequest(old_size=old.size, new_size=new.size)
        answer = self.audit.GetConsistencyProof(request, timeout=CALL_SECONDS_MAX)
        check_consistency(old.size, new.size, old.root, new.root, list(answer.path))

    def verify_log(self, head: Checkpoint) -> tuple["Registry", dict[int, bytes]]:
        """Verifies every entry below `head`; returns the sources and the events.

        Keeps the events in memory for the sake of the demonstration only.
        """
        registry, events = Registry(self.ledger), {}
        log = LogCheck(self.ledger.name, registry.keys)
        request = audit_pb2.ReadEntriesRequest(end_index=head.size, with_events=True)
        for answer in self.audit.ReadEntries(request, timeout=CALL_SECONDS_MAX):
            run = answer.run
            require(run.first_index == log.tree.size, "the run does not follow the one before")
            for entry, event in zip(run.entries, run.events, strict=True):
                index = log.tree.size
                events[index] = event
                if index == 0:
                    registry.begin(event)
                for sealed in log.append(entry, event):
                    registry.apply(sealed.index, sealed.source, events[sealed.index])
        log.finish(head)
        return registry, events


class Registry:
    """Who may record, as the log itself says: no word of the server's is needed.

    Entry 0 names the ledger's own source and the governance sources. Every other source is
    registered by an event: sealed by governance or by an ancestor, or sealed by the ledger upon
    signatures that the event carries. What roles allow, and leaving, are left out here.
    """

    def __init__(self, ledger: VerifierKey):
        self.ledger = ledger
        self.genesis = event_pb2.Genesis()
        self.keys: dict[str, bytes] = {}
        self.registered_at: dict[str, int] = {}

    def begin(self, event: bytes) -> None:
        change = event_pb2.Event.FromString(event).control_change
        require(change.kind == event_pb2.CONTROL_KIND_GENESIS, "entry 0 is not a genesis")
        self.genesis = event_pb2.Genesis.FromString(change.content)
        require(self.genesis.origin == self.ledger.name, "genesis of another ledger")
        vkey = VerifierKey.parse(self.genesis.ledger_vkey)
        require(vkey == self.ledger, "genesis names another ledger key")
        for source in [self.genesis.ledger_source, *self.genesis.governance]:
            self.keys[source.name] = source.public_key
            self.registered_at[source.name] = 0

    def apply(self, index: int, sealer: str, event: bytes) -> None:
        status = event_pb2.Event.FromString(event).source_status
        if status.phase != event_pb2.SOURCE_PHASE_REGISTERED:
            return
        name = status.source
        require(name not in self.keys, f"{name} is registered again at index {index}")
        if sealer == self.genesis.ledger_source.name:
            self.check_enrolment(status)
        elif sealer not in {source.name for source in self.genesis.governance}:
            require(name.startswith(sealer + "/"), f"{sealer} may not register {name}")
        self.keys[name] = status.public_key
        self.registered_at[name] = index

    def check_enrolment(self, status: "event_pb2.SourceStatus") -> None:
        name, enrolment = status.source, status.enrolment
        heartbeat_ns = status.heartbeat_interval.ToNanoseconds()
        message = enrolment_message(
            self.ledger.name, name, status.public_key, list(status.roles), heartbeat_ns
        )
        what = f"the enrolment of {name}"
        check_signature(status.public_key, enrolment.possession, message, what)
        if enrolment.parent:
            require(name.startswith(enrolment.parent + "/"), f"{name} is below another parent")
            parent_key = self.keys.get(enrolment.parent, b"")
            check_signature(parent_key, enrolment.parent_signature, message, what)
        else:
            require(self.genesis.self_enrolment, f"nobody vouched for {name}")


# --- What the ledger refuses ----------------------------------------------------------------------


def refusal(source: Source, batch: Batch) -> tuple[grpc.StatusCode, str, dict[str, str]]:
    """Status code, reason and metadata of a refused batch, from gRPC's rich error model."""
    try:
        source.append(batch)
    except grpc.RpcError as error:
        trailers = dict(error.trailing_metadata())
        status = status_pb2.Status.FromString(trailers.get("grpc-status-details-bin", b""))
        info = error_details_pb2.ErrorInfo()
        for detail in status.details:
            if detail.Is(info.DESCRIPTOR):
                detail.Unpack(info)
        return error.code(), info.reason, dict(info.metadata)
    raise Invalid("the ledger accepted a batch that it must refuse")


def show_refusals(source: Source, recorded: Batch) -> None:
    expected = source.next_seq
    origin, key, name = source.ledger.name, source.key, source.name
    event = access_event(99)

    gap = Batch.seal(origin, key, name, expected + 1, [event])
    code, reason, metadata = refusal(source, gap)
    require(code == grpc.StatusCode.FAILED_PRECONDITION, f"a gap was answered with {code}")
    require(reason == "SEQUENCE_GAP", f"a gap was answered with {reason}")
    require(metadata.get("expected_seq") == str(expected), f"a gap was answered with {metadata}")

    others = [access_event(ticket) for ticket in range(len(recorded.events))]  # new event ids
    other = Batch.seal(origin, key, name, recorded.first_seq, others)
    code, reason, _ = refusal(source, other)
    require(code == grpc.StatusCode.ABORTED, f"a used number was answered with {code}")
    require(reason == "SEQUENCE_REUSED", f"a used number was answered with {reason}")

    good = source.seal([event])
    forged = replace(good, signature=good.signature[:-1] + bytes([good.signature[-1] ^ 1]))
    code, reason, _ = refusal(source, forged)
    require(code == grpc.StatusCode.PERMISSION_DENIED, f"a bad seal was answered with {code}")
    require(reason == "SEAL_INVALID", f"a bad seal was answered with {reason}")

    require(source.state().last_seq == expected - 1, "a refused batch was recorded")


# --- The tour -------------------------------------------------------------------------------------


def tour(server: str, ledger: VerifierKey, name: str, key: Ed25519PrivateKey) -> None:
    with grpc.insecure_channel(server, options=CHANNEL_OPTIONS) as channel:
        source, auditor = Source(channel, ledger, name, key), Auditor(channel, ledger)

        enrolled_at = source.enrol()
        state = source.state()
        require(state.origin == ledger.name, f"the server serves {state.origin!r}")
        require(state.key_id == key_id(name, ED25519, source.public_key), "another key registered")
        print(f"enrolled {name} at index {enrolled_at}")

        batch = source.seal([access_event(ticket) for ticket in range(3)])
        receipt, head = source.append(batch)
        print(f"recorded 3 events from index {receipt.first_index}: receipt holds")

        again, _ = source.append(batch)
        for part in ("first_index", "recorded_at", "prev"):
            same = getattr(again, part) == getattr(receipt, part)
            require(same, f"the repeated batch got another {part}")
        print("repeated the batch: same place")

        newest = auditor.newest_checkpoint()
        registry, events = auditor.verify_log(newest)
        places = range(receipt.first_index, receipt.first_index + len(batch.events))
        require([events.get(place) for place in places] == batch.events, "other events came back")
        place = registry.registered_at.get(name)
        require(place == enrolled_at, f"registered at index {place}, not at {enrolled_at}")
        auditor.verify_consistency(head, newest)
        print(f"verified the whole log: {newest.size} entries, consistent with the receipt")

        show_refusals(source, batch)
        print("refused as it must: a gap, a used number, a bad seal")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--self-test", type=Path, metavar="FILE", help="known answers; no server")
    parser.add_argument("--server", metavar="HOST:PORT")
    parser.add_argument("--ledger", metavar="VKEY", help="the ledger's verifier key")
    parser.add_argument("--source", metavar="NAME", help="the name to record under")
    parser.add_argument("--seed-file", type=Path, help="the source's Ed25519 seed: 32 bytes as hex")
    args = parser.parse_args()
    if args.self_test:
        vectors.run(args.self_test)
        return
    if not (args.server and args.ledger and args.source and args.seed_file):
        parser.error("--server, --ledger, --source and --seed-file belong together")
    key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(args.seed_file.read_text().strip()))
    tour(args.server, VerifierKey.parse(args.ledger), args.source, key)


if __name__ == "__main__":
    try:
        main()
    except Invalid as error:
        sys.exit(f"client.py: the ledger does not verify: {error}")
