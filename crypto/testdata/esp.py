#!/usr/bin/env python3
"""Seals ESP packets with OpenSSL, by the RFCs' text: writes esp.json and checks rfc.json."""
import hashlib
import json
import os
import struct

from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

HERE = os.path.dirname(os.path.abspath(__file__))
HMACS = {
    "hmac-sha2-256-128": (32, 16, hashes.SHA256),
    "hmac-sha2-384-192": (48, 24, hashes.SHA384),
    "hmac-sha2-512-256": (64, 32, hashes.SHA512),
}
AEADS = {"aes-gcm-16": ((16, 24, 32), AESGCM), "chacha20-poly1305": ((32,), ChaCha20Poly1305)}


def stream(label, n):
    return hashlib.shake_256(label.encode()).digest(n)


def icv(name, key, data, esn, seq_hi):
    _, size, digest = HMACS[name]
    h = hmac.HMAC(key, digest())
    h.update(data + (struct.pack(">I", seq_hi) if esn else b""))  # RFC 4303, 2.2.1
    return h.finalize()[:size]


def seal_aead(name, key, body, spi, seq_hi, seq, esn):
    salt, iv = key[-4:], struct.pack(">II", seq_hi, seq)
    aad = struct.pack(">III", spi, seq_hi, seq) if esn else struct.pack(">II", spi, seq)
    return struct.pack(">II", spi, seq) + iv + AEADS[name][1](key[:-4]).encrypt(salt + iv, body, aad)


def seal_cbc(key, body, spi, seq_hi, seq):
    ecb = Cipher(algorithms.AES(key), modes.ECB()).encryptor()
    iv = ecb.update(struct.pack(">QII", 0, seq_hi, seq))  # SP 800-38A, appendix C
    cbc = Cipher(algorithms.AES(key), modes.CBC(iv)).encryptor()
    return struct.pack(">II", spi, seq) + iv + cbc.update(body)


def ctr(key, iv, text):
    block = key[-4:] + iv + struct.pack(">I", 1)  # RFC 3686, section 4
    return Cipher(algorithms.AES(key[:-4]), modes.CTR(block)).encryptor().update(text)


def seal_ctr(key, body, spi, seq_hi, seq):
    iv = struct.pack(">II", seq_hi, seq)
    return struct.pack(">II", spi, seq) + iv + ctr(key, iv, body)


def case(encryption, integrity, enc_len, auth_len, align, blocks, esn):
    label = f"{encryption}/{integrity}/{enc_len}/{blocks}/{esn}"
    enc, auth = stream("enc " + label, enc_len), stream("auth " + label, auth_len)
    body = stream("body " + label, align * blocks)
    spi, seq, seq_hi = struct.unpack(">III", stream("header " + label, 12))
    if not esn:
        seq_hi = 0
    if encryption in AEADS:
        pkt = seal_aead(encryption, enc, body, spi, seq_hi, seq, esn)
    elif encryption == "aes-cbc":
        pkt = seal_cbc(enc, body, spi, seq_hi, seq)
    elif encryption == "aes-ctr":
        pkt = seal_ctr(enc, body, spi, seq_hi, seq)
    else:
        pkt = struct.pack(">II", spi, seq) + body
    if integrity:
        pkt += icv(integrity, auth, pkt, esn, seq_hi)
    return {"encryption": encryption, "integrity": integrity, "encKey": enc.hex(), "authKey": auth.hex(),
            "esn": esn, "seqHi": seq_hi, "body": body.hex(), "packet": pkt.hex()}


def cases():
    for esn in (False, True):
        for blocks in (1, 2, 17):
            for name, (keys, _) in AEADS.items():
                for n in keys:
                    yield case(name, "", n + 4, 0, 4, blocks, esn)
            for name, (auth_len, _, _) in HMACS.items():
                yield case("null", name, 0, auth_len, 4, blocks, esn)
                for n in (16, 24, 32):
                    yield case("aes-cbc", name, n, auth_len, 16, blocks, esn)
                    yield case("aes-ctr", name, n + 4, auth_len, 4, blocks, esn)


def check_rfc():
    rfc = json.load(open(os.path.join(HERE, "rfc.json")))
    for t in rfc["cbc"]:
        key, pkt = bytes.fromhex(t["encKey"]), bytes.fromhex(t["packet"])
        cbc = Cipher(algorithms.AES(key), modes.CBC(pkt[8:24])).decryptor()
        assert cbc.update(pkt[24:]).hex() == t["body"], t["case"]
        assert icv(t["integrity"], bytes(range(32)), pkt, False, 0).hex() == t["icv"], t["case"]
    for t in rfc["ctr"]:
        key, iv, text = (bytes.fromhex(t[name]) for name in ("encKey", "iv", "ciphertext"))
        assert ctr(key, iv, text).hex() == t["body"], t["case"]
    for t in rfc["hmac"]:
        assert icv(t["integrity"], bytes.fromhex(t["authKey"]), t["data"].encode(), False, 0).hex() == t["icv"], t["case"]


if __name__ == "__main__":
    check_rfc()
    with open(os.path.join(HERE, "esp.json"), "w") as f:
        json.dump({"source": "esp.py, Python cryptography over OpenSSL", "tests": list(cases())}, f, indent=1)
        f.write("\n")
