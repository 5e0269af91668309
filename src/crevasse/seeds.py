"""Seeds of their own for everything that is drawn."""

import hashlib


def seed_for(seed: int, purpose: str) -> int:
    """A seed for each purpose: seed + i would make neighbours share their draws."""
    return int.from_bytes(hashlib.blake2b(f"{seed} {purpose}".encode(), digest_size=7).digest(), "big")
