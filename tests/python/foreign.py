"""Verifies a ledger with the code of another project, over HTTP alone.

    pip install -r requirements.txt
    python foreign.py --pages http://127.0.0.1:4590 --ledger VKEY

The hash of a leaf, the check of an inclusion path, the parsing of a checkpoint and the check of its
signature are those of the `sigstore` package, as it verifies entries of Rekor. Ours is only what is
between: URLs of tiles, and which hashes make a path (RFC 6962, section 2.1.1).
"""

import argparse
import struct
import urllib.request
from base64 import b64encode
from types import SimpleNamespace

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from sigstore._internal.merkle import _hash_children, _hash_leaf, verify_merkle_inclusion
from sigstore._internal.rekor.checkpoint import SignedCheckpoint, verify_checkpoint
from sigstore._internal.trust import Keyring
from sigstore.errors import VerificationError
from sigstore_models.common import v1 as common

from formats import VerifierKey

TILE_WIDTH = 256


def get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=30) as answer:
        return answer.read()


def tiles(pages: str, kind: str, size: int) -> list[bytes]:
    """The tiles of a level, or the bundles, of a tree of this size. Its numbers have three digits."""
    full, width = divmod(size, TILE_WIDTH)
    paths = [f"{number:03}" for number in range(full)]
    paths += [f"{full:03}.p/{width}"] if width else []
    return [get(f"{pages}/tile/{kind}/{path}") for path in paths]


def entries_of(bundle: bytes) -> list[bytes]:
    entries = []
    while bundle:
        (length,) = struct.unpack(">H", bundle[:2])
        entries.append(bundle[2 : 2 + length])
        bundle = bundle[2 + length :]
    return entries


def root_of(hashes: list[bytes]) -> bytes:
    if len(hashes) == 1:
        return hashes[0]
    split = 1 << (len(hashes) - 1).bit_length() - 1
    return _hash_children(root_of(hashes[:split]), root_of(hashes[split:]))


def path_of(index: int, hashes: list[bytes]) -> list[bytes]:
    """The siblings from a leaf up to the root over `hashes`."""
    if len(hashes) == 1:
        return []
    split = 1 << (len(hashes) - 1).bit_length() - 1
    if index < split:
        return [*path_of(index, hashes[:split]), root_of(hashes[split:])]
    return [*path_of(index - split, hashes[split:]), root_of(hashes[:split])]


def keyring(public_key: Ed25519PublicKey) -> Keyring:
    der = public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    details = common.PublicKeyDetails.PKIX_ED25519
    return Keyring([common.PublicKey(raw_bytes=b64encode(der), key_details=details)])


def proven(index: int, entry: bytes, path: list[bytes], root: bytes, note: str, log_id: bytes):
    """An entry with its proof, as `sigstore` holds one of Rekor."""
    size = SignedCheckpoint.from_text(note).checkpoint.log_size
    proof = SimpleNamespace(
        log_index=index,
        tree_size=size,
        hashes=path,
        root_hash=root,
        checkpoint=SimpleNamespace(envelope=note),
    )
    log = SimpleNamespace(key_id=log_id)
    inner = SimpleNamespace(inclusion_proof=proof, canonicalized_body=entry, log_id=log)
    return SimpleNamespace(_inner=inner)


def verify(keys: Keyring, entry) -> None:
    verify_merkle_inclusion(entry)
    verify_checkpoint(keys, entry)


def refused(keys: Keyring, entry, what: str) -> None:
    try:
        verify(keys, entry)
    except VerificationError:
        return
    raise SystemExit(f"sigstore accepted {what}")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--pages", required=True)
    arguments.add_argument("--ledger", required=True)
    given = arguments.parse_args()
    ledger = VerifierKey.parse(given.ledger)
    keys = keyring(Ed25519PublicKey.from_public_bytes(ledger.public_key))

    note = get(f"{given.pages}/checkpoint").decode()
    size = SignedCheckpoint.from_text(note).checkpoint.log_size
    bundles = tiles(given.pages, "entries", size)
    entries = [entry for bundle in bundles for entry in entries_of(bundle)]
    level_0 = b"".join(tiles(given.pages, "0", size))
    leaves = [level_0[at : at + 32] for at in range(0, len(level_0), 32)]
    assert leaves == [_hash_leaf(entry) for entry in entries] and len(leaves) == size
    level_1 = b"".join(tiles(given.pages, "1", size // TILE_WIDTH))
    whole = range(0, size // TILE_WIDTH * TILE_WIDTH, TILE_WIDTH)
    assert level_1 == b"".join(root_of(leaves[at : at + TILE_WIDTH]) for at in whole)

    root = root_of(leaves)
    indexes = sorted({0, 1, size // 2, TILE_WIDTH - 1, TILE_WIDTH, size - 2, size - 1})
    for index in indexes:
        path = path_of(index, leaves)
        good = [index, entries[index], path, root, note, ledger.id()]
        verify(keys, proven(*good))
        flipped = bytes([entries[index][0] ^ 1]) + entries[index][1:]
        swapped = [path[1], path[0], *path[2:]]
        for at, bad, what in [
            (0, index ^ 1, "another index"),
            (1, flipped, "a changed entry"),
            (2, path[:-1], "a short path"),
            (2, swapped, "a path in another order"),
            (3, bytes(32), "another root"),
            (4, note.replace(f"\n{size}\n", f"\n{size + 1}\n"), "a changed checkpoint"),
            (5, b"none", "a checkpoint of another log"),
        ]:
            refused(keys, proven(*good[:at], bad, *good[at + 1 :]), f"{what} at {index}")
        others = keyring(Ed25519PrivateKey.generate().public_key())
        refused(others, proven(*good), "a signature of another key")
    print(f"sigstore accepts {len(indexes)} of {size} entries, and none that was changed")


if __name__ == "__main__":
    main()
