"""Checks `formats.py` against known answers made by another implementation of FORMATS.md."""

import json
import re
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from formats import (
    Batch,
    Checkpoint,
    Entry,
    Invalid,
    LogCheck,
    VerifierKey,
    check_consistency,
    check_inclusion,
    check_receipt,
    leaf_hash,
    require,
    seal_message,
    sha256,
    unb64,
)


def run(path: Path) -> None:
    """Raises `Invalid` at the first answer that differs."""
    vectors = json.loads(path.read_text())
    ledger = VerifierKey.parse(vectors["ledger_vkey"])
    events = [bytes.fromhex(event) for event in vectors["events_hex"]]
    entries = [bytes.fromhex(entry) for entry in vectors["entries_hex"]]
    leaves = [leaf_hash(entry) for entry in entries]
    require([leaf.hex() for leaf in leaves] == vectors["leaf_hashes_hex"], "leaf hashes differ")

    seeds = {source["name"]: bytes.fromhex(source["seed_hex"]) for source in vectors["sources"]}
    keys = {name: Ed25519PrivateKey.from_private_bytes(seed) for name, seed in seeds.items()}
    batches = check_seals(vectors, keys, events)
    roots = check_log(vectors, keys, entries, events)

    head = Checkpoint.open(vectors["checkpoint"].encode(), ledger)
    require((head.size, head.root) == (len(entries), roots[len(entries)]), "checkpoint differs")
    check_cosignatures(vectors, ledger)
    check_proofs(vectors, leaves, roots)
    check_tlog_proofs(vectors, ledger)
    check_receipts(vectors, ledger, batches, leaves)
    check_refusals(vectors, ledger, leaves, roots)
    print(f"{path}: {len(entries)} entries, {len(batches)} batches and all proofs match")


def check_seals(vectors: dict, keys: dict, events: list[bytes]) -> list[Batch]:
    """Seals each batch anew: Ed25519 is deterministic, so the signature must be the same."""
    batches = []
    for known in vectors["batches"]:
        first, source = known["first_index"], known["source"]
        own = events[first : first + known["count"]]
        digests = [sha256(event) for event in own]
        message = seal_message(vectors["origin"], source, known["first_seq"], digests)
        require(message.decode() == known["seal_message"], f"seal message at {first} differs")
        batch = Batch.seal(vectors["origin"], keys[source], source, known["first_seq"], own)
        require(batch.signature.hex() == known["signature_hex"], f"signature at {first} differs")
        batches.append(batch)
    return batches


def check_log(vectors: dict, keys: dict, entries: list[bytes], events: list[bytes]) -> dict:
    """Walks the whole log; returns the root of every size."""
    public_keys = {name: key.public_key().public_bytes_raw() for name, key in keys.items()}
    log = LogCheck(vectors["origin"], public_keys)
    roots = {0: log.tree.root()}
    for entry, event in zip(entries, events, strict=True):
        log.append(entry, event)
        roots[log.tree.size] = log.tree.root()
    for known in vectors["roots"]:
        require(roots[known["size"]].hex() == known["root_hex"], f"root of {known['size']} differs")
    log.finish(Checkpoint(vectors["origin"], len(entries), roots[len(entries)]))
    return roots


def check_cosignatures(vectors: dict, ledger: VerifierKey) -> None:
    witnesses = [VerifierKey.parse(vectors[key]) for key in ("witness_vkey", "mirror_vkey")]
    Checkpoint.open(vectors["cosigned_checkpoint"].encode(), ledger, *witnesses)


def check_proofs(vectors: dict, leaves: list[bytes], roots: dict) -> None:
    for known in vectors["inclusion"]:
        index, size, path = known["index"], known["size"], unhex(known["proof_hex"])
        check_inclusion(index, size, leaves[index], path, roots[size])
    for known in vectors["consistency"]:
        old, new, path = known["old"], known["new"], unhex(known["proof_hex"])
        check_consistency(old, new, roots[old], roots[new], path)


def check_tlog_proofs(vectors: dict, ledger: VerifierKey) -> None:
    """Receipts as files: c2sp.org/tlog-proof (FORMATS.md, section 6)."""
    for known in vectors["tlog_proofs"]:
        proof, _, note = known["text"].partition("\n\n")
        header, extra, index, *path = proof.split("\n")
        require(header == "c2sp.org/tlog-proof@v1", "another kind of file")
        entry = unb64(extra.removeprefix("extra "))
        require(re.fullmatch(r"index (0|[1-9][0-9]*)", index) is not None, "malformed index")
        number = int(index.removeprefix("index "))
        require(Entry.parse(entry).index == number == known["index"], "index differs")
        head = Checkpoint.open(note.encode(), ledger)
        hashes = [unb64(line) for line in path]
        check_inclusion(number, head.size, leaf_hash(entry), hashes, head.root)


def check_receipts(
    vectors: dict, ledger: VerifierKey, batches: list[Batch], leaves: list[bytes]
) -> None:
    """A receipt for each batch that ends at an entry with a known inclusion path."""
    paths = {
        known["index"]: unhex(known["proof_hex"])
        for known in vectors["inclusion"]
        if known["size"] == len(leaves)
    }
    checked = 0
    for known, batch in zip(vectors["batches"], batches, strict=True):
        first = known["first_index"]
        path = paths.get(first + known["count"] - 1)
        if path is not None:
            prev = leaves[first - 1] if first else bytes(32)
            note = vectors["checkpoint"].encode()
            check_receipt(batch, ledger, first, known["recorded_at"], prev, path, note)
            checked += 1
    require(checked > 0, "the known answers hold no receipt")


def check_refusals(vectors: dict, ledger: VerifierKey, leaves: list[bytes], roots: dict) -> None:
    """A verifier that accepts everything would pass the checks above."""
    known = vectors["inclusion"][-1]
    index, size, path = known["index"], known["size"], unhex(known["proof_hex"])
    root, leaf = roots[size], leaves[index]
    step = vectors["consistency"][-1]
    old, new, steps = step["old"], step["new"], unhex(step["proof_hex"])
    note = vectors["checkpoint"]
    entry = bytes.fromhex(vectors["entries_hex"][-1])
    altered = note.replace(f"\n{len(leaves)}\n", "\n9\n")
    unsigned = note.partition("\n\n")[0] + "\n"
    for what, check in {
        "a path that is cut": lambda: check_inclusion(index, size, leaf, path[:-1], root),
        "a path that is too long": lambda: check_inclusion(index, size, leaf, [*path, leaf], root),
        "another leaf": lambda: check_inclusion(index, size, root, path, root),
        "an index beyond the tree": lambda: check_inclusion(size, size, leaf, path, root),
        "another old root": lambda: check_consistency(old, new, leaf, roots[new], steps),
        "another new root": lambda: check_consistency(old, new, roots[old], leaf, steps),
        "a proof from size 0": lambda: check_consistency(0, new, roots[0], roots[new], []),
        "another size": lambda: Checkpoint.open(altered.encode(), ledger),
        "a note without signatures": lambda: Checkpoint.open(unsigned.encode(), ledger),
        "an entry that is cut": lambda: Entry.parse(entry[:-1]),
        "an entry that is too long": lambda: Entry.parse(entry + b"\x00"),
    }.items():
        try:
            check()
        except Invalid:
            continue
        raise Invalid(f"{what} was accepted")


def unhex(digests: list[str]) -> list[bytes]:
    return [bytes.fromhex(digest) for digest in digests]
