"""The byte formats of the access ledger, as proto/FORMATS.md defines them.

Everything that a client in another language has to build or check, and nothing else: hashes, the
tree's proofs, keys, signed notes, checkpoints, seals, entries, receipts, and the walk over a whole
log. It uses the standard library and Ed25519. It shares no code with the ledger, and believes
nothing that the ledger says: whatever fails a check raises `Invalid`.

Integers are big-endian; base64 is the standard alphabet with padding; times are nanoseconds since
the Unix epoch.
"""

import base64
import hashlib
import re
import struct
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

SEAL_COUNT_MAX = 4096
SOURCE_NAME = re.compile(r"[a-z0-9._/:@-]{1,128}", re.ASCII)
ZERO_DIGEST = bytes(32)


class Invalid(Exception):
    """Something does not verify. The message says what."""


def require(condition: bool, message: str) -> None:
    if not condition:
        raise Invalid(message)


# --- Hashes, base64 -------------------------------------------------------------------------------


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def leaf_hash(entry: bytes) -> bytes:
    return sha256(b"\x00" + entry)


def node_hash(left: bytes, right: bytes) -> bytes:
    return sha256(b"\x01" + left + right)


def b64(data: bytes) -> str:
    return base64.standard_b64encode(data).decode("ascii")


def unb64(text: str) -> bytes:
    """Strict: one text for each value, so no other alphabet, no stray bits, no missing padding."""
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError as error:
        raise Invalid(f"not base64: {text!r}") from error
    require(b64(data) == text, f"not canonical base64: {text!r}")
    return data


# --- Tree (RFC 6962, section 2; verification as in RFC 9162, sections 2.1.3.2 and 2.1.4.2) --------


class Tree:
    """A growing tree: keeps only the roots of the complete subtrees, largest first."""

    def __init__(self) -> None:
        self.size = 0
        self.subtrees: list[bytes] = []

    def append(self, leaf: bytes) -> None:
        size = self.size
        while size & 1:  # two subtrees of the same height become one
            leaf = node_hash(self.subtrees.pop(), leaf)
            size >>= 1
        self.subtrees.append(leaf)
        self.size += 1

    def root(self) -> bytes:
        if not self.subtrees:
            return sha256(b"")
        root = self.subtrees[-1]
        for subtree in reversed(self.subtrees[:-1]):
            root = node_hash(subtree, root)
        return root


def check_inclusion(index: int, size: int, leaf: bytes, path: list[bytes], root: bytes) -> None:
    """That `leaf` is number `index` in the tree of `size` leaves with this root."""
    require(index < size, f"index {index} is beyond the tree of size {size}")
    require(all(len(digest) == 32 for digest in path), "digest in a path is not 32 bytes")
    node, last, digest = index, size - 1, leaf
    for sibling in path:
        require(last > 0, "inclusion path is too long")
        if node & 1 or node == last:
            digest = node_hash(sibling, digest)
            while node and not node & 1:  # levels at which the node has no sibling
                node, last = node >> 1, last >> 1
        else:
            digest = node_hash(digest, sibling)
        node, last = node >> 1, last >> 1
    require(last == 0, "inclusion path is too short")
    require(digest == root, f"inclusion path of index {index} leads to another root")


def check_consistency(
    old: int, new: int, old_root: bytes, new_root: bytes, path: list[bytes]
) -> None:
    """That the tree of size `old` is a prefix of the tree of size `new`."""
    require(0 < old <= new, f"no proof can lead from size {old} to {new}")
    require(all(len(digest) == 32 for digest in path), "digest in a path is not 32 bytes")
    if old == new:
        require(not path and old_root == new_root, f"two roots for size {old}")
        return
    if old & (old - 1) == 0:  # a power of two: the old root is itself a node of the new tree
        path = [old_root, *path]
    require(bool(path), "consistency path is too short")
    node, last = old - 1, new - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    old_digest = new_digest = path[0]
    for sibling in path[1:]:
        require(last > 0, "consistency path is too long")
        if node & 1 or node == last:
            old_digest = node_hash(sibling, old_digest)
            new_digest = node_hash(sibling, new_digest)
            while node and not node & 1:
                node, last = node >> 1, last >> 1
        else:
            new_digest = node_hash(new_digest, sibling)
        node, last = node >> 1, last >> 1
    require(last == 0, "consistency path is too short")
    require(old_digest == old_root, f"consistency path leads to another root of size {old}")
    require(new_digest == new_root, f"consistency path leads to another root of size {new}")


# --- Keys, signed notes, checkpoints (FORMATS.md, sections 4 and 5) -------------------------------

ED25519 = 0x01
COSIGNATURE_V1 = 0x04


def key_id(name: str, key_type: int, public_key: bytes) -> bytes:
    return sha256(name.encode() + b"\n" + bytes([key_type]) + public_key)[:4]


def check_signature(public_key: bytes, signature: bytes, message: bytes, what: str) -> None:
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except (InvalidSignature, ValueError) as error:
        raise Invalid(f"signature of {what} does not verify") from error


@dataclass(frozen=True)
class VerifierKey:
    """Public key of a ledger, witness or mirror: `<name>+<key id, hex>+<base64(type || key)>`."""

    name: str
    key_type: int
    public_key: bytes

    @classmethod
    def parse(cls, text: str) -> "VerifierKey":
        name, _, rest = text.partition("+")  # base64 may hold a `+`, a name never
        id_hex, _, encoded = rest.partition("+")
        typed = unb64(encoded)
        require(bool(name) and len(typed) == 33, f"malformed verifier key {text!r}")
        key = cls(name, typed[0], typed[1:])
        require(key.key_type in (ED25519, COSIGNATURE_V1), f"key type {key.key_type} is unknown")
        require(id_hex == key.id().hex(), f"verifier key {text!r} does not match its key id")
        return key

    def id(self) -> bytes:
        return key_id(self.name, self.key_type, self.public_key)


@dataclass(frozen=True)
class Checkpoint:
    """A signed tree head: at this size, the log's tree has this root."""

    origin: str
    size: int
    root: bytes

    @classmethod
    def open(cls, note: bytes, ledger: VerifierKey, *witnesses: VerifierKey) -> "Checkpoint":
        """Reads a checkpoint that the ledger signed and every witness that is named cosigned."""
        text = open_note(note, ledger, *witnesses)
        require(text.count("\n") >= 3, "checkpoint has fewer than three lines")
        origin, size, root = text.split("\n")[:3]  # lines of others may follow
        require(origin == ledger.name, f"checkpoint of {origin!r}, wanted {ledger.name!r}")
        require(re.fullmatch(r"0|[1-9][0-9]{0,19}", size) is not None, f"malformed size {size!r}")
        require(len(unb64(root)) == 32, "root is not 32 bytes")
        return cls(origin, int(size), unb64(root))


def open_note(note: bytes, *keys: VerifierKey) -> str:
    """The text of a note that each of `keys` signed. Signatures by anybody else are ignored."""
    try:
        decoded = note.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Invalid("note is not UTF-8") from error
    text, gap, signatures = decoded.rpartition("\n\n")
    text += "\n"
    require(bool(gap) and signatures.endswith("\n"), "note has no signatures")
    missing = {(key.name, key.id()): key for key in keys}
    known = dict(missing)
    for line in signatures[:-1].split("\n"):
        match = re.fullmatch("\u2014 ([^ +]+) ([^ ]+)", line)
        require(match is not None, f"malformed signature line {line!r}")
        name, blob = match[1], unb64(match[2])
        key = known.get((name, blob[:4]))
        if key is None:
            continue
        if key.key_type == COSIGNATURE_V1:
            (time,) = struct.unpack(">Q", blob[4:12]) if len(blob) == 76 else (0,)
            message, signature = f"cosignature/v1\ntime {time}\n{text}", blob[12:]
        else:
            message, signature = text, blob[4:]
        check_signature(key.public_key, signature, message.encode(), f"note by {name}")
        missing.pop((name, blob[:4]), None)
    require(not missing, f"note lacks the signatures of {[name for name, _ in missing]}")
    return text


# --- Seals and enrolment (FORMATS.md, section 2) --------------------------------------------------


def seal_message(origin: str, source: str, first_seq: int, digests: list[bytes]) -> bytes:
    """What a source signs for a batch: its name, its numbers, and the digests of its events."""
    return (
        "access-ledger/batch/v1\n"
        f"{origin}\n"
        f"{source}\n"
        f"{first_seq} {len(digests)}\n"
        f"{b64(sha256(b''.join(digests)))}\n"
    ).encode()


def enrolment_message(
    origin: str, source: str, public_key: bytes, roles: list[int], heartbeat_ns: int
) -> bytes:
    """What a new source signs with the key that it registers, and its parent with its own."""
    return (
        "access-ledger/enrol/v1\n"
        f"{origin}\n"
        f"{source}\n"
        f"{b64(public_key)}\n"
        f"{','.join(str(role) for role in sorted(set(roles)))}\n"
        f"{heartbeat_ns}\n"
    ).encode()


@dataclass(frozen=True)
class Batch:
    """Events (encoded, kept verbatim) that one source sealed together."""

    source: str
    first_seq: int
    events: list[bytes]
    key_id: bytes
    signature: bytes

    @classmethod
    def seal(
        cls, origin: str, key: Ed25519PrivateKey, source: str, first_seq: int, events: list[bytes]
    ) -> "Batch":
        digests = [sha256(event) for event in events]
        signature = key.sign(seal_message(origin, source, first_seq, digests))
        public_key = key.public_key().public_bytes_raw()
        return cls(source, first_seq, events, key_id(source, ED25519, public_key), signature)


# --- Entries (FORMATS.md, section 2) --------------------------------------------------------------


@dataclass(frozen=True)
class Seal:
    count: int
    key_id: bytes
    signature: bytes


@dataclass(frozen=True)
class Entry:
    """The permanent record of one event, and the leaf data of the tree."""

    index: int
    recorded_at: int
    prev: bytes
    event_digest: bytes
    source_seq: int
    source: str
    seal: Seal | None = None

    FIXED = struct.Struct(">BQQ32s32sQB")  # version .. source_seq, then the name's length
    SEAL = struct.Struct(">4s64s")

    def encode(self) -> bytes:
        name = self.source.encode()
        fixed = self.FIXED.pack(
            1,
            self.index,
            self.recorded_at,
            self.prev,
            self.event_digest,
            self.source_seq,
            len(name),
        )
        if self.seal is None:
            return fixed + name + b"\x00\x00"
        count = struct.pack(">H", self.seal.count)
        return fixed + name + count + self.SEAL.pack(self.seal.key_id, self.seal.signature)

    @classmethod
    def parse(cls, data: bytes) -> "Entry":
        try:
            version, *fields, name_len = cls.FIXED.unpack_from(data)
            name_end = cls.FIXED.size + name_len
            name = data[cls.FIXED.size : name_end].decode("ascii")
            (count,) = struct.unpack_from(">H", data, name_end)
            seal = Seal(count, *cls.SEAL.unpack_from(data, name_end + 2)) if count else None
        except (struct.error, UnicodeDecodeError) as error:
            raise Invalid("entry is cut short or its source is not ASCII") from error
        require(version == 1, f"entry version {version}, known is 1")
        require(SOURCE_NAME.fullmatch(name) is not None, f"malformed source name {name!r}")
        require(count <= SEAL_COUNT_MAX, f"seal over {count} entries")
        entry = cls(*fields, source=name, seal=seal)
        require(entry.source_seq > 0, "source number 0")
        require(entry.encode() == data, "bytes after the end of the entry")
        return entry


# --- Receipts (FORMATS.md, section 6) -------------------------------------------------------------


def check_receipt(
    batch: Batch,
    ledger: VerifierKey,
    first_index: int,
    recorded_at: int,
    prev: bytes,
    inclusion_path: list[bytes],
    checkpoint: bytes,
) -> Checkpoint:
    """That the whole batch is in the ledger; returns the checkpoint that shows it.

    Rebuilds the batch's entries and checks the last against the root. Each entry holds the hash of
    the one before, so the proof of the last covers them all.
    """
    require(len(prev) == 32, "prev is not 32 bytes")
    last = len(batch.events) - 1
    for offset, event in enumerate(batch.events):
        seal = Seal(last + 1, batch.key_id, batch.signature) if offset == last else None
        entry = Entry(
            index=first_index + offset,
            recorded_at=recorded_at,
            prev=prev,
            event_digest=sha256(event),
            source_seq=batch.first_seq + offset,
            source=batch.source,
            seal=seal,
        )
        prev = leaf_hash(entry.encode())
    head = Checkpoint.open(checkpoint, ledger)
    check_inclusion(first_index + last, head.size, prev, inclusion_path, head.root)
    return head


# --- A whole log ----------------------------------------------------------------------------------


@dataclass
class LogCheck:
    """Walks a log from entry 0 and checks all that the bytes alone can show.

    Chain, time, event digests, the numbers of every source, and all seals, with the keys (name ->
    public key) that the caller adds as the log registers them. A batch by a source without a key
    fails.
    """

    origin: str
    keys: dict[str, bytes]
    tree: Tree = field(default_factory=Tree)
    erased: list[int] = field(default_factory=list)
    last_leaf: bytes = ZERO_DIGEST
    last_time: int = 0
    last_seqs: dict[str, int] = field(default_factory=dict)
    unsealed: list[Entry] = field(default_factory=list)

    def append(self, data: bytes, event: bytes) -> list[Entry]:
        """Checks the next entry and its event, which is empty if it was erased.

        Returns the entries of the batch that it closes, if it closes one: their seal holds.
        """
        entry = Entry.parse(data)
        at = f"entry {self.tree.size}"
        require(entry.index == self.tree.size, f"{at} says that it is entry {entry.index}")
        require(entry.prev == self.last_leaf, f"{at} does not follow the entry before")
        require(entry.recorded_at >= self.last_time, f"{at} is older than the entry before")
        expected_seq = self.last_seqs.get(entry.source, 0) + 1
        require(entry.source_seq == expected_seq, f"{at} has number {entry.source_seq}")
        if event:
            require(sha256(event) == entry.event_digest, f"event of {at} was altered")
        else:
            self.erased.append(entry.index)
        if self.unsealed:
            first = self.unsealed[0]
            same = (entry.source, entry.recorded_at) == (first.source, first.recorded_at)
            require(same, f"{at} breaks into the batch that begins at entry {first.index}")
        self.unsealed.append(entry)
        self.last_leaf, self.last_time = leaf_hash(data), entry.recorded_at
        self.last_seqs[entry.source] = entry.source_seq
        self.tree.append(self.last_leaf)
        if not entry.seal:
            return []
        self.check_seal(entry.source, entry.seal)
        sealed, self.unsealed = self.unsealed, []
        return sealed

    def check_seal(self, source: str, seal: Seal) -> None:
        what = f"the batch that ends at entry {self.unsealed[-1].index}"
        require(seal.count == len(self.unsealed), f"seal of {what} covers {seal.count} entries")
        public_key = self.keys.get(source)
        require(public_key is not None, f"{source} sealed {what} without being registered")
        require(seal.key_id == key_id(source, ED25519, public_key), f"another key sealed {what}")
        digests = [entry.event_digest for entry in self.unsealed]
        message = seal_message(self.origin, source, self.unsealed[0].source_seq, digests)
        check_signature(public_key, seal.signature, message, what)

    def finish(self, head: Checkpoint) -> None:
        require(not self.unsealed, "the log ends inside a batch")
        require(self.tree.size == head.size, f"{self.tree.size} entries, wanted {head.size}")
        require(self.tree.root() == head.root, f"the entries have another root than {head}")
