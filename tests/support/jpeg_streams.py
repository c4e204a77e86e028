"""Encoders of JPEG frames of 8 to 16 bits, for the tests of the decoders: what few libraries write but scanners do.

Each is as plain as ITU-T T.81 allows: one component, one scan, Huffman codes of one length for all symbols.
"""

import struct

import numpy as np
from scipy.fft import dctn, idctn

_ZIGZAG = sorted(np.ndindex(8, 8), key=lambda p: (sum(p), p[0] if sum(p) % 2 else p[1]))  # (row, column)


class _Bits:
    """Bits put together into bytes, a zero byte after each 0xFF."""

    def __init__(self):
        self.text: list[str] = []

    def put(self, value: int, n_bits: int) -> None:
        if n_bits:
            self.text.append(format(value, f"0{n_bits}b"))

    def done(self) -> bytes:
        bits = "".join(self.text)
        bits += "1" * (-len(bits) % 8)
        return int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0")


def _segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def _huffman_table(kind: int, symbols: list[int], length: int) -> bytes:
    """All symbols have codes of this length, 0, 1, 2, ...; the one of all ones is never used."""
    assert len(symbols) < 2**length
    counts = [0] * 16
    counts[length - 1] = len(symbols)
    return _segment(0xC4, bytes([kind, *counts, *symbols]))


def _frame(marker: int, pixels: np.ndarray, n_bits: int) -> bytes:
    rows, columns = pixels.shape
    return _segment(marker, struct.pack(">BHHB", n_bits, rows, columns, 1) + bytes([1, 0x11, 0]))


def _magnitude(value: int) -> tuple[int, int]:
    """How many bits a number takes, and these bits: negative numbers count up from zero bits."""
    size = int(abs(value)).bit_length()
    return size, value if value >= 0 else value + 2**size - 1


def lossless(pixels: np.ndarray, n_bits: int) -> bytes:
    """Process 14, selection value 1: every value as its difference from the one to the left.

    Args:
        pixels: (row, column) unsigned values below 2**n_bits.
        n_bits: precision, 2 to 16.
    """
    values = pixels.astype(np.int64)
    predicted = np.empty_like(values)
    predicted[:, 1:] = values[:, :-1]
    predicted[1:, 0] = values[:-1, 0]
    predicted[0, 0] = 2 ** (n_bits - 1)
    differences = (values - predicted + 2**15) % 2**16 - 2**15
    bits = _Bits()
    for difference in differences.ravel().tolist():
        size, rest = (16, 0) if difference == -(2**15) else _magnitude(difference)
        bits.put(size, 5)
        if size < 16:  # there is one difference of 16 bits, which needs no more of them
            bits.put(rest, size)
    tables = _huffman_table(0x00, list(range(17)), 5)
    scan = _segment(0xDA, bytes([1, 1, 0x00, 1, 0, 0]))  # predictor 1, no point transform
    return b"\xff\xd8" + _frame(0xC3, pixels, n_bits) + tables + scan + bits.done() + b"\xff\xd9"


def extended(pixels: np.ndarray, n_bits: int, step: int = 1) -> tuple[bytes, np.ndarray]:
    """Process 4, sequential DCT of 12 bits, and of 8 bits what Baseline is.

    Args:
        pixels: (row, column) unsigned values below 2**n_bits, both numbers multiples of 8.
        n_bits: precision, 8 or 12.
        step: quantisation of all coefficients.

    Returns:
        The stream, and (row, column) float64 the inverse transform of its coefficients, which is what a decoder rounds.
    """
    rows, columns = pixels.shape
    blocks = pixels.astype(float).reshape(rows // 8, 8, columns // 8, 8).transpose(0, 2, 1, 3) - 2 ** (n_bits - 1)
    quantised = np.round(dctn(blocks, axes=(2, 3), norm="ortho") / step).astype(int)
    back = idctn(quantised * float(step), axes=(2, 3), norm="ortho") + 2 ** (n_bits - 1)
    most = 15 if n_bits > 8 else 11
    ac_symbols = [0x00, 0xF0] + [16 * run + size for run in range(16) for size in range(1, most)]
    bits, before = _Bits(), 0
    for block in quantised.reshape(-1, 8, 8):
        size, rest = _magnitude(int(block[0, 0]) - before)
        before = int(block[0, 0])
        bits.put(size, 5)
        bits.put(rest, size)
        _put_ac(bits, [int(block[place]) for place in _ZIGZAG[1:]], ac_symbols)
    tables = _segment(0xDB, bytes([0x00] + [step] * 64))
    tables += _huffman_table(0x00, list(range(most + 1)), 5) + _huffman_table(0x10, ac_symbols, 8)
    scan = _segment(0xDA, bytes([1, 1, 0x00, 0, 63, 0]))
    frame = _frame(0xC0 if n_bits == 8 else 0xC1, pixels, n_bits)
    stream = b"\xff\xd8" + frame + tables + scan + bits.done() + b"\xff\xd9"
    return stream, back.transpose(0, 2, 1, 3).reshape(rows, columns)


def _put_ac(bits: _Bits, coefficients: list[int], symbols: list[int]) -> None:
    last = max((i for i, value in enumerate(coefficients) if value), default=-1)
    n_zeros = 0
    for value in coefficients[: last + 1]:
        if value == 0:
            n_zeros += 1
            continue
        while n_zeros > 15:
            bits.put(symbols.index(0xF0), 8)
            n_zeros -= 16
        size, rest = _magnitude(value)
        bits.put(symbols.index(16 * n_zeros + size), 8)
        bits.put(rest, size)
        n_zeros = 0
    if last < len(coefficients) - 1:
        bits.put(symbols.index(0x00), 8)
